"""What a query strategy sees and answers, with the checks that all of them share.

Owns `Pool`, `Selection` and the falling order. Must never import a strategy. Called by every file of this package.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError

_SUM_TOLERANCE = 1e-2  # float16 probabilities of many classes still pass; a row of zeros (a failed item) does not


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
    """Unlabelled items: `proba` (n, k) and `features` (n, d), either may be None; `labelled_features` (m, d) what is labelled."""

    n_items: int
    proba: NDArray[np.float32] | None
    features: NDArray[np.float32] | None
    labelled_features: NDArray[np.float32] | None
    is_multilabel: bool
    seed: int


def make_pool(
    proba: NDArray[np.float32] | None,
    features: NDArray[np.float32] | None,
    labelled_features: NDArray[np.float32] | None,
    is_multilabel: bool,
    seed: int,
) -> Pool:
    """Return the checked pool. Raises InvalidInputError naming what does not fit."""
    known = [len(part) for part in (proba, features) if part is not None]
    if not known:
        raise InvalidInputError("a pool needs proba or features: pass at least one")
    if len(set(known)) > 1:
        raise InvalidInputError(f"proba has {known[0]} rows and features {known[1]}: they must describe the same items")
    if proba is not None:
        _check_proba(proba, is_multilabel)
    for name, part in (("features", features), ("labelled_features", labelled_features)):
        if part is not None and part.ndim != 2:
            raise InvalidInputError(f"{name} must be (n, d), got shape {part.shape}")
    if features is not None and labelled_features is not None and features.shape[1] != labelled_features.shape[1]:
        raise InvalidInputError(
            f"features have {features.shape[1]} columns and labelled_features {labelled_features.shape[1]}: use one encoder"
        )
    return Pool(known[0], proba, features, labelled_features, is_multilabel, seed)


def _check_proba(proba: NDArray[np.float32], is_multilabel: bool) -> None:
    if proba.ndim != 2 or proba.shape[1] == 0:
        raise InvalidInputError(f"proba must be (n, n_labels), got shape {proba.shape}")
    if not len(proba):
        return
    lowest, highest = proba.min(), proba.max()
    if not (lowest >= -1e-6 and highest <= 1 + 1e-3):  # also false for NaN
        raise InvalidInputError(f"proba must lie in [0, 1] without NaN, got {lowest} to {highest}")
    if is_multilabel:
        return
    sums = proba @ np.ones(proba.shape[1], dtype=proba.dtype)
    wrong = np.abs(sums - 1.0) > _SUM_TOLERANCE
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidInputError(f"row {row} of proba sums to {sums[row]:.4g}, not 1: leave failed items out of the pool")


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


def falling(scores: NDArray[np.float32], n: int) -> NDArray[np.int64]:
    """Return the indices of the `n` largest scores (0 = all), largest first: O(len) for a small n."""
    if n == 0 or n >= len(scores):
        return np.argsort(-scores, kind="stable")
    best = np.argpartition(scores, len(scores) - n)[len(scores) - n :]
    best.sort()  # equal scores then come in pool order, whatever the partition did
    return best[np.argsort(-scores[best], kind="stable")]
