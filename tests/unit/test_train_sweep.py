"""What the sweep does in one cycle, on a real folder, with a clock that the test holds and hints that are only written down."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from datastore_layout.decisions import decide_once
from datastore_layout.labels import LabelRow, write_segment
from datastore_layout.models import Manifest, advance, publish_model
from datastore_layout.root import TaskFolder, create_root, task_folder
from datastore_layout.runs import Attempt, claim_attempt, finish, list_runs, read_finish, read_run, request_cancel
from datastore_layout.tasks import save_spec
from datastore_layout.training_sets import read_training_set
from labelloop.errors import BusyError, ConflictError, InvalidInputError, NotFoundError, NotReadyError
from labelloop.messages import (
    CancelRequest,
    Draft,
    ProgressRequest,
    RunLogReply,
    RunLogRequest,
    Sample,
    SubmitRequest,
    TaskExtraInfo,
    TaskRequest,
    TaskSpec,
    TrainRequest,
)
from labelloop.nodefiles import ALONE, Machines, why_alone, write_machines
from labelloop.settings import Settings, TrainSettings
from labelloop.tls import ANONYMOUS, Peer
from learning.algorithms import default_algorithm
from learning.held_out import is_held_out
from roles.train.hinter import Hinter
from roles.train.rpc import _unless_alone
from roles.train.service import TrainService
from roles.train.sweep import Sweep
from roles.train.task_state import TaskView
from roles.train.tasks import Tasks

ENCODER = "raw-pixels-8g"
DEFAULT = default_algorithm("image-classification", ENCODER, False)
SETTINGS = Settings(train=TrainSettings(first_labels=10, comparer_labels=5, attempts=2))


class WrittenDown(Hinter):
    """A hinter that sends nothing."""

    def __init__(self) -> None:
        super().__init__(lambda *_: None, "n1")
        self.hints: list[tuple[object, ...]] = []

    def intake(self, task: str, batch_id: str) -> None:
        self.hints.append(("intake", batch_id))

    def run(self, task: str, run: int, attempt: int) -> None:
        self.hints.append(("run", run, attempt))

    def take(self) -> list[tuple[object, ...]]:
        taken, self.hints = self.hints, []
        return taken


class Master:
    """A train master whose threads are not started: each cycle is the test's own."""

    def __init__(self, folder: TaskFolder) -> None:
        self.now_s = 1000.0
        self.folder = folder
        self.hinter = WrittenDown()
        self.tasks = Tasks(folder.root, SETTINGS.train, self.clock)
        self.alone = ""
        self.sweep = Sweep(folder.root, self.tasks, self.hinter, SETTINGS, self.clock, lambda: self.alone)
        self.service = TrainService(self.tasks, self.hinter, lambda: None, self.clock)

    def clock(self) -> float:
        return self.now_s

    def cycle(self, after_s: float = 0.0) -> TaskView:
        self.now_s += after_s
        self.sweep.cycle()
        return self.tasks.get("digits").state.view

    def label(self, first: int, last: int, label: str = "", draft: Draft | None = None) -> None:
        """Write labels of the items from `first` to below `last` as a data worker would."""
        rows = [
            LabelRow(f"i{n}", 1, f"file:///{n}", (label or str(n % 3),), draft=draft, shard="s1", row=n) for n in range(first, last)
        ]
        write_segment(self.folder, f"seg{first}-{last}-{label}", rows)


@pytest.fixture
def folder(tmp_path: Path) -> TaskFolder:
    found = task_folder(create_root(tmp_path / "store", "c1"), "digits")
    extra = TaskExtraInfo(labels=("0", "1", "2"), target=0.9)
    save_spec(found, TaskSpec(task="digits", category="image-classification", extra=extra))
    decide_once(found, "encoder", ENCODER)
    return found


@pytest.fixture
def master(folder: TaskFolder) -> Master:
    return Master(folder)


