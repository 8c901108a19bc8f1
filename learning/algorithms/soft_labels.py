"""Probabilities of labels as weighted samples, for solvers that know class numbers only.

An item whose label is uncertain becomes one sample a label, weighted by its probability: what a solver then minimises is its
expected loss, exactly, but for shares that are left out. Called by the algorithms of scikit-learn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST_SHARE = 1e-3  # a probability below it is no sample of its own


def weighted_samples(
    y: NDArray[np.float32], is_balanced: bool = False, least_share: float = LEAST_SHARE
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return (row, class, weight) of each probability of y (n, k) worth a sample.

    A row's weights sum to 1; `is_balanced` then weighs each class to the same total.
    """
    top = y.max(axis=1, keepdims=True)
    kept = np.where(y >= np.minimum(least_share, top), y, 0).astype(np.float64)
    kept /= kept.sum(axis=1, keepdims=True)
    if is_balanced:
        mass = kept.sum(axis=0)
        kept *= len(y) / (np.count_nonzero(mass) * np.where(mass > 0, mass, 1))
    rows, classes = np.nonzero(kept)
    return rows, classes, kept[rows, classes]
