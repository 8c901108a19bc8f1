"""Trainings: what each run is, how it ended, and whether a person cancelled it.

Owns `Snapshot/run-<n>/` but for what its attempts write below their own folders (see `attempts`, whose names are offered
here too). A run exists once its file `run` does; a folder without one is a number that a crash burned. Must never change a
run or its end: the first one to write it wins. Called by the train role.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from datastore_layout.attempts import (
    Attempt,
    Checkpoint,
    MetricsPoint,
    claim_attempt,
    latest_attempt,
    list_checkpoints,
    newest_checkpoint,
    read_run_metrics,
    run_names,
)
from datastore_layout.envelope import seal, unseal
from datastore_layout.files import claim_dir, create_exclusive, exists, list_numbers, read_file
from datastore_layout.root import TaskFolder
from labelloop.errors import NotFoundError
from labelloop.messages import Message

__all__ = [
    "Attempt",
    "Cancel",
    "Checkpoint",
    "Finish",
    "MetricsPoint",
    "RunSpec",
    "cancel_reason",
    "claim_attempt",
    "create_run",
    "finish",
    "latest_attempt",
    "list_checkpoints",
    "list_runs",
    "newest_checkpoint",
    "read_finish",
    "read_run",
    "read_run_metrics",
    "request_cancel",
]

EndState = Literal["done", "failed", "cancelled"]


class RunSpec(Message, frozen=True, kw_only=True):
    """What one training does; `run` is filled in by `create_run`. `created` is for people, seconds since 1970."""

    run: int = 0
    algorithm: str
    encoder: str
    parameters: dict[str, Any] = {}
    epoch: int = 0
    seed: int = 0
    label_position: str = ""
    n_labels: int = 0
    start_version: str = ""
    reason: str = ""
    created: float = 0.0


class Finish(Message, frozen=True, kw_only=True):
    """How a run ended; `version` '' = nothing was published; `seconds` in all, 0 = not told."""

    state: EndState
    reason: str
    version: str = ""
    seconds: float = 0.0


class Cancel(Message, frozen=True, kw_only=True):
    """A person's wish to stop a run."""

    reason: str


def create_run(folder: TaskFolder, spec: RunSpec) -> int:
    """Create the next run with `spec` and return its number; of several callers each gets one of its own.

    Raises StorageFullError.
    """
    where = folder.ready("Snapshot")
    number = max(list_numbers(where, "run-"), default=0) + 1
    while not claim_dir(where / f"run-{number}"):
        number += 1
    filled = msgspec.structs.replace(spec, run=number)
    create_exclusive(where / f"run-{number}" / "run", *seal("run", filled, is_text=True))
    return number


def read_run(folder: TaskFolder, run: int) -> RunSpec:
    """Return a run. Raises NotFoundError, IntegrityError."""
    path = folder.below(*run_names(run), "run")
    return unseal("run", read_file(path), RunSpec, path)


def list_runs(folder: TaskFolder) -> tuple[int, ...]:
    """Return the numbers of all runs, rising."""
    where = folder.below("Snapshot")
    return tuple(n for n in list_numbers(where, "run-") if exists(where / f"run-{n}" / "run"))


def finish(folder: TaskFolder, run: int, state: EndState, reason: str, version: str = "", seconds: float = 0.0) -> bool:
    """Record how a run ended; False when it has an end already, which stays. Raises NotFoundError, StorageFullError."""
    read_run(folder, run)
    end = Finish(state=state, reason=reason, version=version, seconds=seconds)
    return create_exclusive(folder.ready(*run_names(run)) / "finish", *seal("finish", end, is_text=True))


def read_finish(folder: TaskFolder, run: int) -> Finish | None:
    """Return how a run ended, None while it has not. Raises IntegrityError."""
    path = folder.below(*run_names(run), "finish")
    try:
        return unseal("finish", read_file(path), Finish, path)
    except NotFoundError:
        return None


def request_cancel(folder: TaskFolder, run: int, reason: str) -> bool:
    """Ask for a run to stop; False when somebody did before. Raises NotFoundError, StorageFullError."""
    read_run(folder, run)
    return create_exclusive(folder.ready(*run_names(run)) / "cancel", *seal("cancel", Cancel(reason=reason), is_text=True))


def cancel_reason(folder: TaskFolder, run: int) -> str | None:
    """Return why a run should stop, None = it should not. One failed open when nobody asked. Raises IntegrityError."""
    path = folder.below(*run_names(run), "cancel")
    try:
        return unseal("cancel", read_file(path), Cancel, path).reason
    except NotFoundError:
        return None
