"""What a task is: its category and settings, as numbered immutable files `Preprocess/spec/<revision>`.

Owns the rule that the highest revision holds and none is ever changed. Called by `open_task` (write) and all roles (read).
"""

from __future__ import annotations

from datastore_layout.envelope import seal, unseal
from datastore_layout.files import create_exclusive, list_numbers, read_file
from datastore_layout.root import TaskFolder
from labelloop.errors import ConflictError, InvalidInputError, NotFoundError
from labelloop.messages import TaskSpec

_WHERE = ("Preprocess", "spec")


def save_spec(folder: TaskFolder, spec: TaskSpec) -> None:
    """Save `spec` under its revision; saving the newest one again is harmless.

    Raises ConflictError when a higher revision, or other settings under the same one, were saved before; InvalidInputError
    when the spec is another task's or its revision is below 1.
    """
    if spec.task != folder.task:
        raise InvalidInputError(f"spec of task {spec.task!r} does not belong into the folder of {folder.task!r}")
    if spec.revision < 1:
        raise InvalidInputError(f"revision {spec.revision} of task {spec.task!r} is below 1")
    path = folder.ready(*_WHERE)
    newest = max(list_numbers(path), default=0)
    if spec.revision < newest:
        raise ConflictError(f"task {spec.task!r} is at revision {newest}, {spec.revision} is older: send a higher one")
    if create_exclusive(path / str(spec.revision), *seal("spec", spec, is_text=True)):
        return
    if _read(folder, spec.revision) != spec:
        raise ConflictError(f"revision {spec.revision} of task {spec.task!r} has other settings: send a higher revision")


def read_spec(folder: TaskFolder) -> TaskSpec:
    """Return the newest spec. Raises NotFoundError for a task that was never opened, IntegrityError."""
    numbers = list_numbers(folder.below(*_WHERE))
    if not numbers:
        raise NotFoundError(f"task {folder.task!r} is not known here: open it first")
    return _read(folder, numbers[-1])


def _read(folder: TaskFolder, revision: int) -> TaskSpec:
    path = folder.below(*_WHERE, str(revision))
    return unseal("spec", read_file(path), TaskSpec, path)
