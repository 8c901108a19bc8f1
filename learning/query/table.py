"""The strategies by name: what each is, needs and takes.

Owns the table and the mixture of its rows. Must never order by itself. Called by `learning.query`; the app lists it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from learning.query.badge import badge_scores
from learning.query.class_balanced import BalanceParameters, class_balanced_scores
from learning.query.committee import bald_scores, kl_scores, vote_scores
from learning.query.core_set import core_set_scores
from learning.query.density_weighted import DensityParameters, density_weighted_scores
from learning.query.entropy import entropy_scores
from learning.query.error_reduction import ErrorReductionParameters, error_reduction_scores
from learning.query.gradient_length import gradient_length_scores
from learning.query.kmeans import KmeansParameters, kmeans_scores
from learning.query.least_confidence import least_confidence_scores
from learning.query.margin import margin_scores
from learning.query.mixture import deal
from learning.query.parts import RegionParameters, SpanParameters, region_scores, span_scores
from learning.query.pool import Pool, chosen_first, falling
from learning.query.random_order import random_scores
from learning.query.strategy import Parameters, Score, Strategy
from learning.query.typiclust import typiclust_scores

MAX_DEALT = 500  # when the whole pool is to be ordered by a mixture; the rest follows at random


class MixtureParameters(Parameters, frozen=True, kw_only=True):
    """Which strategies take turns."""

    shares: Annotated[
        dict[str, Annotated[float, msgspec.Meta(gt=0)]],
        msgspec.Meta(min_length=1, description="Strategy to its share of the places; shares are brought to sum 1."),
    ] = msgspec.field(default_factory=lambda: {"margin": 0.5, "core_set": 0.5})

    def __post_init__(self) -> None:
        for name in self.shares:
            if name not in BUILT_IN or name == "mixture":
                raise ValueError(f"shares of strategy 'mixture' name {name!r}: use some of {', '.join(BUILT_IN)}")


def mixture_scores(pool: Pool, n: int, parameters: MixtureParameters) -> NDArray[np.float32]:
    """Return (n_items,) float32: items dealt from the named strategies' orders in (1, 2], the rest at random in [0, 1)."""
    wanted = min(n or MAX_DEALT, pool.n_items)
    orders = []
    for name in parameters.shares:
        part = BUILT_IN[name]
        part.check(pool)
        orders.append(falling(part.score(pool, wanted, part.read_parameters(None)), wanted))
    dealt = deal(orders, list(parameters.shares.values()), wanted)
    return chosen_first(dealt, pool.n_items, np.random.default_rng(pool.seed))


def _plain(score: Callable[[Pool], NDArray[np.float32]]) -> Score:
    return lambda pool, n, parameters: score(pool)


_ROWS = (
    Strategy(
        "random",
        "Every order equally likely: the base line that each strategy must beat.",
        "",
        _plain(random_scores),
        needs=(),
        is_per_item=False,
        is_explored=False,
    ),
    Strategy(
        "least_confidence", "The likeliest class is least likely.", "Lewis and Gale, SIGIR 1994", _plain(least_confidence_scores)
    ),
    Strategy("margin", "The two likeliest classes are closest.", "Scheffer et al., IDA 2001", _plain(margin_scores)),
    Strategy("entropy", "The whole distribution is flattest.", "Dagan and Engelson, ICML 1995", _plain(entropy_scores)),
    Strategy(
        "bald",
        "The members of a committee are sure of different answers.",
        "Houlsby et al., 2011",
        bald_scores,
        needs=("committee",),
    ),
    Strategy(
        "committee_kl",
        "The members diverge from their mean.",
        "McCallum and Nigam, ICML 1998",
        kl_scores,
        needs=("committee",),
    ),
    Strategy("committee_vote", "The members' votes are split.", "Dagan and Engelson, ICML 1995", vote_scores, needs=("committee",)),
    Strategy(
        "density_weighted",
        "Uncertain items that stand for many others.",
        "Settles and Craven, EMNLP 2008",
        density_weighted_scores,
        DensityParameters,
        needs=("proba", "features"),
    ),
    Strategy(
        "core_set",
        "The items farthest from everything labelled or asked (greedy k-center).",
        "Sener and Savarese, ICLR 2018",
        core_set_scores,
        needs=("features",),
        uses=("labelled_features",),
        is_per_item=False,
    ),
    Strategy(
        "kmeans",
        "One item from the middle of each of n clusters.",
        "Zhdanov, 2019",
        kmeans_scores,
        KmeansParameters,
        needs=("features",),
        uses=("proba",),
        is_per_item=False,
    ),
    Strategy(
        "typiclust",
        "Typical items of clusters that hold no label yet, for the cold start.",
        "Hacohen et al., ICML 2022",
        typiclust_scores,
        needs=("features",),
        uses=("labelled_features",),
        is_per_item=False,
        is_explored=False,
    ),
    Strategy(
        "badge",
        "Uncertain items that differ from each other.",
        "Ash et al., ICLR 2020",
        badge_scores,
        needs=("proba", "features"),
        is_per_item=False,
    ),
    Strategy(
        "expected_gradient_length",
        "The label, whatever it is, would change the model most.",
        "Settles, Craven and Ray, NIPS 2007",
        gradient_length_scores,
        needs=("proba", "features"),
    ),
    Strategy(
        "expected_error_reduction",
        "The label, whatever it is, would leave the least doubt about the rest.",
        "Roy and McCallum, ICML 2001",
        error_reduction_scores,
        ErrorReductionParameters,
        needs=("features", "labelled_features", "labels"),
        uses=("proba",),
        is_per_item=False,
        has_multilabel=False,
    ),
    Strategy(
        "class_balanced",
        "Uncertain items of the classes that have too few labels.",
        "Bengar et al., WACV 2022",
        class_balanced_scores,
        BalanceParameters,
        uses=("labels",),
        is_per_item=False,
        has_multilabel=False,
    ),
    Strategy(
        "region_uncertainty",
        "Pictures with uncertain boxes.",
        "Brust et al., VISAPP 2019",
        region_scores,
        RegionParameters,
        needs=("parts", "part_starts"),
    ),
    Strategy(
        "span_uncertainty",
        "Texts with uncertain tokens.",
        "Settles and Craven, EMNLP 2008; Shen et al., ICLR 2018",
        span_scores,
        SpanParameters,
        needs=("parts", "part_starts"),
    ),
    Strategy(
        "mixture",
        "Several strategies take turns.",
        "",
        mixture_scores,
        MixtureParameters,
        needs=("proba", "features"),
        is_per_item=False,
    ),
)
BUILT_IN: dict[str, Strategy] = {row.name: row for row in _ROWS}
