"""Who computed a run: the generations of an attempt's membership, and where the ranks of an attempt meet.

Owns `Snapshot/run-<n>/attempt-<k>/{ranks, meeting}`. A generation is written when it begins, now and then, and when it ends, each
time as a new file; the last one holds. Must never be changed by anybody but the attempt's owner. Called by the train role.
"""

from __future__ import annotations

from datastore_layout import files
from datastore_layout.attempts import Attempt, Checkpoint, checkpoint_at, run_names
from datastore_layout.envelope import seal, unseal
from datastore_layout.root import TaskFolder
from labelloop.errors import NotFoundError
from labelloop.messages import Message

_RANKS = "ranks"
_MEETING = "meeting"


class RankRecord(Message, frozen=True, kw_only=True):
    """One rank of a generation: whose process it is, and the steps and items it computed in this generation."""

    rank: int
    node: str
    hostname: str
    pid: int
    steps: int = 0
    items: int = 0


class Generation(Message, frozen=True, kw_only=True):
    """The ranks between two changes of membership, from step `begin` to step `step`; `reason` is why this generation began."""

    number: int
    begin: int
    step: int
    reason: str
    ranks: tuple[RankRecord, ...]


class Checkpointed(Message, frozen=True, kw_only=True):
    """Names one checkpoint of a run; `attempt` 0 = the beginning."""

    attempt: int = 0
    step: int = 0

    def of(self, folder: TaskFolder, run: int) -> Checkpoint | None:
        """Return the checkpoint, None for the beginning; whether it is there shows when its files are read."""
        return checkpoint_at(folder, run, self.attempt, self.step) if self.attempt else None


class Meeting(Message, frozen=True, kw_only=True):
    """Where the ranks of an attempt meet: the store of its owner. The secret that opens it travels in the hints alone."""

    node: str
    host: str
    port: int


def write_generation(attempt: Attempt, generation: Generation) -> None:
    """Write how far a generation is. Raises StorageFullError."""
    attempt.append(_RANKS, *seal("generation", generation, is_text=True))


def read_generations(folder: TaskFolder, run: int) -> tuple[tuple[int, Generation], ...]:
    """Return (attempt, generation) of all attempts at a run, in their order. Raises IntegrityError."""
    found: dict[tuple[int, int], Generation] = {}
    for k in files.list_numbers(folder.below(*run_names(run)), "attempt-"):
        where = folder.below(*run_names(run), f"attempt-{k}", _RANKS)
        for name in files.list_numbers(where):
            path = where / str(name)
            try:
                one = unseal("generation", files.read_file(path), Generation, path)
            except NotFoundError:  # half visible, or collected since the listing
                continue
            found[k, one.number] = one
    return tuple((k, found[k, number]) for k, number in sorted(found))


def write_meeting(attempt: Attempt, meeting: Meeting) -> bool:
    """Record where an attempt's ranks meet; False when it is recorded already. Raises StorageFullError."""
    where = attempt.folder.ready(*run_names(attempt.run), f"attempt-{attempt.k}")
    return files.create_exclusive(where / _MEETING, *seal("meeting", meeting, is_text=True))


def read_meeting(folder: TaskFolder, run: int, k: int) -> Meeting | None:
    """Return where the ranks of an attempt meet, None = it has one rank. Raises IntegrityError."""
    path = folder.below(*run_names(run), f"attempt-{int(k)}", _MEETING)
    try:
        return unseal("meeting", files.read_file(path), Meeting, path)
    except NotFoundError:
        return None
