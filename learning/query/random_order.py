"""random: every order equally likely; the base line that each strategy must beat.

Owns nothing but the draw. Called through `learning.query.select`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learning.query.pool import Pool


def random_scores(pool: Pool) -> NDArray[np.float32]:
    """Return seeded uniform scores: (n_items,) in [0, 1)."""
    return np.random.default_rng(pool.seed).random(pool.n_items, dtype=np.float32)
