"""What a run learns from, frozen when the run is made: `Snapshot/run-<n>/training-set`.

Owns that one file, so that every attempt of a run sees the same rows in the same order whatever the label log has become, and
no attempt reads the log at all. Written by the train master before it hints the run, read by the training children.
"""

from __future__ import annotations

from datastore_layout.envelope import seal, unseal
from datastore_layout.files import create_exclusive, read_file
from datastore_layout.labels import LabelRow
from datastore_layout.root import TaskFolder
from labelloop.errors import NotFoundError
from labelloop.messages import Message, TaskSpec

_NAME = "training-set"


class TrainingSet(Message, frozen=True, kw_only=True):
    """The merged rows at the run's label position, the task as it was, and the pointer's number when the run began."""

    spec: TaskSpec
    rows: tuple[LabelRow, ...]
    pointer: int = 0


def write_training_set(folder: TaskFolder, run: int, training_set: TrainingSet) -> bool:
    """Freeze the training set of a run that was created; the first one stays, False = there was one. Raises StorageFullError."""
    return create_exclusive(folder.ready("Snapshot", f"run-{run}") / _NAME, *seal("training-set", training_set))


def read_training_set(folder: TaskFolder, run: int) -> TrainingSet | None:
    """Return what a run learns from, None when it was not frozen yet. Raises IntegrityError."""
    path = folder.below("Snapshot", f"run-{run}", _NAME)
    try:
        return unseal("training-set", read_file(path), TrainingSet, path)
    except NotFoundError:
        return None