def serve(folder: TaskFolder, tmp_path: Path) -> str:
    source = tmp_path / "m"
    source.mkdir()
    (source / "w").write_bytes(b"w")
    manifest = Manifest(task="digits", category="image-classification", labels=("0", "1", "2"), algorithm="x", encoder="y")
    version = publish_model(folder, manifest, source)
    assert advance(folder, 0, version, "first")
    return version


def test_the_threshold_starts_exactly_one_run_over_the_frozen_labels(master: Master, folder: TaskFolder) -> None:
    assert master.cycle().next_training == "next training in 10 labels"
    master.label(0, 9)
    assert master.cycle(1.0).next_training == "next training in 1 label"
    assert any(is_held_out(f"i{n}", 0.2) for n in range(12))
    master.label(9, 12)
    view = master.cycle(1.0)
    assert view.next_training == "training now: run 1"
    assert master.hinter.take() == [("run", 1, 1)]
    assert [master.cycle(0.1).next_training for _ in range(3)] == ["training now: run 1"] * 3
    assert list_runs(folder) == (1,)
    run, frozen = read_run(folder, 1), read_training_set(folder, 1)
    assert (run.algorithm, run.encoder, run.n_labels, run.start_version) == (DEFAULT, ENCODER, 12, "")
    assert frozen is not None
    assert [row.item_id for row in frozen.rows] == [f"i{n}" for n in range(12)]


def test_a_master_that_is_alone_after_a_restart_takes_labels_in_and_starts_no_run(master: Master, folder: TaskFolder) -> None:
    master.alone = ALONE
    master.cycle()
    master.label(0, 12)
    assert master.cycle(1.0).next_training == ALONE
    assert (master.hinter.take(), list_runs(folder)) == ([], ())
    master.alone = ""
    assert master.cycle(1.0).next_training == "training now: run 1"
    assert master.hinter.take() == [("run", 1, 1)]
    master.alone = ALONE
    assert master.cycle(60.0).next_training == ALONE, "a run that lost its worker is not given out either"
    assert master.hinter.take() == []


def test_an_alone_master_refuses_to_train_promote_and_roll_back_and_answers_the_rest(master: Master, tmp_path: Path) -> None:
    write_machines(tmp_path, Machines(epoch=3, is_alone=True))
    handlers = _unless_alone(master.service.handlers(), lambda: why_alone(tmp_path))
    peer = Peer("p", "client", "127.0.0.1")
    for name in ("train", "promote", "rollback"):
        with pytest.raises(NotReadyError, match="alone after a restart"):
            handlers[name](TaskRequest(task="digits"), peer)
    handlers["models"](TaskRequest(task="digits"), peer)
    write_machines(tmp_path, Machines(epoch=3))
    with pytest.raises(ConflictError, match="no earlier served version"):
        handlers["rollback"](TaskRequest(task="digits"), peer)


def test_an_unclaimed_run_is_hinted_again_and_the_page_says_why_nothing_happens(master: Master) -> None:
    master.label(0, 12)
    master.cycle()
    master.hinter.take()
    assert master.cycle(2.0).next_training == "training now: run 1"
    assert master.hinter.take() == []
    master.cycle(1.5)
    assert master.hinter.take() == [("run", 1, 1)]
    assert master.cycle(3.0).next_training == "blocked: run 1 waits for a train worker that is free"


def test_a_dead_lease_brings_the_next_attempt_and_too_many_fail_the_run(master: Master, folder: TaskFolder) -> None:
    master.label(0, 12)
    master.cycle()
    attempt = claim_attempt(folder, 1, 1)
    assert attempt is not None
    master.hinter.take()
    for _ in range(5):
        attempt.renew_lease()
        master.cycle(2.0)
    assert master.hinter.take() == []
    master.cycle(3.1)
    assert master.hinter.take() == [("run", 1, 2)]
    claim_attempt(folder, 1, 2)
    master.cycle(1.0)
    master.cycle(3.1)
    end = read_finish(folder, 1)
    assert end is not None
    assert end.state == "failed"
    assert "2 attempts died" in end.reason
    assert master.cycle(0.1).next_training == "next training in 10 labels"


