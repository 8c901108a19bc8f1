"""Calibrated probabilities: better ones on labels not seen, the same answers, the same after loading, and bad input by table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from labelloop.errors import IntegrityError, InvalidInputError
from learning.algorithms import Model, find_algorithm
from learning.algorithms.constant import ConstantModel
from learning.metrics import decide, expected_calibration_error
from learning.regions import RegionModel, Regions
from learning.transfer.calibration import (
    FILE,
    LEAST_LABELS,
    CalibratedModel,
    Calibration,
    calibrate,
    cross_fitted,
    fit,
    temper,
    why_not,
)

Proba = NDArray[np.float32]


def answers(n: int, temperature: float, seed: int = 0) -> tuple[Proba, NDArray[np.int64]]:
    """Return probabilities (n, 5) whose logits are `temperature` times too large, and labels drawn from the true ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 5)) * 2
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = (rng.random((n, 1)) > true.cumsum(axis=1)).sum(axis=1).clip(0, 4)
    said = np.exp(logits * temperature)
    return (said / said.sum(axis=1, keepdims=True)).astype(np.float32), y.astype(np.int64)


def several(n: int, temperature: float, seed: int = 0) -> tuple[Proba, NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 3)) * 2
    y = (rng.random((n, 3)) < 1 / (1 + np.exp(-logits))).astype(np.uint8)
    return (1 / (1 + np.exp(-logits * temperature))).astype(np.float32), y


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_it_finds_the_factor_by_which_a_model_exaggerates(true: float) -> None:
    for make in (answers, several):
        found = fit(*make(3000, true))  # type: ignore[operator]
        assert found.temperature == pytest.approx(true, rel=0.1)
        assert found.n_labels == 3000
        assert "held-out" in found.reason


def test_soft_labels_and_the_classes_they_are_certain_of_give_one_temperature() -> None:
    proba, y = answers(400, 3.0)
    assert fit(proba, np.eye(5)[y]).temperature == pytest.approx(fit(proba, y).temperature, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 0.6, 1.7, 10.0])
def test_no_answer_ever_changes_not_even_where_rounding_makes_ties(temperature: float) -> None:
    rng = np.random.default_rng(3)
    close = np.float32(0.5) + rng.integers(-3, 4, 4000).astype(np.float32) * np.spacing(np.float32(0.25))
    extreme = np.array([0, 1e-38, 1 - 6e-8, 1], dtype=np.float32)
    labels = np.concatenate([close, extreme]).reshape(-1, 1)
    assert np.array_equal(decide(temper(labels, temperature, True), True), decide(labels, True))
    pairs = [np.column_stack([close, 1 - close]), answers(2000, 4.0)[0][:, :2], [[0, 1], [1, 0]]]
    classes = np.concatenate(pairs).astype(np.float32)
    out = temper(classes, temperature, False)
    assert np.array_equal(out.argmax(axis=1), classes.argmax(axis=1))
    assert np.isfinite(out).all()


def test_rows_still_sum_to_one_and_a_class_never_seen_keeps_probability_zero() -> None:
    proba = np.array([[0.7, 0.3, 0.0], [1.0, 0.0, 0.0]], dtype=np.float32)
    out = temper(proba, 5.0, False)
    np.testing.assert_allclose(out.sum(axis=1), 1, atol=1e-6)
    assert (out[:, 2] == 0).all()
    assert 0.3 < out[0, 1] < 0.5


def digits_forest() -> tuple[Model, NDArray[np.float32], NDArray[np.int64]]:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order].astype(np.float32), y[order].astype(np.int64)
    training = find_algorithm("random-forest").start(x[:200], y[:200], 10, parameters={"trees": 40})
    training.advance()
    return training.model(), x[200:], y[200:]


def test_on_digits_a_forest_says_what_it_knows_and_so_does_the_loaded_one(tmp_path: Path) -> None:
    model, x, y = digits_forest()
    better, reason = calibrate(model, x[:60], y[:60])
    before, after = model.predict_proba(x[60:]), better.predict_proba(x[60:])
    assert expected_calibration_error(y[60:], after) < 0.4 * expected_calibration_error(y[60:], before)
    assert np.array_equal(after.argmax(axis=1), before.argmax(axis=1))
    assert reason.startswith("temperature 0.")
    better.save(tmp_path)
    assert np.array_equal(find_algorithm("random-forest").load(tmp_path).predict_proba(x), better.predict_proba(x))
    again, _ = calibrate(better, x[:60], y[:60])
    assert isinstance(again, CalibratedModel)
    assert again.inner is model  # a temperature never stands on another one


