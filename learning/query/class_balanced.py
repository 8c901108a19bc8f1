"""class_balanced: ask for uncertain items of the classes that have too few labels.

J. Z. Bengar, J. van de Weijer, L. L. Fuentes, B. Raducanu, "Class-Balanced Active Learning for Image Classification", WACV 2022: an
item's gain is its uncertainty plus `weight` times the part of its probabilities that classes still lack on the way to equal counts;
the greedy rule takes the largest gain and counts the item's probabilities as its label. Gains only fall, so the greedy rule is
played among the largest bounds alone and its picks are still the exact ones. Called through `learning.query.select`.

| given | answer |
| --- | --- |
| no labels yet | all counts are 0 |
| one class seen | the other classes lack all their share: items of theirs come first |
| several labels an item | refused: equal counts are not defined |
| no probabilities | refused by name |
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from learning.query.measures import Measure, uncertainty
from learning.query.pool import Pool, proba_of
from learning.query.strategy import Parameters

MAX_PICKS = 500  # when the whole pool is to be ordered; the rest follows by the gain that is left to it
_BLOCK_ROWS = 2048


class BalanceParameters(Parameters, frozen=True, kw_only=True):
    """How uncertainty and balance are weighed."""

    measure: Measure = "margin"
    weight: Annotated[float, msgspec.Meta(ge=0, le=1000, description="Weight of the balance; 0 leaves uncertainty alone.")] = 1.0


def class_balanced_scores(pool: Pool, n: int, parameters: BalanceParameters) -> NDArray[np.float32]:
    """Return gains: (n_items,), those of the picks as they were when picked, those of the rest below the last pick's."""
    proba = np.asarray(proba_of(pool, "class_balanced"), dtype=np.float32)
    n_picks = min(n or MAX_PICKS, pool.n_items)
    unsure = uncertainty(parameters.measure, proba, False)
    lack = lacking(pool.labels, n_picks, proba.shape[1])
    bound = unsure + np.float32(parameters.weight) * np.minimum(proba, lack).sum(axis=1)
    picks: list[int] = []
    gains: list[float] = []
    while len(picks) < n_picks:
        at = max(len(bound) - _BLOCK_ROWS, 0)
        is_in = bound >= np.partition(bound, at)[at]
        rows, outside = np.flatnonzero(is_in), float(np.max(bound, where=~is_in, initial=-1))
        p, base = proba[rows], unsure[rows]
        is_open = bound[rows] >= 0
        while len(picks) < n_picks:
            gain = np.where(is_open, base + np.float32(parameters.weight) * np.minimum(p, lack).sum(axis=1), -1)
            best = int(gain.argmax())
            if gain[best] < outside:
                break
            picks.append(int(rows[best]))
            gains.append(float(gain[best]))
            lack = np.maximum(lack - p[best], 0)
            is_open[best], gain[best] = False, -1
        bound[rows] = gain
    bound = np.minimum(bound, np.nextafter(np.float32(min(gains)), np.float32(-1)))
    bound[picks] = np.minimum.accumulate(np.array(gains, dtype=np.float32))
    return bound


def lacking(labels: NDArray[np.int64] | None, n_picks: int, k: int) -> NDArray[np.float32]:
    """Return how many labels each class lacks on the way to equal counts after `n_picks` more: (k,), 0 or more."""
    counts = np.bincount(labels, minlength=k) if labels is not None else np.zeros(k, dtype=np.int64)
    return np.maximum((counts.sum() + n_picks) / k - counts, 0).astype(np.float32)
