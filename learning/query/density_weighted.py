"""density_weighted: ask for uncertain items that stand for many others.

B. Settles, M. Craven, "An Analysis of Active Learning Strategies for Sequence Labeling Tasks", EMNLP 2008 (information density).
The mean cosine similarity of an item to the whole pool is its direction times the mean direction, so each feature is read twice and
nothing of size n x n exists. Called through `learning.query.select`.

| given | answer |
| --- | --- |
| a row of zeros, or without a known value | similarity 0, density one half |
| one class, or a model sure of everything | scores of 0, pool order |
| no probabilities or no features | refused by name |
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from learning.query.measures import Measure, uncertainty
from learning.query.pool import Pool, features_of, proba_of, rows_as_floats
from learning.query.strategy import Parameters

_BLOCK_ROWS = 2048


class DensityParameters(Parameters, frozen=True, kw_only=True):
    """How uncertainty and density are weighed."""

    measure: Measure = "entropy"
    beta: Annotated[float, msgspec.Meta(ge=0, le=100, description="Power of the density; 0 leaves uncertainty alone.")] = 1.0


def density_weighted_scores(pool: Pool, n: int, parameters: DensityParameters) -> NDArray[np.float32]:
    """Return uncertainty * density ** beta: (n_items,) in [0, 1], density (1 + mean cosine similarity to the pool) / 2."""
    scores = uncertainty(parameters.measure, proba_of(pool, "density_weighted"), pool.is_multilabel)
    density = (1 + mean_cosine(features_of(pool, "density_weighted"))) / 2
    weights: NDArray[np.float32] = np.power(np.maximum(density, 0), parameters.beta, dtype=np.float32)
    return scores * weights


def mean_cosine(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean cosine similarity of each row of features (n, d) to all rows, itself included: (n,) in [-1, 1]."""
    n, d = features.shape
    inverse, total = np.empty(n, dtype=np.float32), np.zeros(d)
    is_whole = True
    blocks = [slice(begin, begin + _BLOCK_ROWS) for begin in range(0, n, _BLOCK_ROWS)]
    for rows in blocks:
        block = np.ascontiguousarray(features[rows], dtype=np.float32)
        norms = np.sqrt(np.einsum("ij,ij->i", block, block))
        if not np.isfinite(norms.sum()):  # a missing value shows in its row's length: no look of its own for it
            is_whole, block = False, rows_as_floats(features, rows)
            norms = np.sqrt(np.einsum("ij,ij->i", block, block))
        inverse[rows] = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
        total += inverse[rows] @ block
    mean = (total / max(n, 1)).astype(np.float32)
    out = np.empty(n, dtype=np.float32)
    for rows in blocks:
        block = features[rows] if is_whole else rows_as_floats(features, rows)
        out[rows] = (block @ mean) * inverse[rows]
    return out
