"""expected_gradient_length: ask where the label, whatever it is, would change a softmax head most.

B. Settles, M. Craven, S. Ray, "Multiple-Instance Active Learning", NIPS 2007 (expected gradient length, expected model change). For
a head over features h with a bias, the gradient of the log loss at label y is (p - e_y) times (h, 1), so its length is the product
of two lengths and no gradient is ever built. Called through `learning.query.select`.

| given | answer |
| --- | --- |
| one class, or a model sure of everything | scores of 0, pool order |
| missing values in a row of features | they count as 0 |
| no probabilities or no features | refused by name |
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learning.query.pool import Pool, features_of, proba_of, rows_as_floats
from learning.query.strategy import Parameters

_BLOCK_ROWS = 4096


def gradient_length_scores(pool: Pool, n: int, parameters: Parameters) -> NDArray[np.float32]:
    """Return the expected length of the head's gradient: (n_items,), 0 or more.

    Multiclass: sum over y of p_y |p - e_y| |(h, 1)|. Multilabel, where all 2**k answers are possible: the root of the expected
    squared length, sqrt(sum of p (1 - p)) |(h, 1)|.
    """
    proba, features = proba_of(pool, "expected_gradient_length"), features_of(pool, "expected_gradient_length")
    out = np.empty(pool.n_items, dtype=np.float32)
    for begin in range(0, pool.n_items, _BLOCK_ROWS):
        rows = slice(begin, begin + _BLOCK_ROWS)
        h = rows_as_floats(features, rows)
        out[rows] = expected_residual(np.asarray(proba[rows], dtype=np.float32), pool.is_multilabel)
        out[rows] *= np.sqrt(np.einsum("ij,ij->i", h, h) + 1)
    return out


def expected_residual(p: NDArray[np.float32], is_multilabel: bool) -> NDArray[np.float32]:
    """Return sum over y of p_y |p - e_y| for each row of p (n, k): (n,); multilabel: sqrt(sum of p (1 - p))."""
    if is_multilabel:
        return np.sqrt(np.maximum((p * (1 - p)).sum(axis=1), 0))
    others = np.einsum("ij,ij->i", p, p)[:, None] - p * p
    return (p * np.sqrt(np.maximum((1 - p) ** 2 + others, 0))).sum(axis=1)
