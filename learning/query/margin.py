"""margin: ask where the two likeliest classes are closest.

T. Scheffer, C. Decomain, S. Wrobel, "Active Hidden Markov Models for Information Extraction", IDA 2001.
Called through `learning.query.select`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learning.query.pool import Pool, proba_of

_BLOCK_ROWS = 4096  # a block of few columns stays in the cache; one pass over its columns beats numpy's partition at any k


def margin_scores(pool: Pool) -> NDArray[np.float32]:
    """Return 1 - (p1 - p2) per item: (n_items,) in [0, 1], 1 = least sure; a single class scores 0.

    Multilabel: mean over labels of the binary margin's 1 - |p - (1 - p)|.
    """
    proba = proba_of(pool, "margin")
    if pool.is_multilabel:
        return (1 - np.abs(2 * proba - 1)).mean(axis=1, dtype=np.float32)
    first, second = top_two(proba)
    return np.float32(1) - (first - second)


def top_two(proba: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the largest and second largest of each row: two (n,) float32, in O(n k); the second of one column is 0."""
    n = len(proba)
    first, second = np.empty(n, dtype=np.float32), np.zeros(n, dtype=np.float32)
    for begin in range(0, n, _BLOCK_ROWS):
        rows = slice(begin, begin + _BLOCK_ROWS)
        first[rows], second[rows] = _fold(np.ascontiguousarray(proba[rows].T, dtype=np.float32))
    return first, second


def _fold(columns: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    first, second = columns[0].copy(), np.zeros(columns.shape[1], dtype=np.float32)
    for column in columns[1:]:
        np.maximum(second, np.minimum(first, column), out=second)
        np.maximum(first, column, out=first)
    return first, second
