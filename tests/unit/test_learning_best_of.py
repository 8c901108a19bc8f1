"""best-of keeps the member that does best on items kept aside, resumes bit-equal in each of its parts, and answers bad input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from labelloop.errors import IntegrityError, InvalidInputError, NotFoundError
from learning.algorithms import Model, Training, find_algorithm
from learning.algorithms.base import Files
from learning.algorithms.contest import RECORD, STATE, BestOfModel
from learning.cycle.training import algorithm_trainer
from learning.metrics import accuracy
from learning.regions import RegionModel, Regions
from learning.transfer.calibration import CalibratedModel, calibrate
from learning.transfer.onnx_export import export

LINEAR, HEAD = {"name": "logistic-regression"}, {"name": "linear-head", "parameters": {"batch": 8}}
FOREST = {"name": "random-forest", "parameters": {"trees": 12}}
SVM = {"name": "svm"}


@pytest.fixture(autouse=True, scope="module")
def _one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def quadrants(n: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return points whose class is an exclusive or of their signs: no line separates them, trees do."""
    x = np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float32)
    return x, (x[:, 0] * x[:, 1] > 0).astype(np.int64)


def start(
    x: Any, y: Any, *members: dict[str, Any], k: int = 2, name: str = "best-of", is_multilabel: bool = False, **more: Any
) -> Training:
    parameters = {"algorithms": list(members), **more}
    return find_algorithm(name).start(x, y, k, is_multilabel, parameters, epoch=1, seed=3)


def finish(training: Training) -> list[float]:
    losses = []
    while training.step < training.steps:
        losses.append(training.advance())
    return losses


def finished(training: Training) -> Training:
    finish(training)
    return training


@pytest.mark.parametrize("members", [(LINEAR, FOREST), (FOREST, LINEAR)])
def test_the_member_that_does_best_on_items_kept_aside_becomes_the_model(members: tuple[dict[str, Any], ...]) -> None:
    training = finished(start(*quadrants(200), *members))
    x, y = quadrants(300, 1)
    assert accuracy(y, training.model().predict_proba(x)) > 0.85
    assert training.note.startswith("random-forest (trees=12) is the best of 2 on 39 items kept aside: random-forest (trees=12) ")
    assert "logistic-regression" in training.note
    assert training.note.endswith("trained on all 200 items")


def test_only_with_refit_the_model_is_one_of_all_items() -> None:
    x, y = quadrants(100)
    whole = find_algorithm("random-forest").start(x, y, 2, parameters=FOREST["parameters"], seed=3)
    finish(whole)
    alike = [
        np.array_equal(finished(start(x, y, LINEAR, FOREST, refit=refit)).model().predict_proba(x), whole.model().predict_proba(x))
        for refit in (True, False)
    ]
    assert alike == [True, False]
    assert "trained on all" not in finished(start(x, y, LINEAR, FOREST, refit=False)).note


def test_equals_go_to_the_member_named_first() -> None:
    training = finished(start(*quadrants(100), FOREST, FOREST))
    model = training.model()
    assert isinstance(model, BestOfModel)
    assert [score.score for score in model.record.scores] == [model.record.scores[0].score] * 2
    assert model.record.winner == "random-forest"


@pytest.mark.parametrize("refit", [True, False])
def test_after_a_restore_in_any_part_the_losses_are_bit_equal_to_an_uninterrupted_run(refit: bool) -> None:
    x, y = quadrants(60)
    x += 4 * y[:, None]  # a line does now: the winner has steps to repeat

    def anew() -> Training:
        return start(x, y, LINEAR, HEAD, FOREST, {"name": "linear-head", "parameters": {"batch": 20}}, refit=refit)

    whole = anew()
    states, losses, candidates = [whole.state()], [], [whole.is_candidate]
    while whole.step < whole.steps:
        losses.append(whole.advance())
        states.append(whole.state())
        candidates.append(whole.is_candidate)
    assert len(losses) > 8
    assert candidates == sorted(candidates)  # never before the winner is known, always from then on
    assert candidates[-1]
    for cut in [*range(0, len(losses), 5), len(losses) - 1, len(losses)]:
        resumed = anew()
        resumed.restore(states[cut])
        assert resumed.step == cut
        assert resumed.is_candidate == candidates[cut]
        assert finish(resumed) == losses[cut:]
        assert resumed.note == whole.note
        assert np.array_equal(resumed.model().predict_proba(x), whole.model().predict_proba(x))


