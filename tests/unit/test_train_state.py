"""What submit answers and what progress knows, on a real folder."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest

from datastore_layout.intake_files import list_intake, read_intake
from datastore_layout.labels import LabelRow, write_segment
from datastore_layout.root import TaskFolder, create_root, task_folder
from datastore_layout.tasks import save_spec
from labelloop.errors import ConflictError, NotFoundError, StorageFullError
from labelloop.messages import ItemKey, Sample, SubmitReply, SubmitRequest, TaskExtraInfo, TaskSpec
from labelloop.settings import TrainSettings
from roles.train import task_state
from roles.train.task_state import TaskState

SPEC = TaskSpec(task="digits", category="image-classification", extra=TaskExtraInfo(labels=("0", "1")))


@pytest.fixture
def folder(tmp_path: Path) -> TaskFolder:
    found = task_folder(create_root(tmp_path / "store", "c1"), "digits")
    save_spec(found, SPEC)
    return found


@pytest.fixture
def state(folder: TaskFolder) -> TaskState:
    return TaskState(folder, TrainSettings())


def sample(item: str, label: str = "0", revision: int = 1) -> Sample:
    return Sample(item_id=item, link=f"file:///{item}.png", labels=(label,), revision=revision)


def submit(state: TaskState, batch: str, *samples: Sample) -> SubmitReply:
    return state.submit(SubmitRequest(task="digits", batch_id=batch, samples=samples), 0.0)[0]


def where(state: TaskState, item: str, revision: int = 1) -> str:
    return state.state_of(ItemKey(item_id=item, revision=revision)).state


def test_a_task_that_was_never_opened_is_not_found(folder: TaskFolder) -> None:
    with pytest.raises(NotFoundError):
        TaskState(task_folder(folder.root, "other"), TrainSettings())


def test_bad_samples_are_rejected_one_by_one_and_good_ones_are_durable(folder: TaskFolder, state: TaskState) -> None:
    reply = submit(state, "b1", sample("a"), sample("b", "7"), sample("c"))
    assert reply.accepted == 2
    assert [(one.item_id, one.code) for one in reply.rejected] == [("b", "invalid_input")]
    assert [s.item_id for s in read_intake(folder, "b1").samples] == ["a", "c"]
    assert (where(state, "a"), where(state, "b"), where(state, "c")) == ("waiting", "unknown", "waiting")


def test_the_same_batch_again_gives_the_same_answer_and_writes_nothing(folder: TaskFolder, state: TaskState) -> None:
    samples = (sample("a"), sample("b", "7"), sample("a", "1"))
    first = submit(state, "b1", *samples)
    assert first.accepted == 1
    assert submit(state, "b1", *samples) == first
    assert submit(TaskState(folder, TrainSettings()), "b1", *samples) == first
    assert list_intake(folder) == ("b1",)


def test_the_same_identity_with_other_content_is_a_conflict_of_that_item_alone(state: TaskState) -> None:
    submit(state, "b1", sample("a"))
    reply = submit(state, "b2", sample("a", "1"), sample("b"))
    assert reply.accepted == 1
    assert [(one.item_id, one.code) for one in reply.rejected] == [("a", "conflict")]
    assert submit(state, "b3", sample("a", "1", revision=2)).accepted == 1


def test_a_known_sample_under_a_new_batch_is_accepted_without_another_file(folder: TaskFolder, state: TaskState) -> None:
    submit(state, "b1", sample("a"))
    assert submit(state, "b2", sample("a")).accepted == 1
    assert list_intake(folder) == ("b1",)


def by_rules(item: str, revision: int = 1) -> Sample:
    return msgspec.structs.replace(sample(item, revision=revision), proba=(0.8, 0.2))


def test_a_person_replaces_what_rules_said_and_rules_never_replace_a_person(folder: TaskFolder, state: TaskState) -> None:
    assert submit(state, "b1", by_rules("a"), by_rules("b")).accepted == 2
    assert submit(state, "b2", sample("a", "1", revision=2), sample("c")).accepted == 2
    rows = (("b1", "a", 1, "0", (0.8, 0.2)), ("b1", "b", 1, "0", (0.8, 0.2)), ("b2", "a", 2, "1", ()), ("b2", "c", 1, "0", ()))
    for batch in ("b1", "b2"):
        made = tuple(LabelRow(i, rev, f"file:///{i}.png", (label,), proba=p) for b, i, rev, label, p in rows if b == batch)
        write_segment(folder, batch, made)
    state.refresh()
    assert (state.tally.labels, state.tally.weak_labels) == (2, 1)
    assert state.log.latest_of("a").labels == ("1",)  # type: ignore[union-attr]
    reply = submit(state, "b3", by_rules("a", 3), by_rules("b", 2), by_rules("c", 2), by_rules("a", 1))
    assert [(one.item_id, one.code) for one in reply.rejected] == [("a", "conflict"), ("c", "conflict")]
    assert "a person has labelled item 'a'" in reply.rejected[0].reason
    assert reply.accepted == 2  # b again, and what was known of a


def test_a_batch_id_used_for_other_samples_is_refused(state: TaskState) -> None:
    submit(state, "b1", sample("a"))
    with pytest.raises(ConflictError, match="b1"):
        submit(state, "b1", sample("b"))
    assert where(state, "b") == "unknown"


def test_a_label_added_a_moment_ago_is_known(folder: TaskFolder, state: TaskState) -> None:
    save_spec(folder, msgspec.structs.replace(SPEC, revision=2, extra=TaskExtraInfo(labels=("0", "1", "7"))))
    assert submit(state, "b1", sample("a", "7")).accepted == 1


def test_progress_follows_an_item_from_waiting_to_done_or_failed(folder: TaskFolder, state: TaskState) -> None:
    submit(state, "b1", sample("a"), sample("b"))
    assert list(state.waiting) == ["b1"]
    good = LabelRow("a", 1, "file:///a.png", ("0",), shard="s1", row=0)
    bad = LabelRow("b", 1, "file:///b.png", ("0",), error_code="unreadable_item", error_reason="no picture")
    write_segment(folder, "b1", (good, bad))
    assert state.refresh() == 2
    assert where(state, "a") == "done"
    failed = state.state_of(ItemKey(item_id="b", revision=1))
    assert (failed.state, failed.reason) == ("failed", "unreadable_item: no picture")
    assert not state.waiting
    assert state.tally.labels == 1


def test_a_restart_knows_what_was_accepted_and_what_still_waits(folder: TaskFolder, state: TaskState) -> None:
    submit(state, "b1", sample("a"))
    submit(state, "b2", sample("b"))
    write_segment(folder, "b1", (LabelRow("a", 1, "file:///a.png", ("0",), shard="s1", row=0),))
    again = TaskState(folder, TrainSettings())
    again.refresh()
    again.find_waiting(5.0)
    assert (where(again, "a"), where(again, "b")) == ("done", "waiting")
    assert list(again.due_batches(5.0, 60.0)) == ["b2"]


def test_hints_of_a_batch_come_ever_more_rarely(state: TaskState) -> None:
    submit(state, "b1", sample("a"))
    hinted = [now for now in range(100) if list(state.due_batches(float(now), 20.0))]
    assert hinted == [3, 6, 12, 24, 44, 64, 84]


def test_a_full_disk_leaves_nothing_behind_and_the_next_try_succeeds(state: TaskState, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bool:
        raise StorageFullError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(task_state, "write_intake", full)
        with pytest.raises(StorageFullError):
            submit(state, "b1", sample("a"))
    assert where(state, "a") == "unknown"
    assert submit(state, "b1", sample("a", "1")).accepted == 1


def test_many_threads_submit_the_same_items_and_no_answer_comes_before_its_label_is_durable(
    folder: TaskFolder, state: TaskState
) -> None:
    items = [f"i{n}" for n in range(40)]
    failures: list[str] = []

    def work(name: str) -> None:
        for item in items:
            submit(state, f"{name}-{item}", sample(item))
            durable = {s.item_id for batch in list_intake(folder) for s in read_intake(folder, batch).samples}
            if item not in durable:
                failures.append(f"{name} {item}")

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {where(state, item) for item in items} == {"waiting"}
