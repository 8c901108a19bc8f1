"""least_confidence: ask where the likeliest class is least likely.

D. D. Lewis, W. A. Gale, "A Sequential Algorithm for Training Text Classifiers", SIGIR 1994. Called through `learning.query.select`
and by the strategies that weigh it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learning.query.pool import Pool, proba_of

_BLOCK_VALUES = 1 << 17


def least_confidence_scores(pool: Pool) -> NDArray[np.float32]:
    """Return 1 - max p per item: (n_items,) in [0, 1], 1 = least sure; multilabel: mean over labels of 1 - max(p, 1 - p)."""
    return least_confidence_rows(proba_of(pool, "least_confidence"), pool.is_multilabel)


def least_confidence_rows(proba: NDArray[np.float32], is_multilabel: bool) -> NDArray[np.float32]:
    """Return the scores of `least_confidence_scores` for a bare matrix (n, k)."""
    if is_multilabel:
        return np.minimum(proba, 1 - proba).mean(axis=1, dtype=np.float32)
    out = np.empty(len(proba), dtype=np.float32)
    rows = max(1, _BLOCK_VALUES // proba.shape[1])
    for begin in range(0, len(proba), rows):  # a fold over columns: numpy's own maximum of short rows is three times slower
        columns = np.ascontiguousarray(proba[begin : begin + rows].T, dtype=np.float32)
        out[begin : begin + rows] = np.float32(1) - columns.max(axis=0)
    return out
