"""The other libraries' query strategies as a benchmark calls them: each function returns calls by library, none where it is
missing.

Owns how a rival is fed the same given probabilities and features as our own code. Must never be imported by anything but a
benchmark. Called by `scripts.bench_learning_query`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning.query.alipy_adapter import shimmed

Matrix = NDArray[np.float32]
Calls = dict[str, Callable[[], Any]]
LIBRARIES = {"scikit-activeml": ("skactiveml", "rivals"), "alipy": ("alipy", "alipy")}
_ALIPY_MEASURES = {"entropy": "entropy", "margin": "margin", "least_confidence": "least_confident"}
_SKACTIVEML_MEASURES = {"entropy": "entropy", "margin": "margin_sampling", "least_confidence": "least_confident"}


def missing() -> list[str]:
    """Return one sentence for each library that is not there to be measured."""
    return [
        f"{name} is not installed: add the extra {extra!r} to measure it"
        for name, (package, extra) in LIBRARIES.items()
        if not _has(package)
    ]


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def uncertainty(measure: str, proba: Matrix, n: int) -> Calls:
    """Return calls that ask for the n most uncertain rows of proba."""
    rows = np.arange(len(proba))
    calls: Calls = {}
    if _has("skactiveml"):
        x, y, clf = _skactiveml_pool(np.zeros((len(proba), 1), np.float32), proba)
        strategy = _pool().UncertaintySampling(method=_SKACTIVEML_MEASURES[measure], random_state=0)
        calls["scikit-activeml"] = lambda: strategy.query(x, y, clf, fit_clf=False, batch_size=n)
    if _has("alipy"):
        given = proba.copy()  # ALiPy writes into it

        def alipy_uncertainty() -> Any:
            with shimmed(0) as alipy:
                asked = alipy.query_strategy.QueryInstanceUncertainty(measure=_ALIPY_MEASURES[measure])
                return asked.select_by_prediction_mat(rows, given, batch_size=n)

        calls["alipy"] = _warm(alipy_uncertainty)
    return calls


def core_set(x: Matrix, near: Matrix, n: int) -> Calls:
    """Return calls for a greedy k-center batch far from `near`."""
    both = np.concatenate([near, x])
    known, left = list(range(len(near))), list(range(len(near), len(both)))
    calls: Calls = {}
    if _has("skactiveml"):
        y = np.where(np.arange(len(both)) < len(near), 0.0, np.nan)
        calls["scikit-activeml"] = lambda: _pool().CoreSet(random_state=0).query(both, y, batch_size=n)
    if _has("alipy"):
        labels = np.zeros(len(both), dtype=np.int64)

        def alipy_core_set() -> Any:
            with shimmed(0) as alipy:
                asked = alipy.query_strategy.QueryInstanceCoresetGreedy(both, labels, np.arange(len(both)))
                return asked.select(known, left, batch_size=n)

        calls["alipy"] = _warm(alipy_core_set)
    return calls


def badge(x: Matrix, proba: Matrix, n: int) -> Calls:
    """Return calls for a BADGE batch."""
    if not _has("skactiveml"):
        return {}
    both, y, clf = _skactiveml_pool(x, proba)
    return {"scikit-activeml": lambda: _pool().Badge(random_state=0).query(both, y, clf, fit_clf=False, batch_size=n)}


def density_weighted(x: Matrix, proba: Matrix, n: int) -> Calls:
    """Return calls for information density; ALiPy's builds all pairs."""
    if not _has("alipy"):
        return {}
    labels, rows = np.arange(len(x)) % 2, list(range(10, len(x)))

    def alipy_density() -> Any:
        with shimmed(0) as alipy:
            asked = alipy.query_strategy.QueryInstanceDensityWeighted(x, labels)
            return asked.select(list(range(10)), rows, batch_size=n, proba_prediction=proba[10:].copy())

    return {"alipy": _warm(alipy_density)}


def typiclust(x: Matrix, near: Matrix, n: int) -> Calls:
    """Return calls for TypiClust."""
    if not _has("skactiveml"):
        return {}
    both = np.concatenate([near, x])
    y = np.where(np.arange(len(both)) < len(near), 0.0, np.nan)
    return {"scikit-activeml": lambda: _pool().TypiClust(random_state=0).query(both, y, batch_size=n)}


def committee(name: str, members: Matrix, n: int) -> Calls:
    """Return calls for the disagreement over given predictions of a committee (m, n, k)."""
    votes = members.argmax(axis=2)
    calls: Calls = {}
    if _has("skactiveml"):
        pool, classes = _pool(), list(range(members.shape[2]))
        if name == "committee_kl":
            calls["scikit-activeml"] = lambda: np.argsort(pool.average_kl_divergence(members))[-n:]
        else:
            calls["scikit-activeml"] = lambda: np.argsort(pool.vote_entropy(votes.T, classes))[-n:]
    if _has("alipy"):

        def alipy_committee() -> Any:
            with shimmed(0) as alipy:
                kind = "KL_divergence" if name == "committee_kl" else "vote_entropy"
                asked = alipy.query_strategy.QueryInstanceQBC(disagreement=kind)
                given = list(members) if name == "committee_kl" else list(votes)
                return asked.select_by_prediction_mat(np.arange(members.shape[1]), given, batch_size=n)

        calls["alipy"] = _warm(alipy_committee)
    return calls


def _warm(call: Callable[[], Any]) -> Callable[[], Any]:
    """Return the call after ALiPy has been imported, so that the import is not measured."""
    with shimmed(0):
        return call


def _pool() -> Any:
    return importlib.import_module("skactiveml.pool")


def _skactiveml_pool(x: Matrix, proba: Matrix) -> tuple[Matrix, NDArray[np.float64], Any]:
    """Return (x with one labelled row first, labels with NaN, a fitted classifier that answers `proba` for the open rows)."""
    base = importlib.import_module("skactiveml.base").SkactivemlClassifier

    class Given(base):  # type: ignore[misc, valid-type]
        def fit(self, x: Any, y: Any, sample_weight: Any = None) -> Any:
            return self

        def predict_proba(self, x: Any) -> Any:
            return proba[: len(x)]

        def predict(self, x: Any) -> Any:
            return self.predict_proba(x).argmax(axis=1)

    classes = list(range(proba.shape[1]))
    clf = Given(classes=classes, missing_label=np.nan, random_state=0)
    clf.classes_, clf.n_features_in_ = np.array(classes), x.shape[1]
    y = np.full(len(x) + 1, np.nan)
    y[0] = 0
    return np.concatenate([x[:1], x]), y, clf
