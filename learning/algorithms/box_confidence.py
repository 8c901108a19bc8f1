"""What a detector's score is worth: the share of its boxes that are right, and from where on a box is shown.

Owns the calibration. Must never see boxes that trained the detector. Called by box-head.

J. Platt, "Probabilistic Outputs for Support Vector Machines", Advances in Large Margin Classifiers, 1999: a logistic curve over the
score, here held near the score itself by a prior, so that a handful of boxes cannot bend it.

| given | answer |
| --- | --- |
| no held-out picture, or none with a box | the score as it is, shown from 0.4 |
| fewer than 10 true boxes held out | the curve, held by its prior, shown from 0.4 |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learning.metrics_regions import agree, least_confidence
from learning.regions import Regions

SHOWN_FROM = 0.4
_LEAST_BOXES = 10
_PRIOR = 4.0  # how firmly slope 1 and shift 0 are held: about as many boxes


class Confidence(NamedTuple):
    """`sigmoid(slope * logit(score) + shift)` is the share that is right; boxes below `shown_from` are no draft."""

    slope: float = 1.0
    shift: float = 0.0
    shown_from: float = SHOWN_FROM

    def of(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the confidence of raw scores in (0, 1), same shape."""
        out: NDArray[np.float32] = _sigmoid(self.slope * _logit(scores) + self.shift).astype(np.float32)
        return out


def fit_confidence(truth: Sequence[Regions], found: Sequence[Regions]) -> Confidence:
    """Return the confidence of a detector that found `found`, raw scores, in held-out pictures where `truth` is."""
    n_true = sum(len(one.labels) for one in truth)
    if not n_true:
        return Confidence()
    hits = np.concatenate([agree(true, said) >= 0 for true, said in zip(truth, found, strict=True)])
    scores = np.concatenate([said.scores for said in found])
    slope, shift = _fit_curve(_logit(scores), hits)
    curve = Confidence(slope, shift)
    if n_true < _LEAST_BOXES:
        return curve
    return curve._replace(shown_from=least_confidence(truth, [one._replace(scores=curve.of(one.scores)) for one in found]))


def _fit_curve(logits: NDArray[np.float64], hits: NDArray[np.bool_]) -> tuple[float, float]:
    """Return (slope, shift) of the likeliest curve under the prior, by Newton's method; the slope stays above 0."""
    design = np.stack([logits, np.ones_like(logits)], axis=1)
    prior = np.array([1.0, 0.0])
    weights = prior.copy()
    for _ in range(30):
        p = _sigmoid(design @ weights)
        gradient = design.T @ (p - hits) + _PRIOR * (weights - prior)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + _PRIOR * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights - step * min(1.0, 2.0 / max(1e-9, float(np.abs(step).max())))
        if np.abs(step).max() < 1e-8:
            break
    return max(float(weights[0]), 0.05), float(weights[1])


def _logit(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    p = np.clip(scores.astype(np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(p / (1 - p)))


def _sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-np.clip(z, -40, 40))))
