"""typiclust: while there are few or no labels, ask for typical items of clusters that hold no label yet.

G. Hacohen, A. Dekel, D. Weinshall, "Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets", ICML 2022.
Owns the typicality and whose turn it is. Must never build anything of size n x n. Called through `learning.query.select`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learning.query.clustering import MAX_CLUSTERS, deal_rounds, dealt_groups, kmeans, nearest_centre, sample_rows
from learning.query.pool import Pool, chosen_first, features_of
from learning.query.strategy import Parameters
from learning.scaling import fit_scaling

_FIRST_ROUND = 32  # clusters beyond the labelled count when the whole pool is asked for: about one first training
_NEIGHBOURS = 20
_BLOCK_ROWS = 2048
_PEERS = 512


def typiclust_scores(pool: Pool, n: int, parameters: Parameters) -> NDArray[np.float32]:
    """Return scores for asking `n` items (0 = all): (n_items,) float32, all distinct in order.

    At most `MAX_CLUSTERS` items are placed by typicality, one cluster after the other (fewest labels first, then largest), and
    score in (1, 2]; the rest follow in seeded random order in [0, 1). Raises InvalidInputError without features.
    """
    features = features_of(pool, "typiclust")
    rng = np.random.default_rng(pool.seed)
    labelled = pool.labelled_features if pool.labelled_features is not None else features[:0]
    n_wanted = min(n or MAX_CLUSTERS, MAX_CLUSTERS, pool.n_items)
    k = min(MAX_CLUSTERS, pool.n_items, len(labelled) + min(n or _FIRST_ROUND, MAX_CLUSTERS))
    rows = sample_rows(pool.n_items, features.shape[1], k, rng)
    x = np.asarray(features if len(rows) == pool.n_items else features[rows], dtype=np.float32)
    scaling = fit_scaling(x)
    z = scaling.apply(x)
    centres, place = kmeans(z, k, rng)
    n_labelled = np.zeros(len(centres), dtype=np.int64)
    if len(labelled):
        n_labelled += np.bincount(
            nearest_centre(scaling.apply(np.asarray(labelled, dtype=np.float32)), centres), minlength=len(centres)
        )
    sizes = np.bincount(place, minlength=len(centres))
    members_of = np.split(np.argsort(place, kind="stable"), np.cumsum(sizes)[:-1])
    groups = []
    for cluster in dealt_groups(sizes, n_labelled, n_wanted):
        members = members_of[cluster]
        groups.append((members[np.argsort(-typicality(z[members]), kind="stable")], int(n_labelled[cluster])))
    return chosen_first(rows[deal_rounds(groups, n_wanted)], pool.n_items, np.random.default_rng(pool.seed))


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
        squares = block @ others.T
        squares *= -2
        squares += norms
        squares += (norms if others is z else np.einsum("ij,ij->i", block, block))[:, None]
        squares.partition(n_near, axis=1)
        near = np.maximum(squares[:, : n_near + 1], 0)  # holds the row itself, at distance 0
        out[begin : begin + len(block)] = n_near / np.maximum(np.sqrt(near, out=near).sum(axis=1), 1e-12)
    return out
