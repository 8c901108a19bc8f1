"""The train role as real processes on a real broker: closed loop, kills, cancellation, rollback; nothing lost, nothing twice."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sklearn.datasets import load_digits

from datastore_layout.labels import LabelLog
from datastore_layout.models import list_versions, pointer_history, read_manifest
from datastore_layout.root import TaskFolder
from datastore_layout.runs import latest_attempt, list_runs, newest_checkpoint, read_finish, read_run_metrics
from labelloop.errors import ConflictError, RetryableError
from labelloop.messages import (
    CancelRequest,
    ProgressRequest,
    PromoteRequest,
    RunView,
    Sample,
    SubmitRequest,
    TaskRequest,
    TrainRequest,
)
from labelloop.nodefiles import read_activity
from learning.algorithms import default_algorithm
from learning.held_out import is_held_out
from learning.weak import Items as RuledItems
from learning.weak import Rule, apply_rules, fit
from learning.weak.rules import NumberRange
from tests.support_train import TrainNode, digit_files, running_node, until

pytestmark = pytest.mark.slow

SLOW = {"algorithm": "small-cnn", "parameters": {"width": 8, "batch": 8}, "epoch": 60}  # some seconds of steps
Items = list[tuple[str, str, str]]


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Items:
    return digit_files(tmp_path_factory.mktemp("digits"), 300)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, items: Items) -> Iterator[TrainNode]:
    media = Path(items[0][1].removeprefix("file://")).parent
    with running_node(tmp_path_factory.mktemp("node"), media, requeue_after_s=1.0, lease_s=2.0, checkpoint_s=0.05) as found:
        found.start("data", "train", "rpc")
        yield found


def end_of(node: TrainNode, task: str, run: int) -> RunView:
    """Wait for the end of a run."""

    def look() -> RunView | None:
        view = node.progress(task).run
        return view if view is not None and view.run == run and view.state not in ("queued", "running") else None

    return until(look, f"the end of run {run} of {task}")


def until_training(node: TrainNode, folder: TaskFolder, run: int) -> int:
    """Wait until an attempt has left a checkpoint behind; return the process id of the newest attempt."""
    until(lambda: newest_checkpoint(folder, run), f"a checkpoint of run {run}")
    return pid_of(node, folder, run)


def pid_of(node: TrainNode, folder: TaskFolder, run: int) -> int:
    def look() -> int | None:
        lines = [line for line in node.log("train").splitlines() if f"task={folder.task} " in line]
        found = re.findall(rf"run {run} attempt {latest_attempt(folder, run)} is trained by process (\d+)", "\n".join(lines))
        return int(found[-1]) if found else None

    return until(look, "the process that trains")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_labels_become_a_served_version_and_a_person_may_go_back_and_forth(node: TrainNode, items: Items) -> None:
    folder = node.open_task("loop")
    node.submit("loop", items[:19], "b1")
    until(lambda: node.progress("loop").labels == 19, "19 labels in the log")
    assert node.progress("loop").next_training == "next training in 1 label"
    node.submit("loop", items[19:30], "b2")
    first = end_of(node, "loop", 1)
    assert (first.state, first.attempt, first.labels) == ("done", 1, 30)
    assert first.metrics["held_out"] >= 1
    assert node.progress("loop").serving == first.version
    manifest = read_manifest(folder, first.version)
    default = default_algorithm("image-classification", "raw-pixels-8g", False)
    assert (manifest.algorithm, manifest.encoder, manifest.run, manifest.n_labels) == (
        default,
        "raw-pixels-8g",
        1,
        30,
    )
    assert manifest.labels == tuple("0123456789")
    assert {"python", "numpy", "scikit-learn"} <= manifest.libraries.keys()
    assert manifest.preprocess
    with pytest.raises(ConflictError, match="no earlier"):
        node.client.rollback(TaskRequest(task="loop"))
    node.submit("loop", items[30:130], "b3")
    second = end_of(node, "loop", 2)
    assert node.progress("loop").serving == second.version
    assert read_manifest(folder, second.version).parent == first.version
    back = node.client.rollback(TaskRequest(task="loop"))
    assert (back.version, back.pointer) == (first.version, 3)
    forth = node.client.promote(PromoteRequest(task="loop", version=second.version))
    assert (forth.version, forth.pointer) == (second.version, 4)
    models = node.client.models(TaskRequest(task="loop"))
    assert [(v.version, v.is_serving, v.was_served) for v in models.versions] == [
        (second.version, True, True),
        (first.version, False, True),
    ]
    assert [run.run for run in models.runs] == [2, 1]


RULES: tuple[Rule, ...] = (  # what the pixels of a nought and of a one are like, 0 to 16
    NumberRange(name="empty middle", label=0, field="p28", at_most=2),
    NumberRange(name="empty middle, too", label=0, field="p36", at_most=2),
    NumberRange(name="full middle", label=1, field="p28", at_least=9),
    NumberRange(name="full middle, too", label=1, field="p36", at_least=9),
    NumberRange(name="dark left", label=0, field="p34", at_least=7),
)


def test_labels_by_rules_and_a_few_by_people_train_a_version_better_than_the_majority(node: TrainNode, items: Items) -> None:
    pixels = load_digits().data
    chosen = [n for n, (_, _, label) in enumerate(items) if label in ("0", "1")]
    people = [n for n in chosen if is_held_out(items[n][0], node.settings.train.held_out_share)]
    rest = [n for n in chosen if n not in people]
    columns = {f"p{place}": pixels[rest, place] for place in (28, 34, 36)}
    votes = apply_rules(RULES, RuledItems(columns), 2)
    proba, is_covered = fit(votes, 2).predict(votes)
    node.open_task("rules", labels=("0", "1"))
    weak = tuple(
        Sample(item_id=items[n][0], link=items[n][1], labels=(("0", "1")[p.argmax()],), proba=tuple(p.tolist()))
        for n, p, covered in zip(rest, proba.astype(float), is_covered, strict=True)
        if covered
    )
    node.client.submit(SubmitRequest(task="rules", batch_id="weak", samples=weak))
    until(lambda: "none is in the held-out part yet" in node.progress("rules").next_training, "the reason why none trains yet")
    node.submit("rules", [items[n] for n in people], "people")
    view = end_of(node, "rules", 1)
    progress = node.progress("rules")
    assert (progress.labels, progress.weak_labels) == (len(people) + len(weak), len(weak))
    assert (view.state, progress.serving) == ("done", view.version), view.reason
    assert view.metrics["held_out"] == len(people)  # judged on what people said alone
    truths = Counter(items[n][2] for n in people)
    assert view.metrics["accuracy"] > truths.most_common(1)[0][1] / truths.total() + 0.2


def test_a_run_killed_in_the_middle_goes_on_with_the_very_losses_of_an_undisturbed_one(node: TrainNode, items: Items) -> None:
    whole = node.open_task("whole", **SLOW)
    killed = node.open_task("killed", **SLOW)
    node.submit("whole", items[:30], "b1")
    assert end_of(node, "whole", 1).state == "done"
    node.submit("killed", items[:30], "b1")
    pid = until_training(node, killed, 1)
    os.kill(pid, signal.SIGKILL)
    view = end_of(node, "killed", 1)
    assert (view.state, view.attempt) == ("done", 2), view.reason
    undisturbed = {point.step: point.loss for point in read_run_metrics(whole, 1)}
    disturbed = {point.step: point.loss for point in read_run_metrics(killed, 1)}
    assert len(undisturbed) > 30
    assert disturbed == undisturbed
    assert view.metrics == end_of(node, "whole", 1).metrics
    assert len(list_versions(killed)) == 1


def test_a_killed_role_process_takes_its_training_along_and_the_next_one_takes_over(node: TrainNode, items: Items) -> None:
    folder = node.open_task("role", **SLOW)
    node.submit("role", items[:30], "b1")
    pid = until_training(node, folder, 1)
    node.kill("train")
    until(lambda: not is_alive(pid), "the end of the training process")
    node.start("train")
    view = end_of(node, "role", 1)
    assert (view.state, view.attempt) == ("done", 2), view.reason
    assert list_runs(folder) == (1,)
    assert len(list_versions(folder)) == 1


def test_a_cancelled_training_is_killed_and_never_published(node: TrainNode, items: Items) -> None:
    folder = node.open_task("cancel", **SLOW)
    node.submit("cancel", items[:30], "b1")
    pid = until_training(node, folder, 1)
    state = Path(node.config.state_dir)
    said = re.compile(r"cancel: run 1 attempt 1, \d+ of \d+ steps")
    until(lambda: said.fullmatch(read_activity(state, "train-worker")), "its steps in status")
    assert node.client.cancel(CancelRequest(task="cancel", run=1, reason="wrong labels")).state == "cancelled"
    until(lambda: not is_alive(pid), "the end of the training process")
    until(lambda: not read_activity(state, "train-worker"), "an idle worker in status")
    assert list_versions(folder) == ()
    end = read_finish(folder, 1)
    assert end is not None
    assert (end.state, end.reason, latest_attempt(folder, 1)) == ("cancelled", "wrong labels", 1)


def test_a_rollback_beats_a_run_that_began_before_it(node: TrainNode, items: Items) -> None:
    folder = node.open_task("back")
    node.submit("back", items[:30], "b1")
    first = end_of(node, "back", 1)
    node.submit("back", items[30:100], "b2")
    end_of(node, "back", 2)
    request = TrainRequest(task="back", algorithm="small-cnn", parameters={"width": 8, "batch": 1})  # some seconds of steps
    assert node.client.train(request).run == 3
    until_training(node, folder, 3)
    node.client.rollback(TaskRequest(task="back"))
    third = end_of(node, "back", 3)
    assert third.state == "done"
    assert "a person chose" in third.reason
    assert node.progress("back").serving == first.version
    assert [pointer.version for pointer in pointer_history(folder)][-1] == first.version


def test_killing_train_rpc_and_emptying_the_broker_loses_and_doubles_nothing(node: TrainNode, items: Items) -> None:
    folder = node.open_task("kills")
    accepted: list[str] = []

    def submit() -> None:
        for n in range(0, 240, 4):
            part = items[n : n + 4]

            def send(part: Items = part, batch: str = f"b{n}") -> bool:
                node.submit("kills", part, batch)
                return True

            until(send, f"batch {n}")
            accepted.extend(item for item, _, _ in part)

    thread = threading.Thread(target=submit)
    thread.start()
    until(lambda: len(accepted) > 60, "60 labels accepted")
    node.kill("rpc")
    node.start("rpc")
    until(lambda: len(accepted) > 120, "120 labels accepted")
    node.flush_broker()
    node.kill("data")
    node.start("data")
    thread.join()
    until(lambda: {s.state for s in node.progress("kills", items[:240]).states} == {"done"}, "all labels done")
    log = LabelLog(folder)
    counts = Counter(row.item_id for row in log.refresh())
    assert counts == {item: 1 for item, _, _ in items[:240]}
    assert {row.labels[0] for row in log.merged().values()} == set("0123456789")
    until(lambda: "next training in" in node.progress("kills").next_training, "the last training")
    ends = [read_finish(folder, run) for run in list_runs(folder)]
    assert all(end is not None and end.state == "done" for end in ends)
    runs = Counter(read_manifest(folder, version).run for version in list_versions(folder))
    assert set(runs.values()) == {1}


def test_an_unknown_task_is_told_apart_from_a_train_rpc_that_is_away(node: TrainNode) -> None:
    with pytest.raises(Exception, match="not known here") as caught:
        node.client.progress(ProgressRequest(task="nowhere"))
    assert not isinstance(caught.value, RetryableError)


def test_the_role_process_holds_no_model_library(node: TrainNode) -> None:
    maps = Path(f"/proc/{node.processes['train'].pid}/maps").read_text()
    assert not re.search(r"torch|sklearn|numpy|onnxruntime|tensorflow", maps)
