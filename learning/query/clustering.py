"""Clusters for the strategies that ask a little of everything: k-means on a bounded amount of work.

Owns the clustering. Must never build anything of size n x n. Called by typiclust, kmeans and badge.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

MAX_CLUSTERS = 500
_LLOYD_STEPS = 5
_WORK = 2e10  # multiply-adds of all Lloyd steps; a larger pool is clustered on a seeded sample
_FIT_ROWS = 4096
_ROWS_A_CENTRE = 16
_PATIENCE = 16  # refused draws before all rows are looked at again
_BLOCK_ROWS = 512


def kmeans(z: NDArray[np.float32], k: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return (centres (k, d), cluster of each row (n,)) after a few Lloyd steps from a k-means++ start.

    D. Arthur, S. Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007. Above 4,096 rows, or 16 a cluster, the
    centres are found on a seeded sample of so many, and every row goes to its nearest then.
    """
    most = max(_FIT_ROWS, _ROWS_A_CENTRE * k)
    part = z if len(z) <= most else z[rng.choice(len(z), most, replace=False)]
    centres = _plus_plus(part, k, rng)
    place = nearest_centre(part, centres)
    for _ in range(_LLOYD_STEPS):
        centres = _means(part, place, centres)
        place, before = nearest_centre(part, centres), place
        if np.array_equal(place, before):
            break
    return centres, place if part is z else nearest_centre(z, centres)


def draw_far(
    least: Callable[[int, list[int]], float],
    nearest: NDArray[np.float32],
    sums: NDArray[np.float64],
    picks: list[int],
    n: int,
    patience: int,
    rng: np.random.Generator,
) -> None:
    """Append rows to `picks`, each drawn by its squared distance to the picks, until they are n or `patience` draws were refused.

    `nearest` (n_rows,) holds the squared distances to the picks that are there now, `sums` their running sums, `least(row, rows)`
    the one of a row to the nearest of some rows. No distance need be up to date: a row drawn by what it was and kept with
    probability new / old has the very same chances.
    """
    begin = len(picks)
    while len(picks) < n and patience:
        row = min(int(np.searchsorted(sums, rng.random() * sums[-1], side="right")), len(nearest) - 1)
        left = min(float(nearest[row]), least(row, picks[begin:])) if row not in picks[begin:] else 0.0
        if rng.random() * float(nearest[row]) < left:
            picks.append(row)
        else:
            patience -= 1


def deal_rounds(groups: list[tuple[NDArray[np.int64], int]], n: int) -> NDArray[np.int64]:
    """Return up to n rows: each round takes the next row of every group, larger groups first.

    groups: (rows in the order in which the group offers them, number of rounds the group has had already).
    """
    sizes = np.array([len(ranked) for ranked, _ in groups])
    rounds, group = _rounds(sizes, np.array([n_had for _, n_had in groups]), n)
    rows = np.concatenate([ranked[:n] for ranked, _ in groups])
    return rows[np.lexsort((rows, -sizes[group], rounds))][:n]


def dealt_groups(sizes: NDArray[np.int64], n_had: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return the groups that `deal_rounds` might take one of n rows from, by their sizes and the rounds that each has had: the
    order within the others need not be known."""
    rounds, group = _rounds(sizes, n_had, n)
    ranked = np.lexsort((-sizes[group], rounds))[:n]
    if not len(ranked):
        return np.empty(0, dtype=np.int64)
    last = ranked[-1]
    is_in = (rounds < rounds[last]) | ((rounds == rounds[last]) & (sizes[group] >= sizes[group[last]]))
    return np.unique(group[is_in])


def _rounds(sizes: NDArray[np.int64], n_had: NDArray[np.int64], n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the round and the group of the first up to n rows of each group, group after group."""
    most = np.minimum(sizes, n)
    group = np.repeat(np.arange(len(sizes)), most)
    return np.arange(len(group)) - np.repeat(np.cumsum(most) - most, most) + n_had[group], group


def sample_rows(n: int, d: int, k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the rows to cluster, rising: all of them, or a seeded sample that keeps the work bounded."""
    most = max(_FIT_ROWS, 4 * k, int(_WORK / (max(k * d, 1) * (_LLOYD_STEPS + 1))))
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))


def _plus_plus(z: NDArray[np.float32], k: int, rng: np.random.Generator) -> NDArray[np.float32]:
    norms = np.einsum("ij,ij->i", z, z)
    picks = [int(rng.integers(len(z)))]
    nearest = np.full(len(z), np.inf, dtype=np.float32)
    near, fresh, copied = np.empty((k, z.shape[1]), dtype=np.float32), 0, 0

    def least(row: int, rows: list[int]) -> float:
        nonlocal copied
        for at in range(copied, len(picks)):
            near[at] = z[picks[at]]
        copied = len(picks)
        return max(float((norms[rows] - 2 * (near[fresh:copied] @ z[row])).min(initial=np.inf) + norms[row]), 0.0)

    while len(picks) < k:
        new = picks[fresh:]
        np.minimum(nearest, np.maximum((norms[new] - 2 * (z @ z[new].T)).min(axis=1) + norms, 0), out=nearest)
        nearest[new] = 0
        fresh = len(picks)
        sums = np.cumsum(nearest, dtype=np.float64)
        if sums[-1] <= 0:  # fewer distinct rows than clusters
            break
        draw_far(least, nearest, sums, picks, k, _PATIENCE, rng)
    return z[picks]


def nearest_centre(z: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the nearest of centres (k, d) for each row of z (n, d): (n,)."""
    half = np.einsum("ij,ij->i", centres, centres) / 2
    out = np.empty(len(z), dtype=np.int64)
    closeness = np.empty((min(_BLOCK_ROWS, len(z)), len(centres)), dtype=np.float32)  # one for all blocks: it stays in the cache
    for begin in range(0, len(z), _BLOCK_ROWS):
        block = z[begin : begin + _BLOCK_ROWS]
        near = np.matmul(block, centres.T, out=closeness[: len(block)])
        near -= half
        near.argmax(axis=1, out=out[begin : begin + len(block)])
    return out


def _means(z: NDArray[np.float32], place: NDArray[np.int64], centres: NDArray[np.float32]) -> NDArray[np.float32]:
    sizes = np.bincount(place, minlength=len(centres))
    is_full = sizes > 0
    starts = (np.cumsum(sizes) - sizes)[is_full]
    means = centres.copy()  # a cluster that lost all rows keeps its centre
    sums = np.add.reduceat(z[np.argsort(place, kind="stable")], starts, axis=0)
    means[is_full] = sums / sizes[is_full, None].astype(np.float32)
    return means
