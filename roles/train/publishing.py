"""Who serves: promotions, rollbacks and the gate's moves of one task's pointer, each by compare-and-set.

Owns the words by which a pointer says who moved it. Must never load a model. Called by train_rpc (promote, rollback) and the
training child (settle). A pointer that a person moved beats every run that began before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from datastore_layout.models import Pointer, advance, current, list_versions, pointer_history, read_manifest
from datastore_layout.root import TaskFolder
from labelloop.errors import BusyError, ConflictError
from roles.train.gate import Gate

PROMOTED = "promoted: "
ROLLED_BACK = "rolled back: "
_LOST_RACES = 20


class Settlement(msgspec.Struct, frozen=True):
    """What became of a new version: whether it serves, why, and the pointer's number."""

    is_served: bool
    reason: str
    number: int


def is_by_person(pointer: Pointer) -> bool:
    """Return whether a person moved the pointer here."""
    return pointer.reason.startswith((PROMOTED, ROLLED_BACK))


def served_before(history: Sequence[Pointer]) -> list[str]:
    """Return the versions a rollback can go back through, the serving one last: a rollback takes back what came after."""
    stack: list[str] = []
    for pointer in history:
        if pointer.reason.startswith(ROLLED_BACK) and pointer.version in stack:
            del stack[stack.index(pointer.version) + 1 :]
        elif not stack or stack[-1] != pointer.version:
            stack.append(pointer.version)
    return stack


def promote(folder: TaskFolder, version: str, reason: str) -> Pointer:
    """Serve `version` whatever the gate said. Raises NotFoundError, IntegrityError, BusyError when others move all the time."""
    read_manifest(folder, version)
    return _move(folder, lambda _: (version, f"{PROMOTED}{reason}"))


def rollback(folder: TaskFolder) -> Pointer:
    """Serve the version that served before the current one. Raises ConflictError when there is none."""
    existing = frozenset(list_versions(folder))

    def choose(history: Sequence[Pointer]) -> tuple[str, str]:
        stack = served_before(history)
        before = [version for version in stack[:-1] if version in existing]
        if not before:
            raise ConflictError(f"task {folder.task!r} has no earlier served version to roll back to")
        return before[-1], f"{ROLLED_BACK}{stack[-1]} was taken back by a person"

    return _move(folder, choose)


def _move(folder: TaskFolder, choose: Callable[[Sequence[Pointer]], tuple[str, str]]) -> Pointer:
    for _ in range(_LOST_RACES):
        history = pointer_history(folder)
        number = history[-1].number if history else 0
        version, reason = choose(history)
        if advance(folder, number, version, reason):
            return Pointer(number=number + 1, version=version, reason=reason)
    raise BusyError(f"the pointer of task {folder.task!r} moved {_LOST_RACES} times meanwhile: try again")


def settle(folder: TaskFolder, version: str, ask: Callable[[Pointer | None, bool], tuple[Gate, str]], began_at: int) -> Settlement:
    """Let the gate decide about a new version and move the pointer; when somebody else moved it first, ask again.

    `ask(pointer, moved_by_person)` is the gate over the version that serves now; `began_at` the pointer's number when the run
    began. Raises BusyError when the pointer moves all the time.
    """
    for _ in range(_LOST_RACES):
        pointer = current(folder)
        number = pointer.number if pointer else 0
        if pointer is not None and pointer.version == version:
            return Settlement(True, pointer.reason, number)
        decision, reason = ask(pointer, _was_moved_by_person(folder, began_at))
        if decision is Gate.KEEP:
            return Settlement(False, reason, number)
        if advance(folder, number, version, reason):
            return Settlement(True, reason, number + 1)
    raise BusyError(f"the pointer of task {folder.task!r} moved {_LOST_RACES} times meanwhile: try again")


def _was_moved_by_person(folder: TaskFolder, began_at: int) -> bool:
    return any(is_by_person(pointer) for pointer in pointer_history(folder) if pointer.number > began_at)
