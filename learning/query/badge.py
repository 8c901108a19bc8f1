"""badge: ask for items that are uncertain and differ from each other, by k-means++ over the gradients of the last layer.

J. T. Ash, C. Zhang, A. Krishnamurthy, J. Langford, A. Agarwal, "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower
Bounds", ICLR 2020. The gradient embedding of an item is a (x) h with a = p - e_y (y the likeliest class) and h its features, so |g
- g'|^2 = |a|^2 |h|^2 + |a'|^2 |h'|^2 - 2 (a a') (h h'): two small products, and the n x (classes x features) matrix never exists.
The first pick has the longest gradient, each next one is drawn with probability proportional to its squared distance to the picks.
The draws are `clustering.draw_far`'s, which seldom looks at all rows. Called through `learning.query.select`.

| given | answer |
| --- | --- |
| one class, or gradients that are all equal | no pick by gradients is possible: the rest follows in seeded random order |
| missing values in a row of features | they count as 0 |
| no probabilities or no features | refused by name |
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learning.query.clustering import draw_far
from learning.query.pool import Pool, chosen_first, features_of, proba_of, rows_as_floats
from learning.query.strategy import Parameters

MAX_PICKS = 500  # when the whole pool is to be ordered; the rest follows at random
_BLOCK_ROWS = 2048
_PATIENCE = 32  # refused draws before all rows are looked at again; a refusal costs as much as about 500 rows


def badge_scores(pool: Pool, n: int, parameters: Parameters) -> NDArray[np.float32]:
    """Return (n_items,) float32: the picks in (1, 2] in the order drawn, the rest in seeded random order in [0, 1)."""
    proba, features = proba_of(pool, "badge"), features_of(pool, "badge")
    rng = np.random.default_rng(pool.seed)
    picks = draw_picks(proba, rows_as_floats(features, slice(None)), min(n or MAX_PICKS, pool.n_items), pool.is_multilabel, rng)
    return chosen_first(picks, pool.n_items, rng)


def draw_picks(
    proba: NDArray[np.float32], h: NDArray[np.float32], n: int, is_multilabel: bool, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return up to n distinct rows, as drawn; fewer when no gradient differs from the picks'."""
    gradients = Gradients(proba, h, is_multilabel)
    picks = [int(gradients.squares.argmax())]
    nearest = gradients.nearest(None, picks)
    nothing = 1e-9 * float(gradients.squares.max())
    while len(picks) < n:
        sums = np.cumsum(nearest, dtype=np.float64)
        if sums[-1] <= nothing:
            break
        begin = len(picks)
        draw_far(gradients.least, nearest, sums, picks, n, _PATIENCE + len(nearest) // 512, rng)
        if len(picks) < n:
            nearest = gradients.nearest(nearest, picks[begin:])
            nearest[picks] = 0
    return np.array(picks, dtype=np.int64)


class Gradients:
    """Squared distances between gradient embeddings, from their two factors."""

    def __init__(self, proba: NDArray[np.float32], h: NDArray[np.float32], is_multilabel: bool) -> None:
        self._proba, self._h, self._is_multilabel = proba, h, is_multilabel
        self.squares = np.empty(len(h), dtype=np.float32)
        for rows in self._blocks():
            a = self._residuals(rows)
            self.squares[rows] = np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", h[rows], h[rows])

    def nearest(self, before: NDArray[np.float32] | None, picks: list[int]) -> NDArray[np.float32]:
        """Return each row's squared distance to the nearest of `picks`, or what it was `before` where that is less: (n,)."""
        a, h = self._residuals(np.array(picks)), self._h[picks]
        out = np.empty(len(self._h), dtype=np.float32) if before is None else before
        for rows in self._blocks():
            gaps = (self._residuals(rows) @ a.T) * (self._h[rows] @ h.T)
            gaps *= -2
            gaps += self.squares[picks]
            least = np.maximum(gaps.min(axis=1) + self.squares[rows], 0)
            out[rows] = least if before is None else np.minimum(before[rows], least)
        out[picks] = 0
        return out

    def least(self, row: int, picks: list[int]) -> float:
        """Return the squared distance of one row to the nearest of `picks`; infinite without any."""
        if not picks:
            return np.inf
        products = (self._residuals(np.array(picks)) @ self._residuals(np.array([row]))[0]) * (self._h[picks] @ self._h[row])
        return max(float((self.squares[picks] - 2 * products).min() + self.squares[row]), 0.0)

    def _residuals(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        a = np.array(self._proba[rows], dtype=np.float32)
        if self._is_multilabel:
            a -= a >= 0.5
        else:
            a[np.arange(len(a)), a.argmax(axis=1)] -= 1
        return a

    def _blocks(self) -> list[slice]:
        return [slice(begin, begin + _BLOCK_ROWS) for begin in range(0, len(self._h), _BLOCK_ROWS)]
