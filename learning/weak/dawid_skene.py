"""dawid-skene: expectation maximisation over rules, each with its own rate of saying each label, or nothing, of each class.

A. P. Dawid, A. M. Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm", Applied Statistics, 1979,
with abstention as one more answer: a rule that only ever says one label teaches by when it keeps silent. Known labels enter as
items whose class is certain (K. Nigam et al., "Text Classification from Labeled and Unlabeled Documents using EM", Machine
Learning, 2000). Must never see features. Called through `learning.weak.fit`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learning.weak.label_model import LabelModel, evidence, normalise
from learning.weak.majority import silent_rules, soft_votes
from learning.weak.votes import VotePatterns

_TOLERANCE = 1e-6  # of the log likelihood per item
_FIRST_ROWS = 10_000  # rows that are fitted first where there are at least twice as many
_PRIOR_RIGHT = 1.0  # votes that each rule starts with on the class it names ...
_PRIOR_EACH = 0.1  # ... and on every class: no rate is ever 0
_PRIOR_ABSTAIN = 1.0


class Anchors(NamedTuple):
    """Items whose class is known: `indicator` (a, m * k) their votes, `classes` (a, k) one-hot."""

    indicator: Any
    classes: NDArray[np.float64]


def fit_dawid_skene(
    patterns: VotePatterns, balance: NDArray[np.float64] | None, anchors: Anchors | None, max_iter: int, reason: str
) -> LabelModel:
    """Return the model of largest posterior probability near majority's answer; balance None = estimated.

    `objective` is the log likelihood per item with the prior's share, which no iteration lowers. Of many rows a spread of them is
    fitted first: what follows over all of them starts close to its end.
    """
    near = _fit_spread(patterns, balance, anchors, max_iter)
    belief = soft_votes(patterns) if near is None else _expect(patterns, *evidence(near))[0]
    model = _climb(patterns, belief, balance, anchors, max_iter)
    return model._replace(reason=reason, silent=silent_rules(patterns))


def estimate_balance(patterns: VotePatterns, max_iter: int) -> NDArray[np.float64]:
    """Return the share of each class among the items, (k,), for methods that cannot learn it.

    Of many rows it is the mean of what the model of a spread of them says of all: its error is that of some 10,000 items, and no
    further iteration over all rows is paid for.
    """
    near = _fit_spread(patterns, None, None, max_iter)
    if near is None:
        return fit_dawid_skene(patterns, None, None, max_iter, "").balance
    belief, _ = _expect(patterns, *evidence(near))
    size: NDArray[np.float64] = patterns.counts @ belief + 1
    return size / size.sum()


def _fit_spread(
    patterns: VotePatterns, balance: NDArray[np.float64] | None, anchors: Anchors | None, max_iter: int
) -> LabelModel | None:
    """Return the model of every n-th row, some 10,000, None where there are less than twice as many."""
    step = len(patterns.counts) // _FIRST_ROWS
    if step < 2:
        return None
    part = patterns._replace(indicator=patterns.indicator[::step], counts=patterns.counts[::step])
    return _climb(part, soft_votes(part), balance, anchors, max_iter)


def _climb(
    patterns: VotePatterns,
    belief: NDArray[np.float64],
    balance: NDArray[np.float64] | None,
    anchors: Anchors | None,
    max_iter: int,
) -> LabelModel:
    """Return the model that maximising and expecting in turns leads to from `belief` (u, k)."""
    by_rule = patterns.indicator.T.tocsr()
    counts = patterns.counts[:, None]
    objective: list[float] = []
    while True:
        model = _maximise(by_rule, belief * counts, balance, anchors, patterns.n_labels)
        weights, base = evidence(model)
        belief, log_sums = _expect(patterns, weights, base)
        objective.append(_objective(model, float(patterns.counts @ log_sums), patterns.counts.sum(), anchors, weights, base))
        has_settled = len(objective) > 1 and objective[-1] - objective[-2] < _TOLERANCE
        if has_settled or len(objective) >= max_iter:
            return model._replace(objective=tuple(objective))


def _expect(
    patterns: VotePatterns, weights: NDArray[np.float64], base: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the probability of each class for each row (u, k) and the row's log likelihood (u,)."""
    return normalise(patterns.indicator @ weights + base)


def _maximise(
    by_rule: Any, belief: NDArray[np.float64], balance: NDArray[np.float64] | None, anchors: Anchors | None, k: int
) -> LabelModel:
    """Return the rates of largest posterior probability under `belief` (u, k), items of each row by class."""
    votes = by_rule @ belief
    size = belief.sum(axis=0)
    if anchors is not None:
        votes += anchors.indicator.T @ anchors.classes
        size += anchors.classes.sum(axis=0)
    share = (size + 1) / (size + 1).sum() if balance is None else balance
    return rates_of(votes.reshape(-1, k, k), size, share)


def rates_of(votes: NDArray[np.float64], size: NDArray[np.float64], balance: NDArray[np.float64]) -> LabelModel:
    """Return the model in which rule j said v of class y `votes[j, v, y]` times among `size[y]` items, with the prior."""
    k = len(size)
    said = votes + _prior(k)
    silence = np.maximum(size - votes.sum(axis=1), 0) + _PRIOR_ABSTAIN
    total = said.sum(axis=1) + silence
    return LabelModel("dawid-skene", "", balance, said / total[:, None, :], silence / total, (), ())


def _prior(k: int) -> NDArray[np.float64]:
    return _PRIOR_EACH + _PRIOR_RIGHT * np.eye(k)


def _objective(
    model: LabelModel,
    log_likelihood: float,
    n_items: float,
    anchors: Anchors | None,
    weights: NDArray[np.float64],
    base: NDArray[np.float64],
) -> float:
    prior = float((_prior(model.n_labels) * np.log(model.rates)).sum() + _PRIOR_ABSTAIN * np.log(model.abstains).sum())
    prior += float(np.log(model.balance).sum())
    if anchors is not None:
        log_likelihood += float(((anchors.indicator @ weights + base) * anchors.classes).sum())
        n_items += len(anchors.classes)
    return (log_likelihood + prior) / n_items
