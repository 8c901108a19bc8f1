"""Which item to ask next: one file a strategy, `select` the one entry.

Owns the table of strategies. Must never train, read or write. Called by the inference role (rank) and the bench.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.query.cold_start import choose
from learning.query.entropy import entropy_scores
from learning.query.least_confidence import least_confidence_scores
from learning.query.margin import margin_scores
from learning.query.mixture import weave
from learning.query.pool import Pool, Selection, falling, make_pool
from learning.query.random_order import random_scores
from learning.query.typiclust import typiclust_scores

_UNCERTAINTY: dict[str, Callable[[Pool], NDArray[np.float32]]] = {
    "least_confidence": least_confidence_scores,
    "margin": margin_scores,
    "entropy": entropy_scores,
}
STRATEGIES: tuple[str, ...] = ("auto", "random", "typiclust", *_UNCERTAINTY)

__all__ = ["STRATEGIES", "Selection", "select"]


def select(
    strategy: str,
    *,
    proba: NDArray[np.float32] | None,
    features: NDArray[np.float32] | None,
    labelled_features: NDArray[np.float32] | None = None,
    n: int = 0,
    seed: int = 0,
    exploration: float = 0.0,
    is_multilabel: bool = False,
) -> Selection:
    """Return the `n` items (0 = all) of a pool that teach most, first first.

    proba: (n_items, k) with rows that sum to 1 (multilabel: independent), or None while no model serves.
    features: (n_items, d), or None. labelled_features: (m, d) of the labelled items. exploration: share in [0, 1] of
    random items woven into an uncertainty order (random and typiclust ignore it). The answer depends on the arguments alone.
    An empty pool gives an empty selection, a pool smaller than `n` all of it.

    Raises InvalidInputError naming an unknown strategy, a value out of range, or what the strategy lacks.
    """
    if strategy not in STRATEGIES:
        raise InvalidInputError(f"strategy {strategy!r} is unknown: use one of {', '.join(STRATEGIES)}")
    if n < 0 or not 0.0 <= exploration <= 1.0:
        raise InvalidInputError(f"n must be 0 or more and exploration in [0, 1], got {n} and {exploration}")
    pool = make_pool(proba, features, labelled_features, is_multilabel, seed)
    reason = "asked for by name"
    if strategy == "auto":
        strategy, reason = choose(pool)
    if 0 < pool.n_items < n:
        reason += f"; {n} asked for, the pool has {pool.n_items}"
    if not pool.n_items:
        return Selection(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32), strategy, "the pool is empty")
    if strategy in _UNCERTAINTY:
        scores = _UNCERTAINTY[strategy](pool)
        if exploration > 0:
            indices, values = weave(scores, n, exploration, seed)
            return Selection(indices, values, strategy, f"{reason}; {exploration:.0%} of the places are random")
    else:
        scores = random_scores(pool) if strategy == "random" else typiclust_scores(pool, n)
    indices = falling(scores, n)
    return Selection(indices, scores[indices], strategy, reason)
