"""bald, committee_kl, committee_vote: ask where the members of a committee disagree.

N. Houlsby, F. Huszar, Z. Ghahramani, M. Lengyel, "Bayesian Active Learning for Classification and Preference Learning", 2011
(BALD). A. McCallum, K. Nigam, "Employing EM and Pool-Based Active Learning for Text Classification", ICML 1998 (divergence to the
mean). I. Dagan, S. P. Engelson, "Committee-Based Sampling For Training Probabilistic Classifiers", ICML 1995 (vote entropy). The
mean Kullback-Leibler divergence to the mean distribution is the mutual information of BALD, term by term: one function, two names.
Owns disagreement over given probabilities; must never train the members. Called through `learning.query.select`.

| given | answer |
| --- | --- |
| no committee, or one member | refused: one alone never disagrees |
| members that all agree | scores of 0, pool order |
| probabilities that do not sum to 1, NaN | refused by `learning.query.checks` |
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from learning.query.entropy import nats_rows
from learning.query.pool import Pool, committee_of
from learning.query.strategy import Parameters

_BLOCK_VALUES = 1 << 17


def bald_scores(pool: Pool, n: int, parameters: Parameters) -> NDArray[np.float32]:
    """Return H(mean p) - mean H(p) per item in nats: (n_items,) in [0, min(log k, log m)]; multilabel: the sum over labels."""
    return _mutual_information(committee_of(pool, "bald"), pool)


def kl_scores(pool: Pool, n: int, parameters: Parameters) -> NDArray[np.float32]:
    """Return the mean over members of KL(p_m || mean p) in nats: (n_items,), the same number as BALD's."""
    return _mutual_information(committee_of(pool, "committee_kl"), pool)


def _mutual_information(committee: NDArray[np.float32], pool: Pool) -> NDArray[np.float32]:
    out = np.empty(pool.n_items, dtype=np.float32)
    for rows in _blocks(committee):
        block = committee[:, rows].astype(np.float32)
        each = nats_rows(block.reshape(-1, block.shape[2]), pool.is_multilabel).reshape(block.shape[:2])
        out[rows] = nats_rows(block.mean(axis=0), pool.is_multilabel) - each.mean(axis=0)
    return np.maximum(out, 0, out=out)


def vote_scores(pool: Pool, n: int, parameters: Parameters) -> NDArray[np.float32]:
    """Return the entropy of the members' votes over log of the smaller of k and m: (n_items,) in [0, 1].

    Multilabel: mean over labels of the binary vote entropy, a member voting for a label from 0.5 on.
    """
    committee = committee_of(pool, "committee_vote")
    n_members, _, k = committee.shape
    out = np.empty(pool.n_items, dtype=np.float32)
    for rows in _blocks(committee):
        shares = _vote_shares(committee[:, rows], pool.is_multilabel)
        out[rows] = nats_rows(shares, pool.is_multilabel)
    largest = k * math.log(2) if pool.is_multilabel else math.log(max(min(k, n_members), 2))
    return np.maximum(out / np.float32(largest), 0)


def _vote_shares(block: NDArray[np.float32], is_multilabel: bool) -> NDArray[np.float32]:
    if is_multilabel:
        return (block >= 0.5).mean(axis=0, dtype=np.float32)
    votes = block.argmax(axis=2)
    shares = np.zeros(block.shape[1:], dtype=np.float32)
    for vote in votes:
        shares[np.arange(len(shares)), vote] += 1
    return shares / np.float32(len(block))


def _blocks(committee: NDArray[np.float32]) -> list[slice]:
    n_members, n, k = committee.shape
    rows = max(1, _BLOCK_VALUES // max(n_members * k, 1))
    return [slice(begin, begin + rows) for begin in range(0, n, rows)]
