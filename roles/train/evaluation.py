"""How a model does on the held-out part of a run.

Owns the figures of manifests and candidates. Must never train. Called by the fitting and the attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from datastore_layout.models import Manifest
from learning.algorithms import Model
from learning.metrics import accuracy, correct, expected_calibration_error, macro_f1
from learning.regions import Regions
from learning.transfer.calibration import CalibratedModel, cross_fitted, inner
from roles.regions import DRAFT_CONFIDENCE
from roles.train.evaluation_regions import (
    candidate_of,
    costs_of,
    find_regions,
    metrics_of,
    regions_in_label_order,
    score_of,
)
from roles.train.samples import Part
from roles.train.selector import Candidate

MOST_WRONG = 1_000_000  # corrections of an item that a version cannot answer
NOTHING = {width: Regions(np.zeros((0, width), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32)) for width in (2, 4)}


def log_loss(y: NDArray[np.int64], proba: NDArray[np.float32]) -> float:
    """Return the mean negative log-likelihood of y (n,) or (n, k) under proba (n, k), nats."""
    p = np.clip(proba.astype(np.float64), 1e-7, 1 - 1e-7)
    if y.ndim == 1:
        return float(-np.log(p[np.arange(len(y)), y]).mean())
    return float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(axis=1).mean())


def judge_model(model: Model, part: Part, step: int) -> Candidate:
    """Return how `model` does on the held-out part: accuracy, or the score of boxes or spans."""
    if isinstance(part.y, list):
        score, loss = candidate_of(part.y, find_regions(model, part.x), model.n_labels)
        return Candidate(step=step, score=score, loss=loss)
    proba = model.predict_proba(part.x)
    return Candidate(step=step, score=accuracy(part.y, proba), loss=log_loss(part.y, proba))


def held_out_metrics(model: Model, part: Part) -> dict[str, float]:
    """Return what a manifest says of a model: figures on the held-out part, rounded for people.

    A calibrated model is judged with each half at the temperature of the other half, as its own was fitted on all of the part.
    """
    if isinstance(part.y, list):
        return metrics_of(part.y, find_regions(model, part.x), model.n_labels)
    y = part.y
    temperature, proba = 1.0, inner(model).predict_proba(part.x)
    if isinstance(model, CalibratedModel):
        temperature, proba = model.calibration.temperature, cross_fitted(proba, y)
    figures: dict[str, Callable[[], float]] = {
        "accuracy": lambda: accuracy(y, proba),
        "macro_f1": lambda: macro_f1(y, proba),
        "log_loss": lambda: log_loss(y, proba),
        "calibration_error": lambda: expected_calibration_error(y, proba),
        "held_out": lambda: float(len(part.rows)),
        "temperature": lambda: temperature,
    }
    return {name: round(figure(), 6) for name, figure in figures.items()}


class Standing(msgspec.Struct, frozen=True):
    """How a version does on the held-out items, for the gate: `wrong` (n,) is 0 where a draft needs no correction, else 1, or for
    regions how many it needs. `score` is that of regions, None for classes."""

    wrong: NDArray[np.int64]
    score: float | None = None


def stand(
    model: Model, manifest: Manifest, part: Part, x: NDArray[Any], keep: NDArray[np.bool_], labels: tuple[str, ...]
) -> Standing:
    """Return how `model` does on the items of `part` for which `keep` holds, by its own features `x` of these.

    The others count as wrong. `labels` is the label set of `part`.
    """
    wrong = np.full(len(part.rows), MOST_WRONG, dtype=np.int64)
    if isinstance(part.y, list):
        found = [NOTHING[part.y[0].where.shape[1]]] * len(part.rows)
        answers = iter(regions_in_label_order(find_regions(model, x), manifest.labels, labels))
        found = [next(answers) if is_kept else nothing for is_kept, nothing in zip(keep, found, strict=True)]
        wrong[keep] = costs_of(part.y, found, manifest.metrics.get(DRAFT_CONFIDENCE, 0.0))[keep]
        return Standing(wrong, score_of(part.y, found, len(labels)))
    proba = in_label_order(model.predict_proba(x), manifest.labels, labels)
    wrong[keep] = ~correct(part.y[keep], proba)
    return Standing(wrong)


def stand_without(part: Part) -> Standing:
    """Return how a version does that cannot answer at all."""
    return Standing(np.full(len(part.rows), MOST_WRONG, dtype=np.int64), 0.0 if isinstance(part.y, list) else None)


def in_label_order(proba: NDArray[np.float32], labels: tuple[str, ...], wanted: tuple[str, ...]) -> NDArray[np.float32]:
    """Return the columns of `labels` in the order of `wanted`; a label that the model does not know has probability 0."""
    if labels == wanted:
        return proba
    out = np.zeros((len(proba), len(wanted)), dtype=np.float32)
    place = {label: i for i, label in enumerate(labels)}
    for i, label in enumerate(wanted):
        if label in place:
            out[:, i] = proba[:, place[label]]
    return out
