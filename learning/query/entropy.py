"""entropy: ask where the whole distribution is flattest. Measured worse than random with many classes or a weak model.

I. Dagan, S. P. Engelson, "Committee-Based Sampling For Training Probabilistic Classifiers", ICML 1995.
Called through `learning.query.select` and by the strategies that weigh an entropy.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from learning.query.pool import Pool, proba_of

_TINY = np.float32(1e-30)
_BLOCK_VALUES = 1 << 17  # what one pass touches stays in the cache


def entropy_scores(pool: Pool) -> NDArray[np.float32]:
    """Return the entropy per item over its largest value log k: (n_items,) in [0, 1]; a single class scores 0.

    Multilabel: mean over labels of the binary entropy over log 2.
    """
    return entropy_rows(proba_of(pool, "entropy"), pool.is_multilabel)


def entropy_rows(proba: NDArray[np.float32], is_multilabel: bool) -> NDArray[np.float32]:
    """Return the scores of `entropy_scores` for a bare matrix (n, k)."""
    k = max(proba.shape[1], 1)
    nats = nats_rows(proba, is_multilabel)
    nats *= np.float32(1 / (k * math.log(2)) if is_multilabel else 1 / math.log(max(k, 2)))
    return np.maximum(nats, 0, out=nats)


def nats_rows(proba: NDArray[np.float32], is_multilabel: bool) -> NDArray[np.float32]:
    """Return the entropy of each row of proba (n, k) in nats: (n,); multilabel: the sum of the labels' binary entropies."""
    n, k = proba.shape
    out = np.empty(n, dtype=np.float32)
    rows = max(1, _BLOCK_VALUES // max(k, 1))
    logs, minus = np.empty((min(rows, n), k), dtype=np.float32), np.full(k, -1, dtype=np.float32)
    for begin in range(0, n, rows):
        block = np.asarray(proba[begin : begin + rows], dtype=np.float32)
        out[begin : begin + rows] = _terms(block, logs[: len(block)]) @ minus
        if is_multilabel:
            out[begin : begin + rows] += _terms(1 - block, logs[: len(block)]) @ minus
    return out


def _terms(proba: NDArray[np.float32], logs: NDArray[np.float32]) -> NDArray[np.float32]:
    np.maximum(proba, _TINY, out=logs)
    np.log(logs, out=logs)
    logs *= proba
    return logs
