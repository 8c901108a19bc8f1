"""Put features on one scale before a model or a distance sees them.

Owns the rule and the numbers kept with each model. Must never look at labels. Called by algorithms and by typicality.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_UNEVEN = 10.0  # columns whose largest spread exceeds this many times the median spread are scaled one by one


class Scaling(NamedTuple):
    """`z = (x - mean) * factor`, NaN counting as `mean`. Both (d,) float32."""

    mean: NDArray[np.float32]
    factor: NDArray[np.float32]

    def apply(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return x (n, d) scaled, as a new array; what is missing (NaN or infinite) becomes 0, the training mean."""
        z = (x - self.mean) * self.factor
        if not np.isfinite(z.sum()):
            z[~np.isfinite(z)] = 0.0
        return z


def fit_scaling(x: NDArray[np.float32]) -> Scaling:
    """Return the scaling of training features x (n, d) float32, NaN left out of account.

    Columns of one kind (pixels, embeddings) share one factor, so that a nearly empty column is not blown up into noise; columns
    of uneven spread (tables) are standardised one by one. A constant column gets factor 0: it says nothing.
    """
    known = np.isfinite(x)
    count = np.maximum(known.sum(axis=0), 1)
    filled = np.where(known, x, 0.0).astype(np.float64)
    mean = filled.sum(axis=0) / count
    spread = np.sqrt((np.where(known, x - mean, 0.0) ** 2).sum(axis=0) / count)
    spread[spread <= 1e-6 * np.abs(mean)] = 0.0  # a constant column, up to the rounding of float32
    varies = spread > 0
    if not varies.any():
        return Scaling(mean.astype(np.float32), np.zeros(len(mean), dtype=np.float32))
    is_even = spread.max() <= _UNEVEN * np.median(spread[varies])
    unit = np.full_like(spread, np.sqrt((spread**2).mean())) if is_even else np.where(varies, spread, 1.0)
    return Scaling(mean.astype(np.float32), np.where(varies, 1.0 / unit, 0.0).astype(np.float32))
