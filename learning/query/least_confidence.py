"""least_confidence: ask where the likeliest class is least likely.

D. D. Lewis, W. A. Gale, "A Sequential Algorithm for Training Text Classifiers", SIGIR 1994. Called through `learning.query.select`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learning.query.pool import Pool, proba_of


def least_confidence_scores(pool: Pool) -> NDArray[np.float32]:
    """Return 1 - max p per item: (n_items,) in [0, 1], 1 = least sure; multilabel: mean over labels of 1 - max(p, 1 - p)."""
    proba = proba_of(pool, "least_confidence")
    if pool.is_multilabel:
        return np.minimum(proba, 1 - proba).mean(axis=1, dtype=np.float32)
    return np.float32(1) - proba.max(axis=1).astype(np.float32)
