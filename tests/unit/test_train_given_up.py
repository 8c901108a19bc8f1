"""What a dead letter about a batch of labels leaves in the label log, on a real folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from datastore_layout.intake_progress import BatchProgress
from datastore_layout.root import Root, TaskFolder, create_root, task_folder
from datastore_layout.tasks import save_spec
from labelloop.messages import ItemKey, Sample, SubmitRequest, TaskExtraInfo, TaskSpec, encode
from labelloop.settings import TrainSettings
from roles.dead_letters import DeadLetter
from roles.hints import INTAKE_TASK, RUN_TASK, IntakeHint
from roles.train.given_up import GivenUp
from roles.train.task_state import TaskState
from roles.train.tasks import Tasks

SPEC = TaskSpec(task="digits", category="image-classification", extra=TaskExtraInfo(labels=("0", "1")))
LETTER = DeadLetter(INTAKE_TASK, encode(IntakeHint(task="digits", batch_id="b")), "train.t1.data", "delivery_limit")


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return create_root(tmp_path / "store", "c1")


@pytest.fixture
def folder(root: Root) -> TaskFolder:
    found = task_folder(root, "digits")
    save_spec(found, SPEC)
    return found


@pytest.fixture
def tasks(root: Root, folder: TaskFolder) -> Tasks:
    return Tasks(root, TrainSettings())


def submit(tasks: Tasks, now_s: float) -> TaskState:
    """Submit batch b; its first hint is sent, the next one is due seconds later."""
    state = tasks.get("digits").state
    samples = tuple(Sample(item_id=i, link=f"file:///{i}.png", labels=("0",), revision=1) for i in ("a", "c"))
    state.submit(SubmitRequest(task="digits", batch_id="b", samples=samples), now_s)
    assert not list(state.due_batches(now_s, 60.0))
    return state


def where(state: TaskState) -> list[tuple[str, str]]:
    state.refresh()
    found = [state.state_of(ItemKey(item_id=i, revision=1)) for i in ("a", "c")]
    return [(one.state, one.reason) for one in found]


def test_a_letter_makes_the_sweep_hint_the_batch_again_at_once(tasks: Tasks) -> None:
    state = submit(tasks, 0.0)
    woken: list[int] = []
    GivenUp(tasks, lambda: woken.append(1)).take(LETTER)
    assert woken
    assert list(state.due_batches(0.0, 60.0)) == ["b"]
    assert [found for found, _ in where(state)] == ["waiting", "waiting"]


def test_a_batch_that_kills_its_workers_before_it_begins_is_answered_as_failed_after_two_letters(tasks: Tasks) -> None:
    state = submit(tasks, 0.0)
    given_up = GivenUp(tasks, lambda: None)
    given_up.take(LETTER)
    given_up.take(LETTER)
    assert [found for found, _ in where(state)] == ["failed", "failed"]
    assert "the broker gave it up 2 times" in where(state)[0][1]
    assert not list(state.due_batches(1e9, 60.0))


def test_a_batch_whose_attempts_are_marked_is_left_to_be_cornered(tasks: Tasks, folder: TaskFolder) -> None:
    state = submit(tasks, 0.0)
    BatchProgress(folder, "b").record_attempt("0-2", "t1.1.1")
    given_up = GivenUp(tasks, lambda: None)
    for _ in range(5):
        given_up.take(LETTER)
    assert [found for found, _ in where(state)] == ["waiting", "waiting"]


def test_a_letter_about_a_run_or_a_batch_that_is_gone_changes_nothing(tasks: Tasks, folder: TaskFolder) -> None:
    given_up = GivenUp(tasks, lambda: None)
    given_up.take(DeadLetter(RUN_TASK, b"", "train.t1.run", "delivery_limit"))
    for _ in range(3):
        given_up.take(LETTER)
    assert not tasks.get("digits").state.log.segments
