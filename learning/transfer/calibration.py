"""Probabilities that mean what they say: one temperature a model, fitted on labels that the model has not seen.

C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017. Owns the fit, the wrapper that
applies it and its file. Must never change an answer: the likeliest class stays the likeliest, and with several labels an item each
label stays on its side of 0.5, so a gate or selector that counts right answers cannot tell a calibrated model from its bare one.
Called by the train role before publishing and by `Algorithm.load`, so that training, inference and exports agree.

Temperature 1 changes nothing, above 1 says less, below 1 says more. With few labels a temperature is mostly chance: below
`LEAST_LABELS` there is none, and above, ln(temperature) carries a normal prior of standard deviation 0.3 around 0.

Bad input                                   Answer
fewer than LEAST_LABELS labels              temperature 1, the reason says how many there are
a constant model, a model of regions        temperature 1, the reason says so
labels all of one class, all answers right  the prior holds the temperature: a finite one at most a few times below 1
probabilities NaN, infinite, outside 0..1   InvalidInputError naming the row
labels that do not fit the probabilities    InvalidInputError naming both shapes, or the class number
a file that is no temperature               IntegrityError
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from labelloop.errors import IntegrityError, InvalidInputError
from learning.algorithms.base import Model
from learning.algorithms.constant import ConstantModel

FILE = "calibration.json"
LEAST_LABELS = 20
LOWEST, HIGHEST = 0.1, 10.0
_PRIOR_SD = 0.3  # of ln(temperature); measured over 0.15 to 1 on digits with five algorithms: least log loss and least harm
FARTHEST_LOGIT = 17.0  # float32 keeps no probability closer to 1
_HALF = np.float32(0.5)


class Calibration(msgspec.Struct, frozen=True):
    """`temperature` divides the logits; `n_labels` it was fitted on; `reason` one sentence for log and export."""

    temperature: float
    is_multilabel: bool
    n_labels: int
    reason: str


class CalibratedModel(Model):
    """`inner` with the probabilities of `calibration`. Thread-safe for reading."""

    def __init__(self, inner: Model, calibration: Calibration) -> None:
        self.inner, self.calibration, self.n_labels = inner, calibration, inner.n_labels

    def predict_proba(self, x: NDArray[Any]) -> NDArray[np.float32]:
        return temper(self.inner.predict_proba(x), self.calibration.temperature, self.calibration.is_multilabel)

    def files(self) -> dict[str, bytes]:
        return {**self.inner.files(), FILE: msgspec.json.encode(self.calibration)}


def calibrate(model: Model, x: NDArray[Any], y: ArrayLike) -> tuple[Model, str]:
    """Return `model` calibrated on items x with labels y that it was not trained on, and the reason.

    y: (n,) class numbers, (n, k) of 0/1 for several labels an item, or (n, k) floats whose rows sum to 1. The model itself
    comes back, without a wrapper, where `why_not` speaks. Raises InvalidInputError.
    """
    model = inner(model)
    reason = why_not(model, len(x))
    if reason is not None:
        return model, reason
    calibration = fit(model.predict_proba(x), y)
    return CalibratedModel(model, calibration), calibration.reason


def why_not(model: Model, n: int) -> str | None:
    """Return why `model` gets no temperature from `n` labels, None = it gets one."""
    from learning.regions import RegionModel

    if isinstance(model, ConstantModel):
        return "not calibrated: a constant model's probabilities are counts"
    if isinstance(model, RegionModel):
        return "not calibrated: confidences of regions are no probabilities of an item's class"
    if n < LEAST_LABELS:
        return f"not calibrated: {n} held-out labels, a temperature needs {LEAST_LABELS}"
    return None


def fit(proba: ArrayLike, y: ArrayLike) -> Calibration:
    """Return the temperature with the least log loss of y under `proba`, penalised by the prior.

    Raises InvalidInputError, also for fewer than LEAST_LABELS labels.
    """
    p, truth, is_multilabel = _checked(proba, y)
    if len(p) < LEAST_LABELS:
        raise InvalidInputError(f"{len(p)} labels carry no temperature: give at least {LEAST_LABELS}")
    temperature = _least(p, truth, is_multilabel)
    reason = f"temperature {temperature:.3g} on {len(p)} held-out labels"
    return Calibration(temperature, is_multilabel, len(p), reason)


def cross_fitted(proba: ArrayLike, y: ArrayLike) -> NDArray[np.float32]:
    """Return `proba` (n, k) with each half of the items at the temperature that the other half gives: what to judge calibration by.

    A temperature judged on the labels it was fitted on looks better than it is. Halves are the even and the odd rows. Raises
    InvalidInputError.
    """
    p, truth, is_multilabel = _checked(proba, y)
    out = np.asarray(proba, dtype=np.float32).copy()
    if len(p) < LEAST_LABELS:
        return out
    for half, other in ((0, 1), (1, 0)):
        out[half::2] = temper(out[half::2], _least(p[other::2], truth[other::2], is_multilabel), is_multilabel)
    return out


def temper(proba: NDArray[np.float32], temperature: float, is_multilabel: bool) -> NDArray[np.float32]:
    """Return `proba` (n, k) with its logits divided by `temperature`, float32; every answer stays what it was."""
    if temperature == 1.0 or not len(proba):
        return proba
    if is_multilabel:
        z = _logits(proba) / temperature
        out = (1 / (1 + np.exp(-z))).astype(np.float32)
        below = np.nextafter(_HALF, np.float32(0))
        return np.where(proba >= _HALF, np.maximum(out, _HALF), np.minimum(out, below))
    out = _softened(_logs(proba), temperature).astype(np.float32)
    rows, top = np.arange(len(out)), proba.argmax(axis=1)
    moved = rows[out.argmax(axis=1) != top]  # a tie that rounding made
    out[moved, top[moved]] = np.nextafter(out[moved].max(axis=1), np.float32(2))
    return out


def load(model: Model, folder: Path) -> Model:
    """Return `model` with the calibration that lies beside its files in `folder`, itself where none does. Raises IntegrityError."""
    path = folder / FILE
    if not path.is_file():
        return model
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Calibration)
    except msgspec.MsgspecError as exc:
        raise IntegrityError(f"{path} is malformed: {exc}") from exc
    if not LOWEST <= found.temperature <= HIGHEST:
        raise IntegrityError(f"{path} holds temperature {found.temperature}, allowed is {LOWEST} to {HIGHEST}")
    return CalibratedModel(model, found)


def inner(model: Model) -> Model:
    """Return the model without its calibration: what a training can start from."""
    return model.inner if isinstance(model, CalibratedModel) else model


# ---------------------------------------------------------------- the fit


def _least(p: NDArray[np.float32], truth: NDArray[Any], is_multilabel: bool) -> float:
    from scipy.optimize import minimize_scalar

    values = _logits(p) if is_multilabel else _logs(p)

    def cost(log_t: float) -> float:
        t = float(np.exp(log_t))
        return _loss(values, truth, t, is_multilabel) + 0.5 * (log_t / _PRIOR_SD) ** 2

    found = minimize_scalar(cost, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def _loss(values: NDArray[np.float64], truth: NDArray[Any], temperature: float, is_multilabel: bool) -> float:
    """Return the summed negative log likelihood, nats; of several labels an item the mean: they are not independent."""
    if is_multilabel:
        z = values / temperature
        return float((np.logaddexp(0, z) - truth * z).mean(axis=1).sum())
    said = np.log(np.maximum(_softened(values, temperature), 1e-12))
    return float(-(truth * said).sum()) if truth.ndim == 2 else float(-said[np.arange(len(truth)), truth].sum())


def _softened(logs: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    z = (logs - logs.max(axis=1, keepdims=True)) / temperature
    np.exp(z, out=z)
    z /= z.sum(axis=1, keepdims=True)
    return z


def _logs(p: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return ln p; a probability of 0, a class never seen, stays 0 at every temperature."""
    with np.errstate(divide="ignore"):
        return np.log(p.astype(np.float64))