def test_the_model_before_the_end_is_the_best_so_far() -> None:
    x, y = quadrants(100)
    training = start(x, y, FOREST, HEAD, LINEAR)
    with pytest.raises(InvalidInputError, match="no model yet"):
        training.model()
    training.advance()
    model = training.model()
    assert isinstance(model, BestOfModel)
    assert model.record.winner == "random-forest"
    assert not training.is_candidate


def test_a_saved_model_answers_the_same_after_loading_calibrated_or_not(tmp_path: Path) -> None:
    x, y = quadrants(120)
    model = finished(start(x, y, LINEAR, FOREST)).model()
    calibrated, _ = calibrate(model, *quadrants(80, 2))
    assert isinstance(calibrated, CalibratedModel)
    for number, one in enumerate((model, calibrated)):
        folder = tmp_path / str(number)
        folder.mkdir()
        one.save(folder)
        loaded = find_algorithm("best-of").load(folder)
        assert np.array_equal(loaded.predict_proba(x), one.predict_proba(x))
        assert loaded.files() == one.files()
        assert (folder / RECORD).is_file()


def test_the_winner_is_exported_as_it_answers() -> None:
    model = finished(start(*quadrants(60), LINEAR, SVM)).model()
    assert export(model).difference < 1e-4


@pytest.mark.parametrize(
    ("record", "error"),
    [
        (b"no json", IntegrityError),
        (b'{"winner": 3}', IntegrityError),
        (b'{"winner":"best-of","parameters":{},"scores":[],"left_out":{},"note":""}', IntegrityError),
        (b'{"winner":"svm","parameters":{},"scores":[],"left_out":{},"note":""}', IntegrityError),
        (b'{"winner":"magic","parameters":{},"scores":[],"left_out":{},"note":""}', NotFoundError),
        (None, NotFoundError),
    ],
)
def test_a_damaged_record_is_refused_not_loaded(record: bytes | None, error: type[Exception], tmp_path: Path) -> None:
    if record is not None:
        (tmp_path / RECORD).write_bytes(record)
    with pytest.raises(error):
        find_algorithm("best-of").load(tmp_path)


@pytest.mark.parametrize("change", [{}, {STATE: b"{}"}, {STATE: None}])
def test_a_foreign_state_is_refused(change: dict[str, Any]) -> None:
    x, y = quadrants(60)
    state: Files = start(x, y, LINEAR, FOREST).state() | change
    other = start(x, y, FOREST, LINEAR) if not change else start(x, y, LINEAR, FOREST)
    with pytest.raises(IntegrityError):
        other.restore({name: data for name, data in state.items() if data is not None})


def test_several_labels_an_item_leave_out_who_cannot_learn_them(tmp_path: Path) -> None:
    x, y = quadrants(150)
    labels = np.stack([y, x[:, 0] > 0], axis=1).astype(np.uint8)
    training = finished(start(x, labels, LINEAR, SVM, FOREST, is_multilabel=True))
    assert "is the best of 2 " in training.note
    assert "svm is left out: svm cannot learn several labels" in training.note
    model = training.model()
    assert ((model.predict_proba(x) >= 0.5) == labels).mean() > 0.9
    model.save(tmp_path)
    assert np.array_equal(find_algorithm("best-of").load(tmp_path).predict_proba(x), model.predict_proba(x))


def test_probabilities_of_labels_are_learned_and_compared() -> None:
    x, y = quadrants(150)
    soft = np.where(np.eye(2)[y] == 1, 0.9, 0.1).astype(np.float32)
    training = finished(start(x, soft, LINEAR, FOREST))
    assert training.note.startswith("random-forest")
    assert accuracy(y, training.model().predict_proba(x)) > 0.9


