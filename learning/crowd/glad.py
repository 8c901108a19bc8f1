"""glad: the ability of each annotator and the difficulty of each item, one number each.

J. Whitehill, P. Ruvolo, T. Wu, J. Bergsma, J. Movellan, "Whose Vote Should Count More: Optimal Integration of Labels from Labelers
of Unknown Expertise", NIPS 2009. P(label is right) = 1 / (1 + exp(-ability * exp(log easiness))), wrong labels alike, normal priors
of mean 1 on both. Owns that M step. Must never build labels x classes. Called through `learning.crowd.aggregate`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from learning.crowd.cells import CellPosteriors, CellView
from learning.crowd.dawid_skene import softmax
from learning.crowd.labels import CrowdLabels
from learning.crowd.result import Array, ClimbOptions, Fit, LabelModel, climb

_PRIOR_MEAN = 1.0  # of ability and of log easiness


class GladOptions(ClimbOptions, frozen=True, kw_only=True):
    """Options of GLAD; the M step is conjugate gradients."""

    m_step_iter: Annotated[int, msgspec.Meta(ge=1, le=1000, description="Most conjugate gradient steps in an M step.")] = 25
    m_step_tol: Annotated[float, msgspec.Meta(gt=0, description="Largest gradient at which an M step ends.")] = 1e-2


@dataclass(frozen=True, eq=False)
class Glad:
    """`ability` (n_workers,), below 0 = worse than guessing; `log_easiness` (n_items,), high = easy; `n_classes`, uniform prior."""

    ability: Array
    log_easiness: Array
    n_classes: int

    @property
    def base(self) -> Array:
        """Log of the uniform class prior."""
        return np.full(self.n_classes, -np.log(self.n_classes))

    def contributions(self, items: NDArray[Any], workers: NDArray[Any], classes: NDArray[Any]) -> Array:
        """Return log P(label | true class) of each label: (m, n_classes)."""
        x = self.ability[workers] * np.exp(self.log_easiness[items])
        wrong = -np.logaddexp(0, x) - np.log(self.n_classes - 1)
        out = np.repeat(wrong[:, None], self.n_classes, axis=1)
        out[np.arange(len(out)), classes] = -np.logaddexp(0, -x)
        return out

    def normalise(self, scores: Array) -> Array:
        """Return the softmax of each row."""
        return softmax(scores)

    def grown(self, n_items: int, n_workers: int) -> LabelModel:
        """Return parameters with a mean ability for new workers and the prior's easiness for new items."""
        new = max(0, n_workers - len(self.ability))
        mean = self.ability.mean() if len(self.ability) else _PRIOR_MEAN
        items = np.full(max(0, n_items - len(self.log_easiness)), _PRIOR_MEAN)
        return replace(self, ability=np.append(self.ability, np.full(new, mean)), log_easiness=np.append(self.log_easiness, items))

    def shape(self) -> tuple[int | None, int | None, int]:
        """Return (items, workers, classes)."""
        return len(self.log_easiness), len(self.ability), self.n_classes


def fit_glad(crowd: CrowdLabels, options: GladOptions, start: Glad | None) -> Fit:
    """Climb from ability 1 and easiness 1 (or from `start`) to a maximum of the posterior; needs two classes and a label."""
    view, k = CellView(crowd), crowd.n_classes
    prior = np.full(k, 1 / k)

    def expect(now: Glad) -> tuple[CellPosteriors, float]:
        votes = view.matrix @ np.repeat(now.ability, k)
        found = view.posteriors(np.exp(now.log_easiness)[view.items] * votes + np.log(k - 1) * view.n_labels, prior)
        x = now.ability[crowd.workers] * np.exp(now.log_easiness)[crowd.items]
        value = found.log_likelihood - softplus(x).sum() - crowd.n_labels * np.log(k - 1)
        return found, float(value + _log_prior(now.ability) + _log_prior(now.log_easiness))

    def maximise(found: CellPosteriors, now: Glad) -> Glad:
        return _maximise(crowd, found.chosen[view.of_label], now, options)

    if start is None:
        start = Glad(np.full(crowd.n_workers, _PRIOR_MEAN), np.full(crowd.n_items, _PRIOR_MEAN), k)
    best, found, trace, has_converged = climb(start, expect, maximise, crowd.n_labels, options)
    return Fit(best, view.dense(found, prior), trace, has_converged)


def softplus(x: Array) -> Array:
    """Return log(1 + exp(x)) without overflow."""
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


def _log_prior(x: Array) -> float:
    return float(-0.5 * np.square(x - _PRIOR_MEAN).sum())


def _maximise(crowd: CrowdLabels, right: Array, now: Glad, options: GladOptions) -> Glad:
    """Return the M step: right (n_labels,) is the posterior that each label is right."""
    n_workers = crowd.n_workers
    rows = np.flatnonzero(crowd.labelled)
    first, degree = crowd.item_ptr[rows], crowd.labels_per_item

    def loss(point: Array) -> tuple[float, Array]:
        """Return minus the expected log posterior and its gradient, both from one exponential a label."""
        ability, easiness = point[:n_workers], np.exp(point[n_workers:])
        slope = np.repeat(easiness, degree)
        x = ability[crowd.workers] * slope
        small = np.exp(-np.abs(x))
        value = right @ x - np.maximum(x, 0).sum() - np.log1p(small).sum()
        excess = right - np.where(x >= 0, 1.0, small) / (1 + small)
        gradient = point - _PRIOR_MEAN
        gradient[:n_workers] -= np.bincount(crowd.workers, excess * slope, minlength=n_workers)
        gradient[n_workers + rows] -= np.add.reduceat(excess * x, first)
        return float(-value - _log_prior(point)), gradient

    found = minimize(
        loss,
        np.concatenate([now.ability, now.log_easiness]),
        method="CG",
        jac=True,
        options={"maxiter": options.m_step_iter, "gtol": options.m_step_tol},
    ).x
    return replace(now, ability=found[:n_workers], log_easiness=found[n_workers:])