def test_a_restarted_master_follows_the_live_run_and_counts_from_what_it_learns(master: Master, folder: TaskFolder) -> None:
    master.label(0, 12)
    master.cycle()
    again = Master(folder)
    assert again.cycle().next_training == "training now: run 1"
    assert again.hinter.take() == [("run", 1, 1)]
    finish(folder, 1, "done", "well", "")
    again.label(12, 15)
    assert again.cycle(1.0).next_training == "next training in 7 labels"
    assert Master(folder).cycle().next_training == "next training in 7 labels"
    assert list_runs(folder) == (1,)


def test_a_cancelled_run_is_over_at_once_and_nothing_follows_it(master: Master, folder: TaskFolder) -> None:
    master.label(0, 12)
    master.cycle()
    view = master.service.cancel(CancelRequest(task="digits", run=1, reason="no need"), ANONYMOUS)
    assert (view.state, view.reason) == ("cancelled", "no need")
    assert master.cycle(0.1).next_training == "next training in 10 labels"
    again = master.service.cancel(CancelRequest(task="digits", run=1, reason="other"), ANONYMOUS)
    assert again.reason == "no need"


def test_a_cancellation_that_died_half_way_is_finished_by_the_sweep(master: Master, folder: TaskFolder) -> None:
    master.label(0, 12)
    master.cycle()
    request_cancel(folder, 1, "no need")
    master.cycle(5.0)
    end = read_finish(folder, 1)
    assert end is not None
    assert end.state == "cancelled"


def test_the_comparer_rests_while_the_target_is_met_and_labelling_may_stop(
    master: Master, folder: TaskFolder, tmp_path: Path
) -> None:
    master.label(0, 12)
    master.cycle()
    finish(folder, 1, "done", "well", "")
    version = serve(folder, tmp_path)
    master.label(12, 24, "1", Draft(labels=("1",), version=version))
    view = master.cycle(1.0)
    assert view.next_training.startswith("resting: target reached: 5 of the last 5 drafts were right")
    assert view.stop.startswith("target reached")
    assert view.agreement == 1.0
    assert list_runs(folder) == (1,)
    master.label(24, 30, "2", Draft(labels=("1",), version=version))
    assert master.cycle(1.0).next_training == "training now: run 2"
    assert read_run(folder, 2).start_version == version


def test_a_waiting_batch_is_hinted_again_until_its_segment_is_there(master: Master) -> None:
    sample = Sample(item_id="a", link="file:///a", labels=("0",))
    request = SubmitRequest(task="digits", batch_id="b1", samples=(sample,))
    assert master.service.submit(request, ANONYMOUS).accepted == 1
    assert master.hinter.take() == [("intake", "b1")]
    master.cycle()
    assert master.hinter.take() == []
    master.cycle(3.0)
    assert master.hinter.take() == [("intake", "b1")]
    assert master.cycle(20.0).next_training == "blocked: labels wait for a data worker (batches: 1)"
    write_segment(master.folder, "b1", [LabelRow("a", 1, "file:///a", ("0",), shard="s1", row=0)])
    assert master.cycle(1.0).next_training == "next training in 9 labels"
    master.hinter.take()
    master.cycle(100.0)
    assert master.hinter.take() == []


def test_a_person_may_train_at_any_time_but_not_twice_at_once_nor_without_labels(master: Master) -> None:
    request = TrainRequest(task="digits", parameters={"c": 2.0})
    with pytest.raises(NotReadyError, match="at least 2 classes"):
        master.service.train(request, ANONYMOUS)
    master.label(0, 9)
    master.cycle(1.0)
    reply = master.service.train(request, ANONYMOUS)
    assert (reply.run, reply.reason) == (1, "asked for by a person")
    assert read_run(master.folder, 1).parameters == {"c": 2.0}
    master.cycle()
    assert master.hinter.take() == [("run", 1, 1)]
    with pytest.raises(BusyError, match="run 1"):
        master.service.train(request, ANONYMOUS)


