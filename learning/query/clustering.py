"""Clusters for the strategies that ask a little of everything: k-means on a bounded amount of work.

Owns the clustering. Must never build anything of size n x n. Called by typiclust, kmeans and badge.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_CLUSTERS = 500
_LLOYD_STEPS = 5
_WORK = 2e10  # multiply-adds of all Lloyd steps; a larger pool is clustered on a seeded sample
_SEED_ROWS = 4096
_BLOCK_ROWS = 2048


def kmeans(z: NDArray[np.float32], k: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return (centres (k, d), cluster of each row (n,)) after a few Lloyd steps from a k-means++ start on a sample.

    D. Arthur, S. Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007.
    """
    centres = _plus_plus(z if len(z) <= _SEED_ROWS else z[rng.choice(len(z), _SEED_ROWS, replace=False)], k, rng)
    place = nearest_centre(z, centres)
    for _ in range(_LLOYD_STEPS):
        centres = _means(z, place, centres)
        place, before = nearest_centre(z, centres), place
        if np.array_equal(place, before):
            break
    return centres, place


def deal_rounds(groups: list[tuple[NDArray[np.int64], int]], n: int) -> NDArray[np.int64]:
    """Return up to n rows: each round takes the next row of every group, larger groups first.

    groups: (rows in the order in which the group offers them, number of rounds the group has had already).
    """
    keys = []
    for ranked, n_had in groups:
        best = ranked[:n]
        keys.append(np.stack([np.arange(len(best)) + n_had, np.full(len(best), -len(ranked)), best]))
    rounds, sizes, rows = np.concatenate(keys, axis=1)
    return rows[np.lexsort((rows, sizes, rounds))][:n]


def sample_rows(n: int, d: int, k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the rows to cluster, rising: all of them, or a seeded sample that keeps the work bounded."""
    most = max(_SEED_ROWS, 4 * k, int(_WORK / (max(k * d, 1) * (_LLOYD_STEPS + 1))))
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))


def _plus_plus(z: NDArray[np.float32], k: int, rng: np.random.Generator) -> NDArray[np.float32]:
    norms = np.einsum("ij,ij->i", z, z)
    picks = [int(rng.integers(len(z)))]
    nearest = np.full(len(z), np.inf, dtype=np.float32)
    for _ in range(1, k):
        last = z[picks[-1]]
        np.minimum(nearest, np.maximum(norms - 2 * (z @ last) + last @ last, 0), out=nearest)
        nearest[picks[-1]] = 0
        sums = np.cumsum(nearest, dtype=np.float64)
        if sums[-1] <= 0:  # fewer distinct rows than clusters
            break
        picks.append(min(int(np.searchsorted(sums, rng.random() * sums[-1], side="right")), len(z) - 1))
    return z[picks]


def nearest_centre(z: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the nearest of centres (k, d) for each row of z (n, d): (n,)."""
    half = np.einsum("ij,ij->i", centres, centres) / 2
    out = np.empty(len(z), dtype=np.int64)
    for begin in range(0, len(z), _BLOCK_ROWS):
        out[begin : begin + _BLOCK_ROWS] = (z[begin : begin + _BLOCK_ROWS] @ centres.T - half).argmax(axis=1)
    return out


def _means(z: NDArray[np.float32], place: NDArray[np.int64], centres: NDArray[np.float32]) -> NDArray[np.float32]:
    order = np.argsort(place, kind="stable")
    ends = np.cumsum(np.bincount(place, minlength=len(centres)))
    means = centres.copy()  # a cluster that lost all rows keeps its centre
    begin = 0
    for cluster, end in enumerate(ends):
        if end > begin:
            means[cluster] = z[order[begin:end]].mean(axis=0)
        begin = end
    return means
