"""matrix-completion: the rates that explain how often rules agree, from one table of pairs; items are read once.

A. Ratner, B. Hancock, J. Dunnmon, F. Sala, S. Pandey, C. Re, "Training Complex Models with Multi-Task Weak Supervision", AAAI 2019
(Snorkel MeTaL). With O[jv, iw] = P(rule j says v and rule i says w), conditionally independent rules obey O = M diag(balance) M^T
off the block diagonal, M[jv, y] = P(rule j says v | class y): the blocks on the diagonal are what is completed. Solved by bounded
L-BFGS (R. H. Byrd, P. Lu, J. Nocedal, C. Zhu, SIAM Journal on Scientific Computing, 1995) from majority's rates, where the paper
takes gradient steps; second moments leave the balance open, so an unknown one is Dawid-Skene's. Must never see features. Called
through `learning.weak.fit`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning.weak.dawid_skene import rates_of
from learning.weak.label_model import LabelModel
from learning.weak.majority import silent_rules, soft_votes
from learning.weak.votes import VotePatterns

_DENSE_COLUMNS = 128  # m * k, up to which dense products are the faster ones
_BLOCK_ROWS = 8192
_LEAST = 1e-6  # bounds of a rate: [1e-6, 1 - 1e-6]


def fit_matrix_completion(patterns: VotePatterns, balance: NDArray[np.float64], max_iter: int, reason: str) -> LabelModel:
    """Return the completed model; `objective` holds the squared error left and the number of iterations is its solver's own."""
    from scipy.optimize import minimize

    k = patterns.n_labels
    table = agreement(patterns)
    said = table.diagonal().copy()
    is_pair = 1 - np.kron(np.eye(patterns.n_rules), np.ones((k, k)))
    table *= is_pair

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        rates = flat.reshape(-1, k)
        joint = rates * balance
        off = (joint @ rates.T) * is_pair - table
        alone = rates @ balance - said
        gradient = 4 * off @ joint + 2 * np.outer(alone, balance)
        return float(np.vdot(off, off) + np.vdot(alone, alone)), gradient.ravel()

    start = _start(patterns, balance, said)
    bounds = [(_LEAST, 1 - _LEAST)] * start.size
    options = {"maxiter": max_iter, "ftol": 1e-14, "gtol": 1e-9}
    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    size = patterns.counts.sum() * balance
    votes = found.x.reshape(patterns.n_rules, k, k) * size
    votes *= np.minimum(1.0, size / votes.sum(axis=1))[:, None, :]  # rates of one rule and class stay below 1 together
    model = rates_of(votes, size, balance)
    return model._replace(method="matrix-completion", reason=reason, silent=silent_rules(patterns), objective=(float(found.fun),))


def agreement(patterns: VotePatterns) -> NDArray[np.float64]:
    """Return O (m * k, m * k): the share of items of which rule j says v and rule i says w.

    Few columns are multiplied as dense blocks, which costs n (m k)^2 but at the speed of the processor's matrix product.
    """
    indicator, counts = patterns.indicator, patterns.counts
    if indicator.shape[1] > _DENSE_COLUMNS:
        table: Any = np.asarray((indicator.T @ indicator.multiply(counts[:, None]).tocsr()).toarray())
        return np.asarray(table / counts.sum())
    table = np.zeros((indicator.shape[1], indicator.shape[1]))
    for begin in range(0, len(counts), _BLOCK_ROWS):
        block = indicator[begin : begin + _BLOCK_ROWS]
        dense = np.zeros(block.shape, dtype=np.float32)
        rows = np.repeat(np.arange(len(dense)), np.diff(block.indptr))
        dense[rows, block.indices] = 1
        weighted = dense * np.sqrt(counts[begin : begin + _BLOCK_ROWS, None], dtype=np.float32)
        table += weighted.T @ weighted
    return np.asarray(table / counts.sum())


def _start(patterns: VotePatterns, balance: NDArray[np.float64], said: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return majority's rates (m * k, k), scaled so that each label is said as often as it really is."""
    belief = soft_votes(patterns) * patterns.counts[:, None]
    rates = (np.asarray(patterns.indicator.T @ belief) + 0.1) / (belief.sum(axis=0) + 1)
    rates *= (said / np.maximum(rates @ balance, 1e-12))[:, None]
    return np.clip(rates, _LEAST * 10, 1 - _LEAST * 10)
