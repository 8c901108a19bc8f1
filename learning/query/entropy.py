"""entropy: ask where the whole distribution is flattest. Measured worse than random with many classes or a weak model.

I. Dagan, S. P. Engelson, "Committee-Based Sampling For Training Probabilistic Classifiers", ICML 1995.
Called through `learning.query.select`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from learning.query.pool import Pool, proba_of

_TINY = np.float32(1e-30)


def entropy_scores(pool: Pool) -> NDArray[np.float32]:
    """Return the entropy per item over its largest value log k: (n_items,) in [0, 1]; a single class scores 0.

    Multilabel: mean over labels of the binary entropy over log 2.
    """
    proba = np.asarray(proba_of(pool, "entropy"), dtype=np.float32)
    if pool.is_multilabel:
        return ((_terms(proba) + _terms(1 - proba)) / math.log(2)).mean(axis=1, dtype=np.float32)
    k = proba.shape[1]
    return np.maximum(_terms(proba) @ np.full(k, 1 / math.log(max(k, 2)), dtype=np.float32), 0)


def _terms(proba: NDArray[np.float32]) -> NDArray[np.float32]:
    logs = np.log(np.maximum(proba, _TINY))
    logs *= -proba
    return logs
