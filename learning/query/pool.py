"""What a query strategy sees and answers.

Owns `Pool`, `Selection`, the falling order and the questions "does the pool hold what I need". Must never import a strategy. Called
by every file of this package; `learning.query.checks` makes pools.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError


class Selection(NamedTuple):
    """Items of a pool, what teaches most first.

    `indices` (n,) int64 into the pool, `scores` (n,) float32 falling: the numbers the order was made from. `strategy` is the one
    really used, `reason` one sentence for people.
    """

    indices: NDArray[np.int64]
    scores: NDArray[np.float32]
    strategy: str
    reason: str


class Pool(NamedTuple):
    """Unlabelled items and what is known of them and of the labelled ones; whatever is not known is None.

    proba (n, k); features (n, d); committee (m, n, k) of m models' probabilities; parts (p, k), the probabilities of all regions or
    tokens, those of item i being rows part_starts[i] to part_starts[i + 1]; costs (n,) above 0. Of what is labelled:
    labelled_features (l, d) and labels, (l,) class numbers or (l, k) of 0/1 when items have several labels;
    annotator_labels (l, a), what each of a annotators answered.
    """

    n_items: int
    proba: NDArray[np.float32] | None
    features: NDArray[np.float32] | None
    labelled_features: NDArray[np.float32] | None
    is_multilabel: bool
    seed: int
    labels: NDArray[np.int64] | None = None
    committee: NDArray[np.float32] | None = None
    parts: NDArray[np.float32] | None = None
    part_starts: NDArray[np.int64] | None = None
    costs: NDArray[np.float32] | None = None
    annotator_labels: NDArray[np.int64] | None = None


def proba_of(pool: Pool, strategy: str) -> NDArray[np.float32]:
    """Return the pool's probabilities; raises InvalidInputError naming the strategy that needs them."""
    if pool.proba is None:
        raise InvalidInputError(f"strategy {strategy!r} needs probabilities and no model serves yet: use 'auto' or 'typiclust'")
    return pool.proba


def features_of(pool: Pool, strategy: str) -> NDArray[np.float32]:
    """Return the pool's features; raises InvalidInputError naming the strategy that needs them."""
    if pool.features is None:
        raise InvalidInputError(f"strategy {strategy!r} needs features: embed the pool first, or use 'auto' or 'random'")
    return pool.features


def committee_of(pool: Pool, strategy: str) -> NDArray[np.float32]:
    """Return the committee's probabilities (m, n, k) of two members or more; raises InvalidInputError naming the strategy."""
    if pool.committee is None:
        raise InvalidInputError(
            f"strategy {strategy!r} needs a committee's probabilities (m, n, k): pass `committee`, or use 'margin'"
        )
    if len(pool.committee) < 2:
        raise InvalidInputError(f"strategy {strategy!r} needs a committee of 2 members or more: one alone never disagrees")
    return pool.committee


def parts_of(pool: Pool, strategy: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return (parts, part_starts); raises InvalidInputError naming the strategy that needs them."""
    if pool.parts is None or pool.part_starts is None:
        raise InvalidInputError(f"strategy {strategy!r} needs the probabilities of each item's regions or tokens: pass `parts`")
    return pool.parts, pool.part_starts


def labelled_of(pool: Pool, strategy: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return (labelled_features, labels) of one label or more; raises InvalidInputError naming the strategy that needs them."""
    if pool.labelled_features is None or pool.labels is None or not len(pool.labels):
        raise InvalidInputError(
            f"strategy {strategy!r} needs labelled features with their labels: label first, by 'typiclust' or 'random'"
        )
    return pool.labelled_features, pool.labels


def falling(scores: NDArray[np.float32], n: int) -> NDArray[np.int64]:
    """Return the indices of the `n` largest scores (0 = all), largest first: O(len) for a small n."""
    if n == 0 or n >= len(scores):
        return np.argsort(-scores, kind="stable")
    best = np.argpartition(scores, len(scores) - n)[len(scores) - n :]
    best.sort()  # equal scores then come in pool order, whatever the partition did
    return best[np.argsort(-scores[best], kind="stable")]


def chosen_first(chosen: NDArray[np.int64], n_items: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return scores (n_items,) that put `chosen` first, in its order, in (1, 2], and the rest after it at random in [0, 1)."""
    scores = rng.random(n_items, dtype=np.float32)
    scores[chosen] = 2 - np.arange(len(chosen), dtype=np.float32) / (len(chosen) + 1)
    return scores


def rows_as_floats(x: NDArray[Any], rows: slice) -> NDArray[np.float32]:
    """Return some rows as contiguous float32 without NaN or infinity (they count as 0): a copy only where one is needed."""
    block = np.ascontiguousarray(x[rows], dtype=np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        is_whole = np.isfinite(block.sum())
    return block if is_whole else np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0)
