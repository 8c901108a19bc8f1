"""The saved forms answer as the libraries they were trained with, and the linear model is exact and cheap."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax as reference_softmax
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from learning.algorithms import find_algorithm
from learning.algorithms import svm as svm_module
from learning.algorithms.linear_model import sigmoid, softmax
from learning.algorithms.svm import SvmParameters
from learning.scaling import fit_scaling

X, Y = load_digits(return_X_y=True)
X = X.astype(np.float32)


def test_logistic_regression_folded_on_raw_features_equals_scikit_learn_on_scaled_ones() -> None:
    for classes in (10, 2):
        rows = np.flatnonzero(classes > Y)[:200]
        scaling = fit_scaling(X[rows])
        solver = LogisticRegression(tol=1e-3, max_iter=200).fit(scaling.apply(X[rows]), Y[rows])
        training = find_algorithm("logistic-regression").start(X[rows], Y[rows], classes)
        training.advance()
        wanted = solver.predict_proba(scaling.apply(X[rows]))
        np.testing.assert_allclose(training.model().predict_proba(X[rows]), wanted, atol=2e-3)


def test_the_forest_in_onnx_answers_as_scikit_learns() -> None:
    training = find_algorithm("random-forest").start(X[:300], Y[:300], 10, parameters={"trees": 30}, seed=5)
    training.advance()
    forest = RandomForestClassifier(30, random_state=5).fit(X[:300], Y[:300])
    np.testing.assert_allclose(training.model().predict_proba(X[300:]), forest.predict_proba(X[300:]), atol=1e-5)


def test_the_pairwise_decisions_of_the_svm_equal_scikit_learns() -> None:
    for classes in (2, 3, 10):
        rows = np.flatnonzero(classes > Y)[:150]
        model = svm_module._fit(X[rows], Y[rows], 10, SvmParameters())
        z = fit_scaling(X[rows]).apply(X[rows])
        solver = SVC(C=3.0, gamma=model.gamma, decision_function_shape="ovo").fit(z, Y[rows])
        wanted = solver.decision_function(fit_scaling(X[rows]).apply(X))
        if classes == 2:  # scikit-learn turns the sign round for two classes
            wanted = -wanted[:, None]
        np.testing.assert_allclose(model.pairwise(X), wanted, atol=1e-4)
        said = model.arrays["classes"][model.decisions(X).argmax(axis=1)]
        assert (said == solver.predict(fit_scaling(X[rows]).apply(X))).mean() > 0.9  # votes and mean decisions differ a little


def test_boosting_of_the_trees_in_onnx_equals_the_sum_kept_while_training() -> None:
    training = find_algorithm("gradient-boosting").start(X[:120], Y[:120], 10, parameters={"rounds": 20})
    while training.step < training.steps:
        training.advance()
    kept = reference_softmax(training._sum, axis=1)  # type: ignore[attr-defined]
    np.testing.assert_allclose(training.model().predict_proba(X[:120]), kept, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.integers(1, 40), st.integers(0, 10**6))
def test_softmax_and_sigmoid_in_place_equal_the_textbook(n: int, k: int, seed: int) -> None:
    logits = (np.random.default_rng(seed).standard_normal((n, k)) * 30).astype(np.float32)
    np.testing.assert_allclose(softmax(logits.copy()), reference_softmax(logits.astype(np.float64), axis=1), atol=1e-5)
    wanted = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -80, 80)))
    np.testing.assert_allclose(sigmoid(logits.copy()), wanted, atol=1e-6)


def test_predicting_leaves_a_read_only_memory_map_alone(tmp_path) -> None:  # type: ignore[no-untyped-def]
    np.save(tmp_path / "shard.npy", X)
    shard = np.load(tmp_path / "shard.npy", mmap_mode="r")
    training = find_algorithm("logistic-regression").start(X[:100], Y[:100], 10)
    training.advance()
    assert np.array_equal(training.model().predict_proba(shard), training.model().predict_proba(X))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 6), st.integers(0, 10**6), st.booleans())
def test_scaling_centres_and_gives_unit_spread(n: int, d: int, seed: int, is_table: bool) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((n, d)) * (10.0 ** rng.integers(-3, 4, d) if is_table else 1.0) + 3).astype(np.float32)
    x[rng.random((n, d)) < 0.1] = np.nan
    z = fit_scaling(x).apply(x)
    assert np.isfinite(z).all()
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-3)
    assert np.sqrt((z**2).mean(axis=0)).max() < 20


def test_a_constant_column_says_nothing_and_uneven_columns_are_scaled_one_by_one() -> None:
    x = np.stack([np.full(50, 0.1), np.linspace(0, 1, 50), np.linspace(0, 1e4, 50)], axis=1).astype(np.float32)
    scaling = fit_scaling(x)
    assert scaling.factor[0] == 0
    np.testing.assert_allclose(scaling.apply(x)[:, 1:].std(axis=0), 1, rtol=1e-3)