def _logits(p: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = p.astype(np.float64)
    with np.errstate(divide="ignore"):
        return np.clip(np.log(wide) - np.log1p(-wide), -FARTHEST_LOGIT, FARTHEST_LOGIT)


def _checked(proba: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float32], NDArray[Any], bool]:
    p, truth = np.asarray(proba, dtype=np.float32), np.asarray(y)
    if p.ndim != 2 or truth.ndim not in (1, 2) or len(truth) != len(p) or (truth.ndim == 2 and truth.shape != p.shape):
        raise InvalidInputError(f"labels of shape {truth.shape} do not fit probabilities of shape {p.shape}: one row an item")
    with np.errstate(invalid="ignore"):
        wrong = ~((p >= 0) & (p <= 1)).all(axis=1)
    if wrong.any():
        raise InvalidInputError(f"row {int(wrong.argmax())} of the probabilities holds values that are none: give them in 0..1")
    if truth.ndim == 1:
        if len(truth) and (truth.dtype.kind not in "iu" or truth.min() < 0 or truth.max() >= p.shape[1]):
            raise InvalidInputError(f"labels must be class numbers from 0 to {p.shape[1] - 1}, got {truth.min()} to {truth.max()}")
        return p, truth, False
    return p, truth, truth.dtype.kind != "f"