def test_a_training_starts_from_a_calibrated_model_as_from_its_bare_one() -> None:
    x, y = load_digits(return_X_y=True)
    linear = find_algorithm("linear-head")

    def first_loss(start: Model | None) -> float:
        return linear.start(x[:100], y[:100], 10, start_from=start).advance()

    training = linear.start(x[:100], y[:100], 10, epoch=8)
    while training.step < training.steps:
        training.advance()
    bare = training.model()
    calibrated, _ = calibrate(bare, x[100:160].astype(np.float32), y[100:160])
    assert isinstance(calibrated, CalibratedModel)
    assert first_loss(calibrated) == first_loss(bare) < first_loss(None)


def test_a_temperature_is_judged_on_labels_it_was_not_fitted_on() -> None:
    proba, y = answers(200, 3.0)
    even, odd = fit(proba[::2], y[::2]).temperature, fit(proba[1::2], y[1::2]).temperature
    out = cross_fitted(proba, y)
    assert np.array_equal(out[::2], temper(proba[::2], odd, False))
    assert np.array_equal(out[1::2], temper(proba[1::2], even, False))
    assert even != odd


class _NoRegions(RegionModel):
    n_labels = 2

    def predict_regions(self, x: NDArray[Any]) -> list[Regions]:
        raise NotImplementedError

    def files(self) -> dict[str, bytes]:
        raise NotImplementedError


def test_models_and_parts_that_carry_no_temperature_stay_as_they_are_and_say_why() -> None:
    constant = ConstantModel(np.array([0.9, 0.1], dtype=np.float32))
    x, y = np.zeros((50, 2), dtype=np.float32), np.zeros(50, dtype=np.int64)
    assert calibrate(constant, x, y)[0] is constant
    regions = _NoRegions()
    assert calibrate(regions, x, y)[0] is regions
    assert "regions" in (why_not(regions, 50) or "")
    assert "constant" in (why_not(constant, 50) or "")
    model, x, y = digits_forest()
    few, reason = calibrate(model, x[: LEAST_LABELS - 1], y[: LEAST_LABELS - 1])
    assert few is model
    assert reason == "not calibrated: 19 held-out labels, a temperature needs 20"


def test_answers_that_are_all_right_do_not_drive_the_temperature_to_its_bound() -> None:
    proba = np.tile(np.array([[0.8, 0.2]], dtype=np.float32), (30, 1))
    assert 0.3 < fit(proba, np.zeros(30, dtype=np.int64)).temperature < 0.8


P = np.full((30, 2), 0.5, dtype=np.float32)
Y = np.zeros(30, dtype=np.int64)
BAD: dict[str, tuple[Any, Any, str]] = {
    "NaN": (np.vstack([P[:29], [[np.nan, 0.5]]]), Y, "row 29"),
    "above one": (np.vstack([[[1.5, 0.0]], P[:29]]), Y, "row 0"),
    "another length": (P, Y[:20], r"\(20,\).*\(30, 2\)"),
    "another width": (P, np.zeros((30, 3)), r"\(30, 3\).*\(30, 2\)"),
    "a class beyond": (P, Y + 2, "0 to 1, got 2 to 2"),
    "no class numbers": (P, Y + 0.5, "class numbers"),
    "too few": (P[:5], Y[:5], "at least 20"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name(case: str) -> None:
    proba, y, match = BAD[case]
    with pytest.raises(InvalidInputError, match=match):
        fit(proba, y)


@pytest.mark.parametrize("data", [b"{}", b"\x80", b'{"temperature":0,"is_multilabel":false,"n_labels":3,"reason":""}'])
def test_a_damaged_temperature_refuses_the_model(data: bytes, tmp_path: Path) -> None:
    x, y = load_digits(return_X_y=True)
    training = find_algorithm("logistic-regression").start(x[:50], y[:50], 10)
    training.advance()
    CalibratedModel(training.model(), Calibration(2.0, False, 30, "")).save(tmp_path)
    (tmp_path / FILE).write_bytes(data)
    with pytest.raises(IntegrityError, match="calibration"):
        find_algorithm("logistic-regression").load(tmp_path)
