"""one-coin: one number for every annotator, the chance to be right; a wrong label is any other class alike.

Y. Zhang, X. Chen, D. Zhou, M. I. Jordan, "Spectral Methods Meet EM: A Provably Optimal Algorithm for Crowdsourcing", JMLR 2016.
Owns the skills. Must never build a confusion matrix. Called through `learning.crowd.aggregate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning.crowd.cells import CellPosteriors, CellView
from learning.crowd.dawid_skene import softmax
from learning.crowd.labels import CrowdLabels
from learning.crowd.quality import FLOOR
from learning.crowd.result import Array, ClimbOptions, Fit, LabelModel, climb
from learning.crowd.votes import Votes, count_votes


class OneCoinOptions(ClimbOptions, frozen=True, kw_only=True):
    """Options of one-coin."""


@dataclass(frozen=True, eq=False)
class OneCoin:
    """`prior` (n_classes,) and `skills` (n_workers,): P(label is right)."""

    prior: Array
    skills: Array

    @property
    def base(self) -> Array:
        """Log of the class prior."""
        return np.log(self.prior)

    @property
    def log_wrong(self) -> Array:
        """Log probability of each single wrong label: (n_workers,)."""
        return np.log1p(-self.skills) - np.log(len(self.prior) - 1)

    def contributions(self, items: NDArray[Any], workers: NDArray[Any], classes: NDArray[Any]) -> Array:
        """Return log P(label | true class) of each label: (m, n_classes)."""
        out = np.repeat(self.log_wrong[workers][:, None], len(self.prior), axis=1)
        out[np.arange(len(out)), classes] = np.log(self.skills[workers])
        return out

    def normalise(self, scores: Array) -> Array:
        """Return the softmax of each row."""
        return softmax(scores)

    def grown(self, n_items: int, n_workers: int) -> LabelModel:
        """Return parameters in which new workers have the mean skill."""
        new = max(0, n_workers - len(self.skills))
        mean = self.skills.mean() if len(self.skills) else 0.5
        return OneCoin(self.prior, np.append(self.skills, np.full(new, mean))) if new else self

    def shape(self) -> tuple[int | None, int | None, int]:
        """Return (None, workers, classes)."""
        return None, len(self.skills), len(self.prior)


def fit_one_coin(crowd: CrowdLabels, options: OneCoinOptions, start: OneCoin | None) -> Fit:
    """Climb from the majority vote (or from `start`) to a maximum of the likelihood; needs two classes and a label."""
    view, n_labels = CellView(crowd), crowd.labels_per_worker
    wrong_before = np.log(crowd.n_classes - 1)

    def skills_of(chosen: Array) -> Array:
        right = (view.matrix.T @ chosen).reshape(crowd.n_workers, crowd.n_classes).sum(axis=1)
        skills = np.where(n_labels > 0, right / np.maximum(n_labels, 1), right.sum() / crowd.n_labels)
        return np.clip(skills, FLOOR, 1 - FLOOR)

    def expect(now: OneCoin) -> tuple[CellPosteriors, float]:
        odds = np.log(now.skills) - np.log1p(-now.skills) + wrong_before
        found = view.posteriors(view.matrix @ np.repeat(odds, crowd.n_classes), now.prior)
        return found, found.log_likelihood + float(n_labels @ now.log_wrong)

    def maximise(found: CellPosteriors, now: OneCoin) -> OneCoin:
        prior = np.maximum(view.class_sums(found, now.prior) / len(view.labelled), FLOOR)
        return OneCoin(prior / prior.sum(), skills_of(found.chosen))

    if start is None:
        votes = count_votes(crowd, Votes(crowd.n_classes))
        prior = np.maximum(votes[crowd.labelled].mean(axis=0), FLOOR)
        start = OneCoin(prior / prior.sum(), skills_of(votes[view.items, view.classes]))
    best, found, trace, has_converged = climb(start, expect, maximise, crowd.n_labels, options)
    return Fit(best, view.dense(found, best.prior), trace, has_converged)