def test_nothing_is_decided_while_the_mount_is_away(master: Master, folder: TaskFolder, caplog: pytest.LogCaptureFixture) -> None:
    master.cycle()
    master.label(0, 12)
    marker = folder.root.path / ".labelloop-root"
    text = marker.read_bytes()
    marker.unlink()
    with caplog.at_level(logging.WARNING):
        master.cycle(1.0)
        master.cycle(1.0)
    assert list_runs(folder) == ()
    assert sum("nothing is decided" in record.message for record in caplog.records) == 1
    marker.write_bytes(text)
    master.cycle(1.0)
    assert list_runs(folder) == (1,)


def test_a_task_in_trouble_says_so_and_does_not_stop_the_others(master: Master, folder: TaskFolder) -> None:
    other = task_folder(folder.root, "other")
    extra = TaskExtraInfo(labels=("0", "1", "2"), algorithm="no-such-algorithm")
    save_spec(other, TaskSpec(task="other", category="image-classification", extra=extra))
    decide_once(other, "encoder", "raw-pixels-8g")
    write_segment(other, "s", [LabelRow(f"i{n}", 1, "file:///x", (str(n % 3),), shard="s1", row=n) for n in range(12)])
    master.label(0, 12)
    master.cycle()
    assert "no-such-algorithm" in master.tasks.get("other").state.view.next_training
    assert master.tasks.get("digits").state.view.next_training == "training now: run 1"


def test_progress_shows_the_live_run_with_its_losses_and_then_its_end(master: Master, folder: TaskFolder) -> None:
    master.label(0, 12)
    master.cycle()
    attempt = claim_attempt(folder, 1, 1)
    assert isinstance(attempt, Attempt)
    attempt.write_metrics(1, 0.9, {"steps": 4})
    attempt.write_metrics(2, 0.5, {"steps": 4})
    master.cycle(0.5)
    reply = master.service.progress(ProgressRequest(task="digits"), ANONYMOUS)
    assert reply.run is not None
    assert (reply.run.state, reply.run.step, reply.run.steps, reply.run.losses) == ("running", 2, 4, ((1, 0.9), (2, 0.5)))
    assert reply.run.seconds == 0.5
    attempt.write_metrics(4, 0.25, {"steps": 4, "accuracy": 0.75})
    finish(folder, 1, "done", "first version", "model-x", 0.7)
    master.cycle(0.1)
    run = master.service.progress(ProgressRequest(task="digits"), ANONYMOUS).run
    assert run is not None
    assert (run.state, run.version, run.loss, run.seconds) == ("done", "model-x", 0.25, 0.7)
    assert run.metrics == {"accuracy": 0.75}
    assert master.service.models(TaskRequest(task="digits"), ANONYMOUS).runs == (run,)


def test_the_end_of_the_newest_attempts_log_is_told(master: Master, folder: TaskFolder) -> None:
    master.label(0, 12)
    master.cycle()
    ask = master.service.run_log
    assert ask(RunLogRequest(task="digits", run=1), ANONYMOUS) == RunLogReply(text="", attempt=0)
    first = claim_attempt(folder, 1, 1)
    assert isinstance(first, Attempt)
    first.append_log("one\ntwo\n")
    second = claim_attempt(folder, 1, 2)
    assert isinstance(second, Attempt)
    second.append_log("three\nfour\n")
    second.append_log("five\n")
    assert ask(RunLogRequest(task="digits", run=1, lines=2), ANONYMOUS) == RunLogReply(text="four\nfive\n", attempt=2)
    with pytest.raises(NotFoundError):
        ask(RunLogRequest(task="digits", run=9), ANONYMOUS)
    with pytest.raises(InvalidInputError, match="use 1 to 10000"):
        ask(RunLogRequest(task="digits", run=1, lines=0), ANONYMOUS)
