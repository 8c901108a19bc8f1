"""core_set: ask for the items farthest from everything labelled or asked (greedy k-center).

O. Sener, S. Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018; the greedy rule is T. F.
Gonzalez, "Clustering to minimize the maximum intercluster distance", Theoretical Computer Science, 1985. The picks are the
textbook's: a distance to the centres known so far is an upper bound of the distance to all, since a centre more only brings it down
(lazy greedy: M. Minoux, 1978). So the greedy rule is played among the rows with the largest bounds, and another row is looked at
again only when its bound says that it might be the farthest. Rows whose distances agree to float32 rounding may be taken in either
order. Memory is one (n,) bound beside the features. Called through `learning.query.select`.

| given | answer |
| --- | --- |
| no labelled features | the first pick is drawn by the seed |
| fewer distinct rows than asked | the distinct ones first, their copies follow in pool order with score 0 |
| missing values | they count as the mean of their column |
| no features | refused by name |
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learning.query.pool import Pool, features_of
from learning.query.strategy import Parameters

MAX_PICKS = 500  # when the whole pool is to be ordered; the rest follows by the distance that is left to it
_BLOCK_ROWS = 2048
_FIRST_CENTRES = 32
_FAR = 100.0  # squared length of the mean over the variance: beyond it float32 would lose the distances


def core_set_scores(pool: Pool, n: int, parameters: Parameters) -> NDArray[np.float32]:
    """Return distances: (n_items,), those of the picks as when picked, those of the rest as bounds below the last pick's."""
    z, labelled = _centred(features_of(pool, "core_set"), pool.labelled_features)
    n_picks = min(n or MAX_PICKS, pool.n_items)
    walk = _Walk(z, labelled, n_picks)
    if not len(labelled):
        walk.start(int(np.random.default_rng(pool.seed).integers(pool.n_items)))
    walk.run(n_picks)
    if not n:
        walk.settle()
    return walk.scores()


