"""scikit-activeml's strategies over a pool: the one door to the library `skactiveml`.

D. Kottke et al., "scikit-activeml: A Library and Toolbox for Active Learning Algorithms", 2021. Owns the list of what is offered
and the translation of a pool into what the library expects: features of labelled and open items in one matrix, NaN as the open
ones' label, a logistic regression as its classifier. Must never be imported for its strategies but through `learning.query.rivals`.
What is built in already (uncertainty, committees, core-set, BADGE, TypiClust) is not offered a second time; what fits a model per
candidate or takes longer than a minute at 1,000 items is not offered at all.

| given | answer |
| --- | --- |
| the library is not installed | refused, naming the extra |
| labels of one class | refused: its classifier has nothing to separate |
| a pool above the bound of the strategy | refused, naming the bound |
| n above `most_picks`, or 0 | that many picks, the rest follows in seeded random order |
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.query.pool import Pool, chosen_first, features_of, labelled_of
from learning.query.strategy import Parameters
from learning.scaling import fit_scaling


class SkactivemlParameters(Parameters, frozen=True, kw_only=True):
    """The bound of the work."""

    most_picks: Annotated[int, msgspec.Meta(ge=1, le=10_000, description="Most items that the strategy itself picks.")] = 100


class Offered(NamedTuple):
    """One of the library's classes, what it does, its paper, the most items it is given (what it builds is n x n, or slow)."""

    kind: str
    summary: str
    paper: str
    pool_limit: int


OFFERED: dict[str, Offered] = {
    "probcover": Offered("ProbCover", "Items that cover most of the pool", "Yehuda et al., NeurIPS 2022", 10_000),
    "maxherding": Offered("MaxHerding", "Items whose kernel mean is the pool's", "Bae et al., ECCV 2024", 10_000),
    "clue": Offered("Clue", "Centres of clusters weighed by uncertainty", "Prabhu et al., ICCV 2021", 100_000),
    "falcun": Offered("Falcun", "Uncertain items spread over the classes", "Gilhuber et al., ECML PKDD 2024", 100_000),
    "contrastive": Offered(
        "ContrastiveAL", "Items that are predicted unlike their neighbours", "Margatina et al., EMNLP 2021", 100_000
    ),
    "discriminative": Offered(
        "DiscriminativeAL", "Items that look least like the labelled", "Gissin and Shalev-Shwartz, 2019", 100_000
    ),
    "greedy_sampling": Offered("GreedySamplingX", "The items farthest from all others asked", "Wu et al., 2019", 10_000),
}


def score_by(row: Offered) -> Callable[[Pool, int, SkactivemlParameters], NDArray[np.float32]]:
    """Return the scoring function of one of the library's strategies."""

    def scores(pool: Pool, n: int, parameters: SkactivemlParameters) -> NDArray[np.float32]:
        """Return (n_items,): the library's batch in (1, 2], the rest random."""
        count = min(n or parameters.most_picks, parameters.most_picks, pool.n_items)
        rows = _query(row.kind, pool, count)
        return chosen_first(rows, pool.n_items, np.random.default_rng(pool.seed))

    return scores


def _query(kind: str, pool: Pool, count: int) -> NDArray[np.int64]:
    known, labels = labelled_of(pool, kind)
    if (labels == labels[0]).all():
        raise InvalidInputError(f"scikit-activeml's {kind} needs labels of two classes: all are of one so far")
    x = np.concatenate([known, features_of(pool, kind)]).astype(np.float32)
    y = np.concatenate([labels.astype(np.float64), np.full(pool.n_items, np.nan)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = importlib.import_module("skactiveml.pool")
        has_clusters = "cluster_algo_dict" in inspect.signature(getattr(library, kind)).parameters
        clusters = {"cluster_algo_dict": {"random_state": pool.seed}} if has_clusters else {}
        strategy = getattr(library, kind)(random_state=pool.seed, **clusters)
        given = _models(strategy, sorted(set(labels.tolist())))
        rows = strategy.query(fit_scaling(x).apply(x), y, batch_size=count, **given)
    return np.asarray(rows, dtype=np.int64) - len(known)


def _models(strategy: Any, classes: list[int]) -> dict[str, Any]:
    """Return the models that the strategy's `query` asks for."""
    from sklearn.linear_model import LogisticRegression

    classifiers = importlib.import_module("skactiveml.classifier")
    wanted = inspect.signature(strategy.query).parameters
    made: dict[str, Any] = {}
    for name, known in (("clf", classes), ("estimator", classes), ("discriminator", [0, 1])):
        if name in wanted:
            made[name] = classifiers.SklearnClassifier(LogisticRegression(max_iter=200), classes=known)
    return made
