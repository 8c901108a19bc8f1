"""margin: ask where the two likeliest classes are closest.

T. Scheffer, C. Decomain, S. Wrobel, "Active Hidden Markov Models for Information Extraction", IDA 2001.
Called through `learning.query.select` and by the strategies that weigh a margin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learning.query.pool import Pool, proba_of

_BLOCK_VALUES = 1 << 17  # what one pass touches stays in the cache; a pass over columns beats numpy's partition at any k


def margin_scores(pool: Pool) -> NDArray[np.float32]:
    """Return 1 - (p1 - p2) per item: (n_items,) in [0, 1], 1 = least sure; a single class scores 0.

    Multilabel: mean over labels of the binary margin's 1 - |p - (1 - p)|.
    """
    return margin_rows(proba_of(pool, "margin"), pool.is_multilabel)


def margin_rows(proba: NDArray[np.float32], is_multilabel: bool) -> NDArray[np.float32]:
    """Return the scores of `margin_scores` for a bare matrix (n, k)."""
    if is_multilabel:
        return (1 - np.abs(2 * proba - 1)).mean(axis=1, dtype=np.float32)
    first, second = top_two(proba)
    return np.float32(1) - (first - second)


def top_two(proba: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the largest and second largest of each row: two (n,) float32, in O(n k); the second of one column is 0."""
    n = len(proba)
    first, second = np.empty(n, dtype=np.float32), np.zeros(n, dtype=np.float32)
    n_rows = max(1, _BLOCK_VALUES // proba.shape[1])
    for begin in range(0, n, n_rows):
        rows = slice(begin, begin + n_rows)
        first[rows], second[rows] = _fold(np.ascontiguousarray(proba[rows].T, dtype=np.float32))
    return first, second


def _fold(columns: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    first, second = columns[0].copy(), np.zeros(columns.shape[1], dtype=np.float32)
    for column in columns[1:]:
        np.maximum(second, np.minimum(first, column), out=second)
        np.maximum(first, column, out=first)
    return first, second
