"""Which checkpoint becomes the model, and what a resumed fitting does again; and the frames between runner and spare."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from datastore_layout.labels import LabelRow
from datastore_layout.root import TaskFolder, create_root, task_folder
from datastore_layout.runs import (
    Attempt,
    RunSpec,
    claim_attempt,
    create_run,
    list_checkpoints,
    newest_checkpoint,
    read_run_metrics,
)
from learning.algorithms import Model, Training
from learning.algorithms.base import Files
from roles.hints import RunHint
from roles.train.fitting import JUDGED, Alone, Fitting
from roles.train.orders import Frames, Order, Report, frame
from roles.train.samples import Part

STEPS = 40


class Rising(Model):
    """Right on the items below `level`, wrong on the others."""

    n_labels = 2

    def __init__(self, level: int) -> None:
        self.level = level

    def predict_proba(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        is_right = np.arange(len(x)) < self.level
        return np.stack([is_right, ~is_right], axis=1).astype(np.float32)

    def files(self) -> dict[str, bytes]:
        return {"level": str(self.level).encode()}


class UpAndDown(Training):
    """Best at step 20 of 40; its loss tells the step."""

    steps = STEPS

    def __init__(self) -> None:
        self.step = 0
        self.advanced: list[int] = []

    def advance(self) -> float:
        self.step += 1
        self.advanced.append(self.step)
        return 1.0 / self.step

    def state(self) -> dict[str, bytes]:
        return {"step": str(self.step).encode()}

    def restore(self, state: Files) -> None:
        assert JUDGED not in state
        self.step = int(state["step"])

    def model(self) -> Model:
        return Rising(10 - abs(self.step - 20) // 4)


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    folder: TaskFolder = task_folder(create_root(tmp_path / "store", "c1"), "digits")
    run = create_run(folder, RunSpec(algorithm="x", encoder="y"))
    claimed = claim_attempt(folder, run, 1)
    assert claimed is not None
    return claimed


def held_out() -> Part:
    rows = tuple(LabelRow(f"i{n}", 1, "file:///x", ("0",)) for n in range(10))
    return Part(rows, np.zeros((10, 2), np.float32), np.zeros(10, np.int64))


def fitting_of(attempt: Attempt, checkpoint_s: float = 60.0) -> Fitting:
    return Fitting(Alone(UpAndDown()), attempt, held_out(), checkpoint_s, lambda: None)


def test_the_best_judged_step_becomes_the_model_though_training_went_on(attempt: Attempt) -> None:
    model, reason = fitting_of(attempt).run()
    assert isinstance(model, Rising)
    assert model.level == 10
    assert reason.startswith("step 20 of 40 is the best")
    assert [point.step for point in read_run_metrics(attempt.folder, attempt.run)] == list(range(1, STEPS + 1))


class StopsEarly(UpAndDown):
    """Says at step 22 that it is done."""

    def advance(self) -> float:
        loss = super().advance()
        if self.step == 22:
            self.steps = 22
        return loss


def test_a_training_that_ends_before_its_last_step_is_judged_where_it_ends(attempt: Attempt) -> None:
    training = StopsEarly()
    model, reason = Fitting(Alone(training), attempt, held_out(), 60.0, lambda: None).run()
    assert isinstance(model, Rising)
    assert model.level == 10
    assert training.advanced == list(range(1, 23))
    assert "step 22" in reason


class DecidesLate(UpAndDown):
    """Knows at step 27 what it is for."""

    is_candidate = False

    def advance(self) -> float:
        loss = super().advance()
        self.is_candidate = self.step >= 27
        return loss


def test_a_step_that_is_no_candidate_is_never_chosen(attempt: Attempt) -> None:
    model, reason = Fitting(Alone(DecidesLate()), attempt, held_out(), 60.0, lambda: None).run()
    assert isinstance(model, Rising)
    assert model.level == 8
    assert reason.startswith("step 28 of 40 is the best")


def test_a_resumed_fitting_repeats_no_step_and_chooses_among_the_same_candidates(attempt: Attempt) -> None:
    class Killed(Exception):
        pass

    first = fitting_of(attempt)
    advance = first.training.advance

    def dies() -> float:
        if first.training.step == 29:
            raise Killed
        return advance()

    first.training.advance = dies  # type: ignore[method-assign]
    with pytest.raises(Killed):
        first.run()
    checkpoint = newest_checkpoint(attempt.folder, attempt.run)
    assert checkpoint is not None
    assert checkpoint.step == 28
    second_attempt = claim_attempt(attempt.folder, attempt.run, 2, checkpoint)
    assert second_attempt is not None
    second = fitting_of(second_attempt)
    second.resume(checkpoint)
    model, reason = second.run()
    assert isinstance(second.training, UpAndDown)
    assert second.training.advanced == list(range(29, STEPS + 1))
    assert isinstance(model, Rising)
    assert (model.level, reason.split(" is ")[0]) == (10, "step 20 of 40")
    points = read_run_metrics(attempt.folder, attempt.run)
    assert [(p.step, p.loss) for p in points] == [(n, 1.0 / n) for n in range(1, STEPS + 1)]


def test_a_damaged_best_checkpoint_costs_a_candidate_and_not_the_run(attempt: Attempt) -> None:
    fitting = fitting_of(attempt)
    choose = fitting._choose

    def damaged() -> tuple[Model, str]:
        best = next(c for c in list_checkpoints(attempt.folder, attempt.run) if c.step == 20)
        (best.path / "step").write_bytes(b"99")
        return choose()

    fitting._choose = damaged  # type: ignore[method-assign]
    model, _ = fitting.run()
    assert isinstance(model, Rising)
    assert model.level == 9


def test_frames_survive_any_cutting_of_the_stream() -> None:
    hint = RunHint(task="digits", run=7, attempt=2)
    data = b"".join(frame(Order(hint=hint, algorithm=name)) for name in ("svm", "small-cnn"))
    for size in (1, 3, 7, len(data)):
        frames = Frames()
        found = [order for at in range(0, len(data), size) for order in frames.orders(data[at : at + size])]
        assert [order.algorithm for order in found] == ["svm", "small-cnn"]


def test_a_report_fits_into_one_write_of_a_pipe() -> None:
    longest = Report(kind="said", pid=2**22, text="x" * 2000, hint=RunHint(task="t" * 63, run=10**9, attempt=9))
    assert len(frame(longest)) < 4096
    assert msgspec.structs.asdict(Frames().reports(frame(longest))[0]) == msgspec.structs.asdict(longest)
