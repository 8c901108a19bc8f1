"""Every algorithm on real data: it learns, resumes bit-equal, answers bad input as documented, and loads what it saved."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits

from labelloop.errors import IntegrityError, InvalidInputError, NotFoundError
from learning.algorithms import Algorithm, Model, Training, default_algorithm, find_algorithm, list_algorithms
from learning.algorithms.batches import Batches
from learning.algorithms.constant import ConstantModel
from learning.metrics import accuracy

FAST = ("logistic-regression", "svm", "random-forest", "gradient-boosting", "linear-head", "small-cnn")
SLOW = ("fine-tune", "keras-cnn")  # TensorFlow and a backbone: seconds to import or run
REGIONS = ("box-head", "token-head")  # of boxes and spans: tests of their own
CONTESTS = ("best-of", "best-of-pixels", "best-of-regions")  # of the others: tests of their own
MULTILABEL = ("logistic-regression", "random-forest", "linear-head", "small-cnn")
ITERATIVE = ("gradient-boosting", "linear-head", "small-cnn", *SLOW)
SHORT: dict[str, dict[str, Any]] = {
    "random-forest": {"trees": 20},
    "gradient-boosting": {"rounds": 30},
    "small-cnn": {"width": 16},
    "keras-cnn": {"width": 8},
    "fine-tune": {"batch": 5},
}


@pytest.fixture(autouse=True, scope="module")
def _one_torch_thread() -> Iterator[None]:
    """Networks this small only lose by a second thread, and the cores belong to other tests too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def digits(n: int, at: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[at : at + n]
    return x[order].astype(np.float32), y[order].astype(np.int64)


def start(name: str, x: NDArray[Any], y: NDArray[Any], k: int = 10, epoch: int = 0, **more: Any) -> Training:
    return find_algorithm(name).start(x, y, k, parameters=SHORT.get(name, {}), epoch=epoch, **more)


def finish(training: Training) -> list[float]:
    losses = []
    while training.step < training.steps:
        losses.append(training.advance())
    return losses


def train(name: str, x: NDArray[Any], y: NDArray[Any], k: int = 10, epoch: int = 0, **more: Any) -> Model:
    training = start(name, x, y, k, epoch, **more)
    finish(training)
    return training.model()


def few(name: str) -> int:
    """Return samples and epochs that keep the slow ones short."""
    return 10 if name == "fine-tune" else 60


def test_listing_algorithms_imports_no_model_library() -> None:
    code = (
        "import sys; from learning.algorithms import list_algorithms\n"
        "names = [a.name for a in list_algorithms()]\n"
        "heavy = [m for m in ('torch', 'tensorflow', 'keras', 'sklearn', 'onnx', 'onnxruntime', 'scipy') if m in sys.modules]\n"
        "assert not heavy, heavy\n"
        "print(' '.join(names))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == sorted([*FAST, *SLOW, *REGIONS, *CONTESTS, "distilled"])


@pytest.mark.parametrize("name", [*FAST, *SLOW, *REGIONS, *CONTESTS, "distilled"])
def test_each_algorithm_declares_parameters_that_a_page_can_render(name: str) -> None:
    algorithm = find_algorithm(name)
    schema = msgspec.json.schema(algorithm.parameters)
    (definition,) = schema["$defs"].values()
    assert definition["additionalProperties"] is False
    assert all("default" in field and "description" in field for field in definition["properties"].values())
    assert algorithm.input in ("features", "pixels")
    assert algorithm.title


def test_defaults_fit_the_encoder_and_know_several_labels_where_asked() -> None:
    for encoder in ("table-columns", "minilm-l6", "efficientnet-lite0", "raw-pixels-8g", "pixels-32"):
        for is_multilabel in (False, True):
            algorithm = find_algorithm(default_algorithm("image-classification", encoder, is_multilabel))
            assert algorithm.has_multilabel or not is_multilabel
            assert algorithm.input == ("pixels" if encoder.startswith("pixels-") else "features")


def test_an_unknown_algorithm_is_refused_with_the_known_names() -> None:
    with pytest.raises(NotFoundError, match=r"magic.*logistic-regression"):
        find_algorithm("magic")


@pytest.mark.parametrize(("name", "least"), [*((n, 0.85) for n in FAST), ("keras-cnn", 0.8)])
def test_it_learns_digits_from_two_hundred_labels(name: str, least: float) -> None:
    x, y = digits(200)
    proba = train(name, x, y, seed=1).predict_proba(digits(300, 200)[0])
    assert proba.dtype == np.float32
    assert proba.shape == (300, 10)
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-4)
    assert accuracy(digits(300, 200)[1], proba) > least


@pytest.mark.parametrize("name", [n for n in FAST if n != "small-cnn"])
def test_it_learns_a_table_whose_columns_differ_by_orders_of_magnitude(name: str) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x = x.astype(np.float32)
    model = train(name, x[:150], y[:150], 2)
    assert accuracy(y[150:], model.predict_proba(x[150:])) > 0.91


def test_fine_tuning_tells_bright_images_from_striped_ones_and_grey_from_colour_input() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(100, 156, (14, 32, 32, 3), dtype=np.uint8)
    y = np.arange(14) % 2
    x[y == 1, ::4] = 255
    model = train("fine-tune", x[:8], y[:8], 2, epoch=4)
    assert accuracy(y[8:], model.predict_proba(x[8:])) == 1.0
    floats = train("fine-tune", x[:8].astype(np.float32) / 255, y[:8], 2, epoch=4)
    np.testing.assert_allclose(floats.predict_proba(x[8:] / np.float32(255)), model.predict_proba(x[8:]), atol=0.02)
    grey = x[:, :, :, :1]
    assert train("fine-tune", grey[:4], y[:4], 2, epoch=1).predict_proba(grey[8:]).shape == (6, 2)


@pytest.mark.parametrize("name", ITERATIVE)
def test_after_a_restore_the_losses_are_bit_equal_to_an_uninterrupted_run(name: str) -> None:
    x, y = digits(few(name))
    epoch = 3
    whole = start(name, x, y, epoch=epoch, seed=4)
    losses = finish(whole)
    assert whole.steps >= 3
    cut = whole.steps // 2 + 1
    first = start(name, x, y, epoch=epoch, seed=4)
    for _ in range(cut):
        first.advance()
    state = first.state()
    assert all(isinstance(data, bytes) for data in state.values())
    first.advance()  # what happens after the checkpoint must not leak into it
    second = start(name, x, y, epoch=epoch, seed=4)
    second.restore(state)
    assert second.step == cut
    assert finish(second) == losses[cut:]
    assert np.array_equal(second.model().predict_proba(x), whole.model().predict_proba(x))


@pytest.mark.parametrize("name", [n for n in FAST if n not in ITERATIVE])
def test_a_one_step_training_resumes_before_or_after_its_step(name: str) -> None:
    x, y = digits(60)
    done = start(name, x, y, seed=2)
    fresh = start(name, x, y, seed=2)
    fresh.restore(done.state())
    with pytest.raises(InvalidInputError, match="no model yet"):
        fresh.model()
    loss = done.advance()
    assert fresh.advance() == loss
    resumed = start(name, x, y, seed=2)
    resumed.restore(done.state())
    assert resumed.step == resumed.steps == 1
    assert np.array_equal(resumed.model().predict_proba(x), done.model().predict_proba(x))
    with pytest.raises(InvalidInputError, match="done"):
        done.advance()


@pytest.mark.parametrize("name", ["linear-head", "small-cnn", "gradient-boosting"])
def test_another_seed_sees_other_samples_and_losses_fall(name: str) -> None:
    x, y = digits(200)
    losses = finish(start(name, x, y, epoch=4, seed=1))
    assert losses != finish(start(name, x, y, epoch=4, seed=2))
    assert losses[-1] < losses[0]


def test_the_samples_of_a_step_depend_on_seed_and_step_alone() -> None:
    asked_in_order = [Batches(10, 4, 7).rows(step).tolist() for step in range(6)]
    batches = Batches(10, 4, 7)
    assert [batches.rows(step).tolist() for step in reversed(range(6))] == asked_in_order[::-1]
    for epoch in (0, 3):
        assert sorted(row for rows in asked_in_order[epoch : epoch + 3] for row in rows) == list(range(10))
    assert asked_in_order[:3] != asked_in_order[3:]


@pytest.mark.parametrize("name", [*FAST, *SLOW])
def test_a_saved_model_answers_the_same_after_loading_and_its_files_hold_no_pickle(name: str, tmp_path: Path) -> None:
    x, y = digits(few(name))
    model = train(name, x, y, epoch=1)
    model.save(tmp_path)
    (tmp_path / "model.json").write_text("{}")  # the manifest lies beside
    loaded = find_algorithm(name).load(tmp_path)
    other = digits(20, 300)[0]
    assert np.array_equal(loaded.predict_proba(other), model.predict_proba(other))
    assert loaded.n_labels == 10
    assert {p.suffix for p in tmp_path.iterdir()} <= {".json", ".safetensors", ".onnx", ".keras"}


@pytest.mark.parametrize("name", [*FAST, *SLOW])
def test_damaged_files_are_refused_not_loaded(name: str, tmp_path: Path) -> None:
    algorithm = find_algorithm(name)
    with pytest.raises(NotFoundError):
        algorithm.load(tmp_path)
    for file in algorithm.file_names:
        (tmp_path / file).write_bytes(b"\x80\x04 not a model")
    with pytest.raises(IntegrityError):
        algorithm.load(tmp_path)


@pytest.mark.parametrize("name", ["linear-head", "small-cnn", "gradient-boosting"])
def test_a_foreign_state_is_refused(name: str) -> None:
    x, y = digits(60)
    state = start(name, x, y, epoch=2).state()
    with pytest.raises(IntegrityError):
        start(name, x[:30], y[:30], epoch=5).restore(state)
    with pytest.raises(IntegrityError):
        start(name, x, y, epoch=2).restore({})


@pytest.mark.parametrize("name", [*FAST, *SLOW])
def test_labels_of_one_class_give_the_documented_constant_model(name: str, tmp_path: Path) -> None:
    x, _ = digits(18)
    training = start(name, x, np.full(18, 3), 4)
    training.advance()
    model = training.model()
    assert isinstance(model, ConstantModel)
    np.testing.assert_allclose(model.predict_proba(x[:2]), np.tile([1 / 22, 1 / 22, 1 / 22, 19 / 22], (2, 1)), rtol=1e-6)
    model.save(tmp_path)
    assert np.array_equal(find_algorithm(name).load(tmp_path).predict_proba(x), model.predict_proba(x))


@pytest.mark.parametrize("name", [*FAST, "keras-cnn"])
def test_a_class_never_seen_has_a_column_with_little_probability(name: str) -> None:
    x, y = digits(120)
    keep = y < 4
    proba = train(name, x[keep], y[keep] * 2, 9, epoch=8).predict_proba(x)
    assert proba.shape == (120, 9)
    assert proba[:, [1, 3, 5, 7, 8]].mean() < 0.1
    assert np.isfinite(proba).all()


@pytest.mark.parametrize("name", [*FAST, "keras-cnn"])
def test_one_sample_a_class_is_enough_to_answer(name: str) -> None:
    x, y = digits(100)
    rows = [int(np.flatnonzero(y == label)[0]) for label in range(3)]
    proba = train(name, x[rows], y[rows], 3, epoch=2).predict_proba(x)
    assert np.isfinite(proba).all()


@pytest.mark.parametrize("name", MULTILABEL)
def test_several_labels_an_item_are_learned_independently(name: str, tmp_path: Path) -> None:
    x, y = digits(260)
    labels = np.stack([y < 5, y % 2 == 0, np.zeros(260)], axis=1).astype(np.uint8)  # the third label is never given
    model = train(name, x[:200], labels[:200], 3, is_multilabel=True)
    proba = model.predict_proba(x[200:])
    assert ((proba >= 0.5) == labels[200:])[:, :2].mean() > 0.8
    assert proba[:, 2].mean() < 0.1
    model.save(tmp_path)
    assert np.array_equal(find_algorithm(name).load(tmp_path).predict_proba(x), model.predict_proba(x))


@pytest.mark.parametrize("name", ["svm", "gradient-boosting", "keras-cnn"])
def test_algorithms_without_multilabel_say_so(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} cannot learn several labels"):
        start(name, digits(4)[0], np.eye(4, dtype=np.uint8), 4, is_multilabel=True)


def test_missing_values_of_a_table_count_as_training_means() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x = x.astype(np.float32)
    holes = x.copy()
    holes[np.random.default_rng(0).random(x.shape) < 0.1] = np.nan
    for name in ("logistic-regression", "svm", "random-forest", "gradient-boosting", "linear-head"):
        model = train(name, holes[:200], y[:200], 2)
        assert accuracy(y[200:], model.predict_proba(holes[200:])) > 0.88
        row, mean = x[:1].copy(), np.nanmean(holes[:200], axis=0)
        row[0, 3] = np.inf
        filled = row.copy()
        filled[0, 3] = mean[3]
        np.testing.assert_allclose(model.predict_proba(row), model.predict_proba(filled), atol=1e-4)


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: start("logistic-regression", np.ones((2, 3)), np.array([0, 2]), 2), "ranges from 0 to 2"),
    (lambda: start("svm", np.ones((2, 3)), np.array([-1, 1]), 2), "ranges from -1"),
    (lambda: start("svm", np.ones((2, 3)), np.array([0.5, 1]), 2), "no class numbers"),
    (lambda: start("svm", np.ones((2, 3)), np.array(["a", "b"]), 2), "expected integers"),
    (lambda: start("svm", np.ones((2, 3)), np.array([0]), 2), "y has shape"),
    (lambda: start("svm", np.ones((0, 3)), np.array([], int), 2), "nothing to train on"),
    (lambda: start("linear-head", np.ones((2, 3)), np.array([[0, 2], [1, 0]]), 2, is_multilabel=True), "ranges from 0 to 2"),
    (lambda: start("logistic-regression", np.array([[1.0, np.inf], [0, 0]]), np.array([0, 1]), 2), "row 0 .* infinite"),
    (lambda: start("random-forest", np.array([[1.0, 2], [np.nan, np.nan]]), np.array([0, 1]), 2), "row 1 .* NaN throughout"),
    (lambda: start("small-cnn", np.full((2, 8, 8, 1), np.nan), np.array([0, 1]), 2), "image 0 holds NaN"),
    (lambda: start("small-cnn", np.ones((2, 7)), np.array([0, 1]), 2), "no square image"),
    (lambda: start("fine-tune", np.ones((2, 8, 8, 2)), np.array([0, 1]), 2).advance(), "1 or 3 channels"),
    (
        lambda: find_algorithm("svm").start(np.ones((2, 3)), np.array([0, 1]), 2, parameters={"cc": 1}),
        "parameters of svm.*known are",
    ),
    (lambda: find_algorithm("svm").start(np.ones((2, 3)), np.array([0, 1]), 2, parameters={"c": -1}), "parameters of svm"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_training_data_and_parameters_are_refused_by_name(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call()


@pytest.mark.parametrize("name", [*FAST, "keras-cnn"])
def test_features_of_another_width_are_refused_when_predicting(name: str) -> None:
    x, y = digits(40)
    model = train(name, x, y, epoch=1)
    with pytest.raises(InvalidInputError, match="same encoder"):
        model.predict_proba(np.ones((2, 49), dtype=np.float32))
    assert model.predict_proba(x[:0]).shape == (0, 10)


@pytest.mark.parametrize("name", ["linear-head", "small-cnn", *SLOW])
def test_an_incremental_start_begins_where_the_serving_model_is(name: str) -> None:
    x, y = digits(few(name))
    served = train(name, x, y, epoch=6)
    cold, warm = start(name, x, y, epoch=6), start(name, x, y, epoch=6, start_from=served)
    if name in ("linear-head", "fine-tune"):
        np.testing.assert_allclose(warm.model().predict_proba(x), served.predict_proba(x), atol=1e-3)
    assert warm.advance() < cold.advance()


@pytest.mark.parametrize("name", ["linear-head", "small-cnn", "keras-cnn"])
def test_an_incremental_start_from_another_label_set_or_algorithm_starts_anew(name: str) -> None:
    x, y = digits(60)
    other = train(name, x, np.minimum(y, 4), 5, epoch=1)
    foreign = ConstantModel(np.ones(10, dtype=np.float32) / 10)
    losses = finish(start(name, x, y, epoch=1, seed=3))
    for model in (other, foreign):
        assert finish(start(name, x, y, epoch=1, seed=3, start_from=model)) == losses


@pytest.mark.parametrize("name", SLOW)
def test_the_loss_of_an_uncertain_label_is_the_mean_of_the_losses_of_its_labels(name: str) -> None:
    x, y = digits(8)
    other = (y + 1) % 10
    soft = (0.7 * np.eye(10)[y] + 0.3 * np.eye(10)[other]).astype(np.float32)
    one, two, both = (start(name, x, labels, epoch=1).advance() for labels in (y, other, soft))
    assert both == pytest.approx(0.7 * one + 0.3 * two, rel=1e-4)
    assert abs(one - two) > 1e-3


def test_keras_without_tensorflow_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(InvalidInputError, match="extra 'tensorflow'"):
        start("keras-cnn", *digits(8))


def test_a_package_adds_an_algorithm_by_entry_point(tmp_path: Path) -> None:
    (tmp_path / "added_algorithm.py").write_text(
        "from learning.algorithms.logistic_regression import LogisticRegression\n"
        "class Added(LogisticRegression):\n    name = 'added'\nALGORITHM = Added()\n"
    )
    (tmp_path / "added-1.dist-info").mkdir()
    (tmp_path / "added-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: added\nVersion: 1\n")
    (tmp_path / "added-1.dist-info" / "entry_points.txt").write_text(
        "[labelloop.algorithms]\nadded = added_algorithm:ALGORITHM\nbroken = no_such_module:ALGORITHM\nwrong = sys:path\n"
    )
    code = (
        f"import sys; sys.path.append({str(tmp_path)!r})\n"
        "from learning.algorithms import find_algorithm, list_algorithms\n"
        "print(find_algorithm('added').name, len(list_algorithms()))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["added", str(len(list_algorithms()) + 1)]
    assert "broken" in out.stderr
    assert "wrong" in out.stderr


def test_every_built_in_is_an_algorithm_under_its_own_name() -> None:
    for algorithm in list_algorithms():
        assert isinstance(algorithm, Algorithm)
        assert find_algorithm(algorithm.name) is algorithm
