"""typiclust: while there are few or no labels, ask for typical items of clusters that hold no label yet.

G. Hacohen, A. Dekel, D. Weinshall, "Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets", ICML 2022.
Owns the clustering and the typicality. Must never build anything of size n x n. Called through `learning.query.select`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learning.query.pool import Pool, features_of
from learning.scaling import fit_scaling

MAX_CLUSTERS = 500
_FIRST_ROUND = 32  # clusters beyond the labelled count when the whole pool is asked for: about one first training
_LLOYD_STEPS = 5
_NEIGHBOURS = 20
_WORK = 2e10  # multiply-adds of all Lloyd steps; a larger pool is clustered on a seeded sample
_SEED_ROWS = 4096
_BLOCK_ROWS = 2048
_PEERS = 512


def typiclust_scores(pool: Pool, n: int) -> NDArray[np.float32]:
    """Return scores for asking `n` items (0 = all): (n_items,) float32, all distinct in order.

    At most `MAX_CLUSTERS` items are placed by typicality, one cluster after the other (fewest labels first, then largest), and
    score in (1, 2]; the rest follow in seeded random order in [0, 1). Raises InvalidInputError without features.
    """
    features = features_of(pool, "typiclust")
    rng = np.random.default_rng(pool.seed)
    scores = rng.random(pool.n_items, dtype=np.float32)
    if not pool.n_items:
        return scores
    labelled = pool.labelled_features if pool.labelled_features is not None else features[:0]
    n_wanted = min(n or MAX_CLUSTERS, MAX_CLUSTERS, pool.n_items)
    k = min(MAX_CLUSTERS, pool.n_items, len(labelled) + min(n or _FIRST_ROUND, MAX_CLUSTERS))
    rows = _sample(pool.n_items, features.shape[1], k, rng)
    x = np.asarray(features if len(rows) == pool.n_items else features[rows], dtype=np.float32)
    scaling = fit_scaling(x)
    z = scaling.apply(x)
    centres, place = kmeans(z, k, rng)
    n_labelled = np.zeros(len(centres), dtype=np.int64)
    if len(labelled):
        n_labelled += np.bincount(_nearest(scaling.apply(np.asarray(labelled, dtype=np.float32)), centres), minlength=len(centres))
    chosen = rows[_rounds(z, place, n_labelled, n_wanted)]
    scores[chosen] = 2 - np.arange(len(chosen), dtype=np.float32) / (len(chosen) + 1)
    return scores


def kmeans(z: NDArray[np.float32], k: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return (centres (k, d), cluster of each row (n,)) after a few Lloyd steps from a k-means++ start on a sample.

    D. Arthur, S. Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007.
    """
    centres = _plus_plus(z if len(z) <= _SEED_ROWS else z[rng.choice(len(z), _SEED_ROWS, replace=False)], k, rng)
    place = _nearest(z, centres)
    for _ in range(_LLOYD_STEPS):
        centres = _means(z, place, centres)
        place, before = _nearest(z, centres), place
        if np.array_equal(place, before):
            break
    return centres, place


def typicality(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 / (mean distance to the up to 20 nearest others) for the rows of one cluster z (m, d): (m,) float32.

    A cluster above 512 rows looks for neighbours among an evenly spaced 512 of them, so memory stays (2,048, 512).
    """
    others = z if len(z) <= _PEERS else z[np.linspace(0, len(z) - 1, _PEERS).astype(np.int64)]
    n_near = min(_NEIGHBOURS, len(others) - 1)
    if n_near < 1:
        return np.ones(len(z), dtype=np.float32)
    out = np.empty(len(z), dtype=np.float32)
    norms = np.einsum("ij,ij->i", others, others)
    for begin in range(0, len(z), _BLOCK_ROWS):
        block = z[begin : begin + _BLOCK_ROWS]
        squares = norms - 2 * (block @ others.T) + np.einsum("ij,ij->i", block, block)[:, None]
        near = np.partition(np.maximum(squares, 0), n_near, axis=1)[:, : n_near + 1]  # holds the row itself, at distance 0
        out[begin : begin + len(block)] = n_near / np.maximum(np.sqrt(near).sum(axis=1), 1e-12)
    return out


def _sample(n: int, d: int, k: int, rng: np.random.Generator) -> NDArray[np.int64]:
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


def _nearest(z: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int64]:
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


def _rounds(z: NDArray[np.float32], place: NDArray[np.int64], n_labelled: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return up to n rows: each round takes the next most typical row of every cluster; a label counts as a round already had."""
    keys = []
    for cluster in np.unique(place):
        members = np.flatnonzero(place == cluster)
        typical = typicality(z[members])
        best = members[np.argsort(-typical, kind="stable")[:n]]
        rounds = np.arange(len(best)) + n_labelled[cluster]
        keys.append(np.stack([rounds, np.full(len(best), -len(members)), best]))
    rounds, sizes, rows = np.concatenate(keys, axis=1)
    return rows[np.lexsort((rows, sizes, rounds))][:n]
