"""svm: support vectors with an RBF kernel and calibrated probabilities; good on tables with curved borders.

C. Cortes, V. Vapnik, "Support-Vector Networks", Machine Learning, 1995; one machine a pair of classes, solved by scikit-learn.
Probabilities: the softmax of the class decisions at one temperature fitted on cross-validated decisions (C. Guo, G. Pleiss, Y. Sun,
K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017), which a handful of labels can carry.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import IntegrityError
from learning.algorithms.base import Algorithm, Files, Model, OneStepTraining, Parameters, Training, check_width, is_soft, need
from learning.algorithms.linear_model import log_loss, softmax
from learning.algorithms.soft_labels import weighted_samples
from learning.algorithms.tensors import pack, unpack
from learning.scaling import Scaling, fit_scaling
from learning.threads import few_threads

FILE = "svm.safetensors"
_BLOCK_ROWS = 2048
_TEMPERATURES = np.geomspace(0.3, 30.0, 41)
_FALLBACK = 3.0  # inverse temperature when no class has two samples to hold one out of
_UNSEEN = np.float32(-1e4)
_LEAST_SHARE = 0.02  # a probability below it is no sample of its own: the solver's time grows with the square of the samples


class SvmParameters(Parameters, frozen=True, kw_only=True):
    """`gamma` 0 = 1 / (d * variance)."""

    c: Annotated[float, msgspec.Meta(gt=0, description="Cost of a training error.")] = 3.0
    gamma: Annotated[float, msgspec.Meta(ge=0, description="Width of the kernel; 0 = from the data's variance.")] = 0.0


class SvmModel(Model):
    """`vectors` (s, d) scaled, `weights` (s, pairs), `bias` (pairs,), `pairs` (pairs, 2) of columns among `classes` (c,)."""

    def __init__(self, arrays: dict[str, NDArray[Any]], n_labels: int, gamma: float, temperature: float) -> None:
        self.arrays, self.n_labels, self.gamma, self.temperature = arrays, n_labels, gamma, temperature
        self._scaling = Scaling(arrays["mean"], arrays["factor"])
        self._norms = np.einsum("ij,ij->i", arrays["vectors"], arrays["vectors"])

    def predict_proba(self, x: NDArray[Any]) -> NDArray[np.float32]:
        x = check_width(x, len(self._scaling.mean))
        logits = np.full((len(x), self.n_labels), _UNSEEN, dtype=np.float32)
        for begin in range(0, len(x), _BLOCK_ROWS):
            decisions = self.decisions(x[begin : begin + _BLOCK_ROWS])
            logits[begin : begin + _BLOCK_ROWS, self.arrays["classes"]] = decisions * np.float32(self.temperature)
        return softmax(logits)

    def decisions(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, c): for each seen class its mean pairwise decision, clipped to one margin's width, against all others."""
        pairs = self.arrays["pairs"]
        pairwise = np.clip(self.pairwise(x), -2, 2)
        n_classes = len(self.arrays["classes"])
        side = np.zeros((len(pairs), n_classes), dtype=np.float32)
        side[np.arange(len(pairs)), pairs[:, 0]], side[np.arange(len(pairs)), pairs[:, 1]] = 1, -1
        return pairwise @ side / np.float32(n_classes - 1)

    def pairwise(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the decision of each machine: (n, pairs), above 0 for the first class of the pair."""
        vectors = self.arrays["vectors"]
        z = self._scaling.apply(x)
        squares = np.maximum(np.einsum("ij,ij->i", z, z)[:, None] - 2 * (z @ vectors.T) + self._norms, 0)
        return np.exp(-np.float32(self.gamma) * squares) @ self.arrays["weights"] + self.arrays["bias"]

    def files(self) -> dict[str, bytes]:
        return {FILE: pack(self.arrays, {"n_labels": self.n_labels, "gamma": self.gamma, "temperature": self.temperature})}


class Svm(Algorithm):
    """See the module."""

    name = "svm"
    title = "Support vector machine (RBF)"
    framework = "sklearn"
    input = "features"
    has_soft_labels = True
    parameters = SvmParameters
    file_names = (FILE,)

    def preload(self) -> None:
        import sklearn.svm  # noqa: F401

    def _start(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        n_labels: int,
        is_multilabel: bool,
        settings: SvmParameters,
        epoch: int,
        seed: int,
        start_from: Model | None,
    ) -> Training:
        def fit() -> tuple[Model, float]:
            with few_threads(len(x) * x.size / 4):
                model = _fit(x, y, n_labels, settings)
                model.temperature = _calibrate(x, y, n_labels, settings, seed)
                return model, log_loss(model.predict_proba(x), y)

        return OneStepTraining(fit, _load)

    def _load(self, files: Files) -> Model:
        return _load(files)


def _load(files: Files) -> SvmModel:
    arrays, facts = unpack(need(files, FILE))
    try:
        return SvmModel(arrays, facts["n_labels"], facts["gamma"], facts["temperature"])
    except KeyError as exc:
        raise IntegrityError(f"{FILE} lacks {exc}") from exc


def _fit(x: NDArray[np.float32], y: NDArray[Any], n_labels: int, settings: SvmParameters) -> SvmModel:
    from sklearn.svm import SVC

    scaling = fit_scaling(x)
    z = scaling.apply(x)
    gamma = settings.gamma or 1.0 / max(z.shape[1] * float(z.var()), 1e-12)
    weights: NDArray[np.float64] | None = None
    if is_soft(y):
        rows, y, weights = weighted_samples(y, least_share=_LEAST_SHARE)
        z = z[rows]
    solver = SVC(C=settings.c, gamma=gamma, decision_function_shape="ovo").fit(z, y, weights)
    dual, pairs = _pairwise(solver.dual_coef_, solver.n_support_)
    if len(solver.classes_) == 2:
        dual, bias = -dual, -solver.intercept_  # the solver counts two classes the other way round
    else:
        bias = solver.intercept_
    arrays = {
        "vectors": solver.support_vectors_.astype(np.float32),
        "weights": dual.astype(np.float32),
        "bias": np.asarray(bias, dtype=np.float32),
        "pairs": pairs,
        "classes": solver.classes_.astype(np.int64),
        "mean": scaling.mean,
        "factor": scaling.factor,
    }
    return SvmModel(arrays, n_labels, gamma, _FALLBACK)


def _pairwise(dual: NDArray[np.float64], n_support: NDArray[np.int32]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return (weights (s, pairs), pairs (pairs, 2)) from libsvm's packed dual coefficients (c - 1, s)."""
    ends = np.cumsum(n_support)
    begins = ends - n_support
    pairs = [(i, j) for i in range(len(n_support)) for j in range(i + 1, len(n_support))]
    weights = np.zeros((dual.shape[1], len(pairs)))
    for column, (i, j) in enumerate(pairs):
        weights[begins[i] : ends[i], column] = dual[j - 1, begins[i] : ends[i]]
        weights[begins[j] : ends[j], column] = dual[i, begins[j] : ends[j]]
    return weights, np.array(pairs, dtype=np.int64)


def _calibrate(x: NDArray[np.float32], y: NDArray[Any], n_labels: int, settings: SvmParameters, seed: int) -> float:
    """Return the inverse temperature with the least log loss on decisions for samples the machine has not seen."""
    order = np.random.default_rng(seed).permutation(len(y))
    rank = np.empty(len(y), dtype=np.int64)  # of each sample within its class, so that the folds are stratified
    likeliest = y.argmax(axis=1) if is_soft(y) else y
    for label in np.unique(likeliest):
        members = order[likeliest[order] == label]
        rank[members] = np.arange(len(members))
    n_folds = int(min(5, np.bincount(likeliest).max()))
    held, truth = [], []
    for fold in range(n_folds):
        test = rank % n_folds == fold
        seen = np.unique(likeliest[~test])
        test &= np.isin(likeliest, seen)
        if len(seen) < 2 or not test.any():
            continue
        part = _fit(x[~test], y[~test], n_labels, settings)
        logits = np.full((int(test.sum()), n_labels), _UNSEEN, dtype=np.float32)
        logits[:, part.arrays["classes"]] = part.decisions(x[test])
        held.append(logits)
        truth.append(y[test])
    if not held:
        return _FALLBACK
    logits, labels = np.concatenate(held), np.concatenate(truth)
    losses = [log_loss(softmax(logits * np.float32(t)), labels) for t in _TEMPERATURES]
    return float(_TEMPERATURES[int(np.argmin(losses))])


ALGORITHM = Svm()
