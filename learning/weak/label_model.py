"""What a fitted label model is: how often each rule says what of which class, and the labels that follow.

Owns `LabelModel` and `Posterior`. Must never fit: that is `dawid_skene`, `matrix_completion` and `majority`. Called by them, by
`learning.weak.fit` and by whoever turns votes into training labels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.weak.votes import VotePatterns, check_votes, find_patterns


class Posterior(NamedTuple):
    """Probabilistic labels: `proba` (n, k) float32, rows sum to 1; `is_covered` (n,) False where no rule votes.

    An item that no rule covers carries the class balance and must not be trained on: `proba[is_covered]`.
    """

    proba: NDArray[np.float32]
    is_covered: NDArray[np.bool_]


class LabelModel(NamedTuple):
    """A fitted model: P(rule j says v | class y) = `rates[j, v, y]`, P(it abstains | y) = `abstains[j, y]`, P(y) = `balance[y]`,
    all among items that some rule votes for.

    `rates` (m, k, k) and `abstains` (m, k) float64. `silent` are the rules that never fired: they weigh nothing. `objective` is
    what the fit followed, one value an iteration (Dawid-Skene: the log likelihood, which never falls). `method` is the one really
    used and `reason` one sentence for people.
    """

    method: str
    reason: str
    balance: NDArray[np.float64]
    rates: NDArray[np.float64]
    abstains: NDArray[np.float64]
    silent: tuple[int, ...]
    objective: tuple[float, ...]

    @property
    def n_labels(self) -> int:
        return len(self.balance)

    def accuracies(self) -> NDArray[np.float64]:
        """Return P(the rule is right | it votes), (m,); NaN for a rule that never fired."""
        joint = self.rates * self.balance
        fires = joint.sum(axis=(1, 2))
        right = np.einsum("jyy->j", joint)
        return np.divide(right, fires, out=np.full(len(fires), np.nan), where=fires > 0)

    def predict(self, votes: NDArray[Any]) -> Posterior:
        """Return the probabilistic labels of votes (n, m) by the rules the model was fitted on.

        Raises InvalidInputError on another number of rules, and as `check_votes`.
        """
        votes = check_votes(votes, self.n_labels)
        if votes.shape[1] != len(self.rates):
            raise InvalidInputError(
                f"the label model knows {len(self.rates)} rules, the votes are of {votes.shape[1]}: fit it anew"
            )
        return self.posterior(find_patterns(votes, self.n_labels))

    def posterior(self, patterns: VotePatterns) -> Posterior:
        """Return the probabilistic labels of the items behind `patterns`."""
        weights, base = evidence(self)
        proba, _ = normalise(patterns.indicator @ weights + base)
        is_covered = patterns.is_covered
        proba[~is_covered] = self.balance
        return Posterior(proba.astype(np.float32)[patterns.row_of_item], is_covered[patterns.row_of_item])


def evidence(model: LabelModel) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what a vote adds to the log probability of each class, (m * k, k), and what holds without a vote, (k,).

    Not voting is evidence too: a keyword of one class that is absent speaks for the others.
    """
    log_abstains = np.log(model.abstains)
    k = model.n_labels
    weights = (np.log(model.rates) - log_abstains[:, None, :]).reshape(-1, k)
    return weights, np.log(model.balance) + log_abstains.sum(axis=0)


def normalise(scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return softmax of each row of scores (n, k) and the log of each row's sum of exponentials (n,)."""
    columns = np.ascontiguousarray(scores.T)  # numpy reduces over a long last axis several times as fast
    top = columns.max(axis=0)
    columns -= top
    np.exp(columns, out=columns)
    total = columns.sum(axis=0)
    columns /= total
    return np.ascontiguousarray(columns.T), np.log(total) + top