class _Walk:
    """One greedy walk. `bound` (n,) squared distances to the first `seen` centres of each row, -1 once it is picked."""

    def __init__(self, z: NDArray[np.float32], labelled: NDArray[np.float32], n_picks: int) -> None:
        self._z, self._norms = z, np.einsum("ij,ij->i", z, z)
        self._centres = np.empty((len(labelled) + n_picks, z.shape[1]), dtype=np.float32)
        self._centres[: len(labelled)] = labelled
        self._squares = np.zeros(len(self._centres), dtype=np.float32)
        self._squares[: len(labelled)] = np.einsum("ij,ij->i", labelled, labelled)
        self._n_centres = len(labelled)
        self._bound = np.full(len(z), np.inf, dtype=np.float32)
        self._seen = np.zeros(len(z), dtype=np.int64)
        self._picks: list[int] = []
        self._radii: list[float] = []
        if len(labelled):
            self._catch_up(slice(0, len(z)), 0, min(_FIRST_CENTRES, len(labelled)))

    def start(self, row: int) -> None:
        """Pick `row` first, though nothing is labelled to be far from."""
        self._add(row, np.inf)
        self._catch_up(slice(0, len(self._z)), 0, 1)
        self._bound[row] = -1

    def run(self, n_picks: int) -> None:
        """Pick until there are `n_picks`, or until every row lies on a centre."""
        while len(self._picks) < n_picks:
            rows, outside = self._block()
            self._refresh(rows)
            if not self._play(rows, outside, n_picks):
                return

    def settle(self) -> None:
        """Bring the bounds of all rows up to date."""
        self._refresh(np.flatnonzero(self._bound >= 0))

    def scores(self) -> NDArray[np.float32]:
        """Return the distances, those of the picks above all others."""
        scores = np.sqrt(np.maximum(self._bound, 0))
        radii = np.sqrt(np.minimum.accumulate(np.array(self._radii, dtype=np.float32)))
        if not len(radii):
            return scores
        if np.isinf(radii[0]):
            radii[0] = np.nextafter(radii[1] if len(radii) > 1 else scores.max(), np.float32(np.inf))
        scores = np.minimum(scores, np.nextafter(radii[-1], np.float32(-1)))
        scores[self._picks] = radii
        return scores

    def _block(self) -> tuple[NDArray[np.int64], float]:
        """Return (the rows with the largest bounds, ties included, in pool order; the largest bound of the others)."""
        at = max(len(self._bound) - _BLOCK_ROWS, 0)
        least = np.partition(self._bound, at)[at]
        is_in = self._bound >= least
        return np.flatnonzero(is_in), float(np.max(self._bound, where=~is_in, initial=-1))

    def _play(self, rows: NDArray[np.int64], outside: float, n_picks: int) -> bool:
        """Pick among up to date rows while the farthest of them beats every bound outside. Return whether distances are left."""
        z, norms, bound = self._z[rows], self._norms[rows], self._bound[rows]
        while len(self._picks) < n_picks:
            best = int(bound.argmax())
            farthest = float(bound[best])
            if farthest <= max(outside, 0):
                break
            self._add(int(rows[best]), farthest)
            at = self._n_centres - 1
            np.minimum(bound, norms - 2 * (z @ self._centres[at]) + self._squares[at], out=bound)
            np.maximum(bound, 0, out=bound, where=bound != -1)
            bound[best] = -1
        self._bound[rows], self._seen[rows] = bound, self._n_centres
        return max(float(bound.max()), outside) > 0

    def _add(self, row: int, radius: float) -> None:
        self._centres[self._n_centres], self._squares[self._n_centres] = self._z[row], self._norms[row]
        self._n_centres += 1
        self._picks.append(row)
        self._radii.append(radius)

    def _refresh(self, rows: NDArray[np.int64]) -> None:
        seen = self._seen[rows]
        for since in np.unique(seen):
            mine = rows[seen == since]
            for begin in range(0, len(mine), _BLOCK_ROWS):
                self._catch_up(mine[begin : begin + _BLOCK_ROWS], int(since), self._n_centres)

    def _catch_up(self, rows: NDArray[np.int64] | slice, since: int, until: int) -> None:
        """Let `rows` see the centres from `since` to `until`; a slice is walked in blocks."""
        if isinstance(rows, slice):
            for begin in range(rows.start, rows.stop, _BLOCK_ROWS):
                self._see(slice(begin, min(begin + _BLOCK_ROWS, rows.stop)), since, until)
        elif since < until:
            self._see(rows, since, until)

    def _see(self, rows: NDArray[np.int64] | slice, since: int, until: int) -> None:
        least = (self._squares[since:until] - 2 * (self._z[rows] @ self._centres[since:until].T)).min(axis=1)
        squares = np.maximum(self._norms[rows] + least, 0)
        self._bound[rows] = np.where(self._bound[rows] < 0, -1, np.minimum(self._bound[rows], squares))
        self._seen[rows] = until


def _centred(
    features: NDArray[np.float32], labelled: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return both as float32, with missing values as the column's mean; moved to the mean only where float32 needs that."""
    z = np.ascontiguousarray(features, dtype=np.float32)
    near = np.ascontiguousarray(features[:0] if labelled is None else labelled, dtype=np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        total = z.sum(axis=0, dtype=np.float64)
        is_whole = bool(np.isfinite(total).all() and np.isfinite(near.sum()))
    if is_whole:
        mean = total / len(z)
        spread = float(np.einsum("ij,ij->", z[:_BLOCK_ROWS], z[:_BLOCK_ROWS], dtype=np.float64)) / len(z[:_BLOCK_ROWS])
        if mean @ mean <= _FAR * max(spread - mean @ mean, 0):
            return z, near
    else:
        known = np.isfinite(z)
        mean = np.where(known, z, 0).sum(axis=0, dtype=np.float64) / np.maximum(known.sum(axis=0), 1)
    moved = [part - mean.astype(np.float32) for part in (z, near)]
    return np.where(np.isfinite(moved[0]), moved[0], 0), np.where(np.isfinite(moved[1]), moved[1], 0)
