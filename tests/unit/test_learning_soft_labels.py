"""Trainings on probabilities of labels: the same as on certain ones where they are, and between them where they are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.algorithms import Model, find_algorithm
from learning.algorithms.linear_model import LinearModel
from learning.weak import fit

SOFT = ("logistic-regression", "linear-head", "small-cnn", "gradient-boosting", "random-forest", "svm")
MARGINS = {"random-forest": 0.01, "svm": 0.01}  # by how much uncertain labels make it less sure, at least
EPOCHS = {"linear-head": 60, "small-cnn": 40}
QUICK: dict[str, dict[str, Any]] = {
    "small-cnn": {"width": 8},
    "gradient-boosting": {"rounds": 40},
    "random-forest": {"trees": 40, "min_leaf": 3},
}


def data(n: int = 120, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Three blobs in 64 columns, which are also 8 x 8 pixels."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    centres = np.random.default_rng(1).random((3, 64)) * 2
    return (centres[y] + rng.normal(0, 0.4, (n, 64))).astype(np.float32), y


def train(name: str, x: NDArray[Any], y: NDArray[Any], k: int = 3, **more: Any) -> Model:
    more.setdefault("parameters", QUICK.get(name, {}))
    training = find_algorithm(name).start(x, y, k, epoch=EPOCHS.get(name, 0), **more)
    while training.step < training.steps:
        training.advance()
    return training.model()


@pytest.mark.parametrize("name", SOFT)
def test_certain_probabilities_train_the_very_model_of_their_labels(name: str) -> None:
    x, y = data()
    hard, soft = train(name, x, y), train(name, x, np.eye(3, dtype=np.float32)[y])
    np.testing.assert_array_equal(hard.predict_proba(x), soft.predict_proba(x))


@pytest.mark.parametrize("name", SOFT)
def test_a_model_learns_the_classes_from_probabilities_and_how_sure_they_are(name: str) -> None:
    x, y = data()
    soft = np.full((len(y), 3), 0.1, dtype=np.float32)
    soft[np.arange(len(y)), y] = 0.8
    other_x, other_y = data(200, seed=5)
    proba = train(name, x, soft).predict_proba(other_x)
    assert (proba.argmax(axis=1) == other_y).mean() > 0.9
    sure = train(name, x, y).predict_proba(other_x)
    assert proba.max(axis=1).mean() < sure.max(axis=1).mean() - MARGINS.get(name, 0.03)


@pytest.mark.parametrize("name", SOFT[:2])
def test_identical_items_get_the_mean_of_their_probabilities(name: str) -> None:
    x = np.repeat(np.eye(2, 64, dtype=np.float32) * 4, 60, axis=0)
    y = np.repeat(np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], dtype=np.float32), 60, axis=0)
    weak_penalty = {"parameters": {"c": 1e4}} if name == "logistic-regression" else {}
    weak_penalty = {"parameters": {"l2": 0.0}} if name == "linear-head" else weak_penalty
    found = train(name, x, y, **weak_penalty).predict_proba(x)
    np.testing.assert_allclose(found, y, atol=0.06)


def test_the_weighted_samples_of_a_regression_are_its_expected_loss() -> None:
    x, _ = data(60)
    proba = np.random.default_rng(3).dirichlet([1.0, 1, 1], 60)
    model = train("logistic-regression", x, proba)
    assert isinstance(model, LinearModel)
    copies = 400  # a label drawn that often for each item is the same loss, but for chance
    draws = np.stack([np.random.default_rng(row).multinomial(copies, p / p.sum()) for row, p in enumerate(proba)])
    rows, labels = np.repeat(np.arange(60), copies), np.concatenate([np.repeat(np.arange(3), count) for count in draws])
    settings = {"parameters": {"c": 1 / copies}}
    drawn = train("logistic-regression", x[rows], labels, **settings)
    np.testing.assert_allclose(model.predict_proba(x), drawn.predict_proba(x), atol=0.06)


def test_balancing_weighs_the_rare_class_of_soft_labels_up() -> None:
    x, y = data(200)
    keep = (y != 2) | (np.arange(200) < 40)
    soft = np.eye(3)[y[keep]] * 0.9 + 0.1 / 3
    plain = train("logistic-regression", x[keep] * 0.1, soft)
    balanced = train("logistic-regression", x[keep] * 0.1, soft, parameters={"class_weight": "balanced"})
    assert balanced.predict_proba(x * 0.1)[:, 2].mean() > plain.predict_proba(x * 0.1)[:, 2].mean()


@pytest.mark.parametrize("name", SOFT)
def test_a_class_without_any_probability_stays_without(name: str) -> None:
    x, y = data()
    soft = np.where(np.eye(2)[y % 2] == 1, 0.8, 0.2)
    found = train(name, x, np.insert(soft, 2, 0.0, axis=1)).predict_proba(x)
    assert found[:, 2].max() < 0.05


@pytest.mark.parametrize("name", SOFT)
def test_rows_that_are_all_alike_give_the_documented_constant_model(name: str) -> None:
    x, _ = data(20)
    found = train(name, x, np.tile(np.float32([0.6, 0.3, 0.1]), (20, 1))).predict_proba(x)
    np.testing.assert_allclose(found, np.tile([13 / 23, 7 / 23, 3 / 23], (20, 1)), atol=1e-6)


X = data(3)[0]
BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: train("linear-head", X, np.full((3, 3), 0.3)), r"row 0 of y is no distribution \(sum 0.9\)"),
    (lambda: train("linear-head", X, np.array([[1, 0, 0], [0, np.nan, 1], [0, 0, 1.0]])), "row 1 of y is no distribution"),
    (lambda: train("linear-head", X, np.array([[1, 0, 0], [0, 1, 0], [0, -0.5, 1.5]])), "row 2 of y is no distribution"),
    (lambda: train("linear-head", X, np.zeros((3, 3))), "leave items without a label out"),
    (lambda: train("linear-head", X, np.full((3, 2), 0.5)), r"shape \(3, 2\), expected \(3, 3\)"),
    (lambda: train("linear-head", X[:0], np.full((0, 3), 0.5)), "at least one row"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_probabilities_that_are_none_are_refused_by_name(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call()


def test_an_algorithm_that_knows_certain_labels_only_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm = find_algorithm("svm")
    monkeypatch.setattr(type(algorithm), "has_soft_labels", False)
    with pytest.raises(InvalidInputError, match=r"svm cannot learn from probabilities: give y\.argmax"):
        algorithm.start(X, np.full((3, 2), 0.5), 2)


@pytest.mark.parametrize("name", [name for name in SOFT if name != "small-cnn"])
def test_how_likely_a_label_is_decides_between_items_that_contradict(name: str) -> None:
    """The same items twice, once for each of two labels: the one that is surer there wins, and the other way round."""
    x = np.concatenate([data(60)[0]] * 2)
    x += np.random.default_rng(7).normal(0, 0.01, x.shape).astype(np.float32)
    for first, second in ((0.95, 0.6), (0.6, 0.95)):
        shares = np.repeat([first, 1 - second], 60).astype(np.float32)
        soft = np.stack([shares, 1 - shares, np.zeros(120, np.float32)], axis=1)
        proba = train(name, x, soft).predict_proba(data(60)[0]).mean(axis=0)
        assert bool(proba[0] > proba[1]) is (first > second)


def test_labels_by_rules_train_a_model_that_beats_the_rules() -> None:
    x, y = data(600)
    rng = np.random.default_rng(2)
    votes = np.full((600, 4), -1, dtype=np.int16)
    for rule, right in enumerate((0.6, 0.7, 0.5, 0.6)):
        said = np.where(rng.random(600) < right, y, rng.integers(0, 3, 600))
        votes[:, rule] = np.where(rng.random(600) < 0.4, said, -1)
    found = fit(votes, 3).predict(votes)
    part = found.is_covered
    model = train("logistic-regression", x[part], found.proba[part])
    by_rules = (found.proba.argmax(axis=1) == y).mean()
    assert (model.predict_proba(x).argmax(axis=1) == y).mean() > by_rules + 0.1
