"""The answer to labels of a single class: a model that says the same of every item.

Owns the constant model. Must never be chosen by a user: `Algorithm.start` falls back to it, and `Algorithm.load` knows its file.
Its probabilities are counts with one added to each class (P.-S. Laplace's rule of succession), so it never claims certainty.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import IntegrityError
from learning.algorithms.base import Files, Model, OneStepTraining, is_soft, need

FILE = "constant.json"


class ConstantModel(Model):
    """Answers `proba` (n_labels,) for every row."""

    def __init__(self, proba: NDArray[np.float32]) -> None:
        self.proba, self.n_labels = proba, len(proba)

    def predict_proba(self, x: NDArray[Any]) -> NDArray[np.float32]:
        return np.tile(self.proba, (len(x), 1))

    def files(self) -> dict[str, bytes]:
        return {FILE: msgspec.json.encode([float(p) for p in self.proba])}


def is_constant(y: NDArray[Any]) -> bool:
    """Return whether checked labels y hold one class only (multilabel and probabilities: all rows the same)."""
    return bool((y == y[0]).all())


def start(y: NDArray[Any], n_labels: int) -> OneStepTraining:
    """Return the training of the constant model."""
    if is_soft(y):
        proba = (y.sum(axis=0, dtype=np.float64) + 1) / (len(y) + n_labels)
        loss = -(y[0] * np.log(proba)).sum()
    elif y.ndim == 2:
        proba = (y.sum(axis=0) + 1) / (len(y) + 2)
        loss = -np.log(np.where(y[0] == 1, proba, 1 - proba)).mean()
    else:
        proba = (np.bincount(y, minlength=n_labels) + 1) / (len(y) + n_labels)
        loss = -np.log(proba[y[0]])
    model = ConstantModel(proba.astype(np.float32))
    return OneStepTraining(lambda: (model, float(loss)), lambda files: load(need(files, FILE)))


def load(data: bytes) -> ConstantModel:
    """Return the model in `data`. Raises IntegrityError on anything else."""
    try:
        return ConstantModel(np.array(msgspec.json.decode(data, type=list[float]), dtype=np.float32))
    except msgspec.MsgspecError as exc:
        raise IntegrityError(f"{FILE} is malformed: {exc}") from exc


__all__ = ["FILE", "ConstantModel", "Files", "is_constant", "load", "start"]
