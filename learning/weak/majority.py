"""majority: every vote counts the same. The baseline, and the answer where there is too little to learn from.

Must never weigh a rule. Called through `learning.weak.fit` and as the start of the other models.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learning.weak.label_model import LabelModel
from learning.weak.votes import VotePatterns

_RIGHT = 0.7  # what a rule is taken to be worth: (0.7 / 0.3) to 1 for its label over the others together
_START = 0.1  # votes that each class has before the rules vote


def soft_votes(patterns: VotePatterns) -> NDArray[np.float64]:
    """Return the share of votes of each class, (u, k), slightly smoothed: where the other models start from."""
    counts = patterns.indicator @ np.tile(np.eye(patterns.n_labels), (patterns.n_rules, 1))
    counts += _START
    shares: NDArray[np.float64] = counts / counts.sum(axis=1, keepdims=True)
    return shares


def fit_majority(patterns: VotePatterns, balance: NDArray[np.float64] | None, reason: str) -> LabelModel:
    """Return the model in which each rule is right with the same odds and fires alike for all classes.

    Its posterior orders classes by votes, ties by the balance (known, or equal shares).
    """
    k, m = patterns.n_labels, patterns.n_rules
    fires = np.asarray(patterns.counts @ patterns.indicator).reshape(m, k).sum(axis=1) / max(patterns.counts.sum(), 1)
    fires = np.clip(fires, 1e-6, 1 - 1e-6)
    wrong = (1 - _RIGHT) / max(k - 1, 1)
    confusion = np.where(np.eye(k, dtype=np.bool_), _RIGHT if k > 1 else 1.0, wrong)
    share = np.full(k, 1 / k) if balance is None else balance
    silent = silent_rules(patterns)
    return LabelModel("majority", reason, share, fires[:, None, None] * confusion, np.tile(1 - fires[:, None], k), silent, ())


def silent_rules(patterns: VotePatterns) -> tuple[int, ...]:
    """Return the rules that never vote."""
    votes = np.bincount(patterns.indicator.indices // patterns.n_labels, minlength=patterns.n_rules)
    return tuple(np.flatnonzero(votes == 0).tolist())
