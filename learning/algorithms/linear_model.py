"""The model of every linear algorithm: one float32 matrix product and a softmax or sigmoid, in place.

Owns the arrays and their file. The scaling of the features is folded into the weights, so that rescoring a pool reads each feature
once. Must never import scikit-learn or torch. Called by logistic-regression and linear-head.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import IntegrityError
from learning.algorithms.base import Files, Model, check_width, is_soft, need
from learning.algorithms.tensors import pack, unpack
from learning.scaling import Scaling

FILE = "linear.safetensors"
UNSEEN = np.float32(-1e4)  # the bias of a class without a sample: probability 0, and safe to add and subtract


class LinearModel(Model):
    """`weights` (d, k) and `bias` (k,) on raw features; `mean` (d,) stands in for missing values."""

    def __init__(
        self, weights: NDArray[np.float32], bias: NDArray[np.float32], mean: NDArray[np.float32], is_multilabel: bool
    ) -> None:
        # in the order of the file: a product over columns-first weights rounds otherwise than that of the model read back
        self.weights, self.bias, self.mean, self.is_multilabel = np.ascontiguousarray(weights), bias, mean, is_multilabel
        self.n_labels = len(bias)

    def predict_proba(self, x: NDArray[Any]) -> NDArray[np.float32]:
        x = check_width(x, len(self.weights))
        with np.errstate(invalid="ignore", over="ignore"):  # infinite features are handled below
            logits = x @ self.weights
            is_whole = np.isfinite(logits.sum())
        if not is_whole:
            self._impute(x, logits)
        logits += self.bias
        return sigmoid(logits) if self.is_multilabel else softmax(logits)

    def _impute(self, x: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
        rows = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        part = np.asarray(x[rows])
        logits[rows] = np.where(np.isfinite(part), part, self.mean) @ self.weights

    def files(self) -> dict[str, bytes]:
        arrays = {"weights": self.weights, "bias": self.bias, "mean": self.mean}
        return {FILE: pack(arrays, {"kind": "sigmoid" if self.is_multilabel else "softmax"})}


def fold(weights: NDArray[Any], bias: NDArray[Any], scaling: Scaling, is_multilabel: bool) -> LinearModel:
    """Return the model on raw features of `weights` (d, k) and `bias` (k,) that were fitted on scaled ones."""
    raw = weights.astype(np.float64) * scaling.factor[:, None]
    shifted = bias - scaling.mean.astype(np.float64) @ raw
    return LinearModel(raw.astype(np.float32), shifted.astype(np.float32), scaling.mean, is_multilabel)


def load(files: Files) -> LinearModel:
    """Return the model in `files`. Raises IntegrityError when it is not one."""
    arrays, facts = unpack(need(files, FILE))
    try:
        model = LinearModel(arrays["weights"], arrays["bias"], arrays["mean"], facts["kind"] == "sigmoid")
    except KeyError as exc:
        raise IntegrityError(f"{FILE} lacks {exc}") from exc
    if model.weights.shape != (len(model.mean), len(model.bias)):
        raise IntegrityError(f"{FILE} holds weights of shape {model.weights.shape} for {len(model.bias)} labels")
    return model


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the softmax of each row of logits (n, k); works on the transpose, where numpy reduces three times as fast."""
    columns = np.ascontiguousarray(logits.T)
    columns -= columns.max(axis=0)
    np.exp(columns, out=columns)
    columns /= columns.sum(axis=0)
    np.copyto(logits, columns.T)
    return logits


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 / (1 + exp(-logits)), in place and without overflow."""
    np.clip(logits, -80, 80, out=logits)
    np.negative(logits, out=logits)
    np.exp(logits, out=logits)
    logits += 1
    np.reciprocal(logits, out=logits)
    return logits


def log_loss(proba: NDArray[np.float32], y: NDArray[Any]) -> float:
    """Return the mean negative log likelihood of checked labels y under proba (several labels: over labels too; soft: expected)."""
    if is_soft(y):
        return float(-(y * np.log(np.maximum(proba, 1e-12, dtype=np.float64))).sum(axis=1).mean())
    if y.ndim == 2:
        said = np.where(y == 1, proba, 1 - proba)
    else:
        said = proba[np.arange(len(y)), y]
    return float(-np.log(np.maximum(said, 1e-12, dtype=np.float64)).mean())
