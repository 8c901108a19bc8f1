"""A model as one ONNX file: onnxruntime answers what the model answers, calibrated, with missing values, or there is no file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from labelloop.errors import IntegrityError, InvalidInputError
from learning.algorithms import Model, find_algorithm
from learning.algorithms.linear_model import LinearModel
from learning.transfer import onnx_export
from learning.transfer.calibration import CalibratedModel, Calibration, calibrate
from learning.transfer.onnx_export import FACTS, TOLERANCE, export

SHORT: dict[str, dict[str, Any]] = {
    "random-forest": {"trees": 10},
    "gradient-boosting": {"rounds": 8},
    "small-cnn": {"width": 8},
    "fine-tune": {"depth": "head", "batch": 4},
}
ONE_LABEL = ("logistic-regression", "linear-head", "svm", "random-forest", "gradient-boosting", "small-cnn")
SEVERAL = ("logistic-regression", "random-forest", "linear-head", "small-cnn")


@pytest.fixture(autouse=True, scope="module")
def _one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def digits(n: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[:n]
    return x[order].astype(np.float32), y[order].astype(np.int64)


def train(name: str, x: NDArray[Any], y: NDArray[Any], k: int = 10, is_multilabel: bool = False, **more: Any) -> Model:
    parameters = {**SHORT.get(name, {}), **more}
    training = find_algorithm(name).start(x, y, k, is_multilabel, parameters=parameters, epoch=2)
    while training.step < training.steps:
        training.advance()
    return training.model()


def run(data: bytes, x: NDArray[Any]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    out: NDArray[np.float32] = session.run(None, {"x": x.astype(np.float32)})[0]
    return out


@pytest.mark.parametrize("name", ONE_LABEL)
def test_onnxruntime_gives_the_probabilities_of_the_calibrated_model(name: str) -> None:
    x, y = digits(160)
    model, _ = calibrate(train(name, x[:100], y[:100], 11), x[100:], y[100:])  # an eleventh class that has no sample
    assert isinstance(model, CalibratedModel)
    found = export(model)
    onnx.checker.check_model(onnx.load_from_string(found.data))
    x = x[100:].copy()
    x[3, 5], x[4] = np.nan, np.inf
    shaped = x.reshape(-1, 8, 8, 1) if name == "small-cnn" else x
    np.testing.assert_allclose(run(found.data, shaped), model.predict_proba(x), atol=TOLERANCE)
    assert found.difference <= TOLERANCE
    assert np.abs(run(found.data, shaped[:1]) - model.predict_proba(x[:1])).max() <= TOLERANCE  # any number of rows


@pytest.mark.parametrize("name", SEVERAL)
def test_several_labels_an_item_stay_independent(name: str) -> None:
    x, y = digits(80)
    truth = np.stack([y % 2, y > 4, y % 3 == 0], axis=1).astype(np.uint8)
    model = CalibratedModel(train(name, x, truth, 3, True), Calibration(1.8, True, 30, ""))
    found = export(model, x)
    out = run(found.data, x.reshape(-1, 8, 8, 1) if name == "small-cnn" else x)
    np.testing.assert_allclose(out, model.predict_proba(x), atol=TOLERANCE)
    assert (out.sum(axis=1) > 1.2).any()


@pytest.mark.parametrize("shape", [(20, 20, 3), (9, 30, 1), (36, 24, 3)])
def test_small_networks_on_odd_pictures_pool_as_torch_does(shape: tuple[int, int, int]) -> None:
    x = np.random.default_rng(0).integers(0, 256, (12, *shape), dtype=np.uint8)
    model = train("small-cnn", x, np.arange(12) % 2, 2, side=16)
    np.testing.assert_allclose(run(export(model).data, x), model.predict_proba(x), atol=TOLERANCE)


@pytest.mark.parametrize("shape", [(40, 30, 1), (224, 224, 3)])
def test_a_fine_tuned_network_resamples_in_the_file_as_it_does_in_training(shape: tuple[int, int, int]) -> None:
    x = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    model = train("fine-tune", x, np.arange(2), 2)
    found = export(model, x)
    assert found.shape == shape
    np.testing.assert_allclose(run(found.data, x), model.predict_proba(x), atol=TOLERANCE)


def test_a_constant_model_and_two_classes_of_support_vectors() -> None:
    x, y = digits(40)
    constant = train("logistic-regression", x, np.full(40, 3))
    np.testing.assert_allclose(run(export(constant).data, x), constant.predict_proba(x))
    two = train("svm", x, y % 2, 2)
    np.testing.assert_allclose(run(export(two).data, x), two.predict_proba(x), atol=TOLERANCE)


def test_the_file_is_pinned_and_says_what_it_is() -> None:
    x, y = digits(40)
    written = onnx.load_from_string(export(train("logistic-regression", x, y), facts={"labels": ["a"]}).data)
    assert {opset.domain: opset.version for opset in written.opset_import} == {"": 17, "ai.onnx.ml": 3}
    assert written.ir_version == 8
    (fact,) = written.metadata_props
    assert (fact.key, msgspec.json.decode(fact.value)) == (FACTS, {"labels": ["a"]})


def test_answers_that_differ_give_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = digits(40)
    model = train("logistic-regression", x, y)
    assert isinstance(model, LinearModel)
    honest = onnx_export.onnx_graph.linear

    def wrong(graph: Any, name: str, model: LinearModel) -> str:
        return honest(graph, name, LinearModel(model.weights, model.bias + np.arange(10, dtype=np.float32), model.mean, False))

    monkeypatch.setattr(onnx_export.onnx_graph, "linear", wrong)
    with pytest.raises(IntegrityError, match=r"allowed is 0\.0001"):
        export(model)


class _Foreign(Model):
    n_labels = 2

    def predict_proba(self, x: NDArray[Any]) -> NDArray[np.float32]:
        raise NotImplementedError

    def files(self) -> dict[str, bytes]:
        raise NotImplementedError


def test_bad_input_is_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match="_Foreign has no ONNX graph"):
        export(_Foreign())
    x, y = digits(20)
    with pytest.raises(InvalidInputError, match=r"\(64,\).*\(63,\)"):
        export(train("logistic-regression", x, y), x[:, :63])
    pictures = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    pictures[0] = 200
    network = train("fine-tune", pictures, np.arange(2), 2)
    for shape in (None, (224, 224), (8, 8, 2)):
        with pytest.raises(InvalidInputError, match="shape"):
            export(network, shape=shape)
