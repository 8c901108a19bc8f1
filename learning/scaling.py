"""Put features on one scale before a model or a distance sees them.

Owns the rule and the numbers kept with each model. Must never look at labels. Called by algorithms and by typicality.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_BLOCK_ROWS = 1024
_UNEVEN = 30.0  # largest spread over the lower quartile: pixels and embeddings measure 1.5 to 13, tables 500 and more


class Scaling(NamedTuple):
    """`z = (x - mean) * factor`, NaN counting as `mean`. Both (d,) float32."""

    mean: NDArray[np.float32]
    factor: NDArray[np.float32]

    def apply(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return x (n, d) scaled, as a new array; what is missing (NaN or infinite) becomes 0, the training mean."""
        with np.errstate(invalid="ignore", over="ignore"):  # infinite values are what the next lines are for
            z = (x - self.mean) * self.factor
            is_whole = np.isfinite(z.sum())
        if not is_whole:
            z[~np.isfinite(z)] = 0.0
        return z


def fit_scaling(x: NDArray[np.float32]) -> Scaling:
    """Return the scaling of training features x (n, d) float32, NaN left out of account.

    Columns of one kind (pixels, embeddings) share one factor, so that a nearly empty column is not blown up into noise; columns
    of uneven spread (tables) are standardised one by one. A constant column gets factor 0: it says nothing.
    """
    mean, spread = _moments(x)
    spread[spread <= 1e-6 * np.abs(mean)] = 0.0  # a constant column, up to the rounding of float32
    varies = spread > 0
    if not varies.any():
        return Scaling(mean.astype(np.float32), np.zeros(len(mean), dtype=np.float32))
    is_even = spread.max() <= _UNEVEN * np.percentile(spread[varies], 25, method="lower")
    unit = np.full_like(spread, np.sqrt((spread**2).mean())) if is_even else np.where(varies, spread, 1.0)
    return Scaling(mean.astype(np.float32), np.where(varies, 1.0 / unit, 0.0).astype(np.float32))


def _moments(x: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of each column, both (d,), over its finite values; blockwise, so no second copy of x."""
    if not len(x):
        return np.zeros(x.shape[1]), np.zeros(x.shape[1])
    with np.errstate(invalid="ignore"):
        is_whole = bool(np.isfinite(x.sum(dtype=np.float64)))
    blocks = [x[begin : begin + _BLOCK_ROWS] for begin in range(0, len(x), _BLOCK_ROWS)]
    first = np.nan_to_num(blocks[0][0], nan=0.0, posinf=0.0, neginf=0.0)  # near the mean, so that float32 sums stay exact enough
    count, total, squares = np.zeros(x.shape[1]), np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for block in blocks:
        off = block - first
        if not is_whole:
            known = np.isfinite(off)
            off[~known] = 0.0
            count += known.sum(axis=0)
        total += off.sum(axis=0, dtype=np.float64)
        squares += np.einsum("ij,ij->j", off, off)
    count = np.full(x.shape[1], float(len(x))) if is_whole else np.maximum(count, 1)
    mean = total / count
    return first + mean, np.sqrt(np.maximum(squares / count - mean**2, 0.0))
