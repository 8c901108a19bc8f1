"""How a model does on the held-out part of a run.

Owns the figures of manifests and candidates. Must never train. Called by the fitting and the attempt.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from learning.algorithms import Model
from learning.metrics import accuracy, expected_calibration_error, macro_f1
from roles.train.samples import Part
from roles.train.selector import Candidate


def log_loss(y: NDArray[np.int64], proba: NDArray[np.float32]) -> float:
    """Return the mean negative log-likelihood of y (n,) or (n, k) under proba (n, k), nats."""
    p = np.clip(proba.astype(np.float64), 1e-7, 1 - 1e-7)
    if y.ndim == 1:
        return float(-np.log(p[np.arange(len(y)), y]).mean())
    return float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(axis=1).mean())


def judge_model(model: Model, part: Part, step: int) -> Candidate:
    """Return how `model` does on the held-out part."""
    proba = model.predict_proba(part.x)
    return Candidate(step=step, score=accuracy(part.y, proba), loss=log_loss(part.y, proba))


def held_out_metrics(model: Model, part: Part) -> dict[str, float]:
    """Return what a manifest says of a model: figures on the held-out part, rounded for people."""
    proba = model.predict_proba(part.x)
    figures: dict[str, Callable[[], float]] = {
        "accuracy": lambda: accuracy(part.y, proba),
        "macro_f1": lambda: macro_f1(part.y, proba),
        "log_loss": lambda: log_loss(part.y, proba),
        "calibration_error": lambda: expected_calibration_error(part.y, proba),
        "held_out": lambda: float(len(part.rows)),
    }
    return {name: round(figure(), 6) for name, figure in figures.items()}


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