def test_one_able_member_or_too_few_items_are_trained_without_a_comparison() -> None:
    x, y = quadrants(80)
    labels = np.stack([y, 1 - y], axis=1).astype(np.uint8)
    alone = finished(start(x, labels, SVM, LINEAR, is_multilabel=True))
    assert alone.note.startswith("logistic-regression without a comparison: no other algorithm of the set can learn this")
    few = finished(start(x[:8], y[:8], LINEAR, FOREST))
    assert few.note.startswith("logistic-regression without a comparison: 8 items are too few")
    for training in (alone, few):
        assert training.steps == 1
        assert training.is_candidate


def test_a_cycle_trains_it_though_its_steps_become_fewer() -> None:
    x, y = quadrants(60)
    trainer = algorithm_trainer(x, "best-of", {"algorithms": [HEAD, FOREST]})
    (checkpoint,) = trainer.train(np.arange(60), y, 2, seed=0)
    assert isinstance(checkpoint.model, BestOfModel)
    assert "trained on all 60" in checkpoint.model.record.note


def boxes(n: int) -> tuple[NDArray[np.float32], list[Regions]]:
    """Return maps of 2 x 4 x 4 in which one cell that is bright is a box of a class."""
    rng = np.random.default_rng(0)
    maps, truth = rng.normal(0, 0.1, (n, 2, 4, 4)), []
    for row in range(n):
        label, top, left = (int(rng.integers(size)) for size in (2, 3, 3))
        maps[row, label, top : top + 2, left : left + 2] += 2
        where = np.array([[left / 4, top / 4, 0.5, 0.5]], np.float32)
        truth.append(Regions(where, np.array([label]), np.ones(1, np.float32)))
    return maps.reshape(n, -1).astype(np.float32), truth


def test_boxes_are_compared_by_what_is_found_and_who_learns_spans_is_left_out(tmp_path: Path) -> None:
    x, y = boxes(40)
    small = {"layout": "2x4x4", "width": 8, "batch": 8, "held_out": 0.0}
    blind = {"name": "box-head", "parameters": {**small, "rate": 1e-9}}
    members = ({"name": "token-head"}, blind, {"name": "box-head", "parameters": {**small, "rate": 0.05}})
    training = finished(start(x, y, *members, name="best-of-regions"))
    assert "token-head is left out: " in training.note
    model: Model = training.model()
    assert isinstance(model, RegionModel)
    assert isinstance(model, BestOfModel)
    assert model.record.parameters["rate"] == 0.05
    model.save(tmp_path)
    loaded = find_algorithm("best-of-regions").load(tmp_path)
    assert isinstance(loaded, RegionModel)
    for one, other in zip(loaded.predict_regions(x), model.predict_regions(x), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


BAD: list[tuple[str, Any, str]] = [
    ("best-of", [{"name": "best-of"}], "best-of cannot be a member of best-of"),
    ("best-of-pixels", [{"name": "best-of"}], "best-of cannot be a member of best-of-pixels"),
    ("best-of", [{"name": "small-cnn"}], "small-cnn learns classes from pixels.*share one input"),
    ("best-of", [{"name": "box-head"}], "box-head learns regions"),
    ("best-of-regions", [{"name": "svm"}], "svm learns classes"),
    ("best-of", [{"name": "svm", "parameters": {"cc": 1}}], "parameters of svm"),
    ("best-of", [{"parameters": {}}], "no member of best-of.*name"),
    ("best-of", [{"name": "svm", "weight": 1}], "no member of best-of.*weight"),
    ("best-of", ["svm"], "parameters of best-of"),
]


@pytest.mark.parametrize(("name", "members", "message"), BAD)
def test_a_bad_set_is_refused_before_anything_is_trained(name: str, members: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        find_algorithm(name).read_parameters({"algorithms": members})


def test_an_unknown_member_is_refused_with_the_known_names() -> None:
    with pytest.raises(NotFoundError, match="magic"):
        find_algorithm("best-of").read_parameters({"algorithms": [{"name": "magic"}]})


def test_a_set_in_which_none_can_learn_says_why() -> None:
    x, y = quadrants(20)
    with pytest.raises(InvalidInputError, match=r"none of the algorithms can learn.*svm cannot learn several labels"):
        start(x, np.stack([y, 1 - y], axis=1).astype(np.uint8), SVM, is_multilabel=True)
