"""How far data workers came with a batch that is not in the label log yet, so that a killed one costs little.

Owns `Preprocess/progress/<batch>~...`: an empty mark for each attempt at a part of a batch, made before the work, and the rows of
parts that are finished. Must never hold what the label log has: `clear` ends it. Called by roles.data alone.

An attempt counts as lost when its worker is dead, which only its own node can see, or when the mark is older, by the file
system's own clock, than any task may run.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from datastore_layout.envelope import seal, unseal
from datastore_layout.files import clock_s, create_exclusive, create_mark, exists, list_names, modified_s, read_file, remove_file
from datastore_layout.labels import WHERE as LABELS
from datastore_layout.labels import LabelRow, Segment
from datastore_layout.root import TaskFolder
from labelloop.errors import NotFoundError
from labelloop.ids import parse_token

_WHERE = ("Preprocess", "progress")
_TRY = "try"
_ROWS = "rows"


def has_segment(folder: TaskFolder, batch: str) -> bool:
    """Return whether the batch has a segment of its own in the label log; one that was joined into another says False."""
    return exists(folder.below(*LABELS, parse_token(batch, "batch id")))


class BatchProgress:
    """The marks and rows of one batch, as they were when it was opened, and this worker's changes to them."""

    def __init__(self, folder: TaskFolder, batch: str) -> None:
        self._folder = folder
        self._batch = parse_token(batch, "batch id")
        names = list_names(folder.below(*_WHERE))
        self._names = {name for name in names if name.startswith(f"{batch}~")}

    @property
    def is_begun(self) -> bool:
        """Whether any worker has left a mark or rows for the batch."""
        return bool(self._names)

    def saved_rows(self) -> tuple[tuple[LabelRow, str], ...]:
        """Return the rows of all finished parts, each (item, revision) once, and the node that did it. Raises IntegrityError."""
        rows: dict[tuple[str, int], tuple[LabelRow, str]] = {}
        for name in sorted(n for n in self._names if n.split("~")[1] == _ROWS):
            path = self._folder.below(*_WHERE, name)
            try:
                found = unseal("progress", read_file(path), Segment, path)
            except NotFoundError:  # cleared by another worker, which wrote the segment
                continue
            node = next(iter(found.handled), "")
            for row in found.rows:
                rows.setdefault((row.item_id, row.revision), (row, node))
        return tuple(rows.values())

    def save_rows(self, rows: Sequence[LabelRow], node: str) -> None:
        """Save the rows of a part that `node` has finished."""
        name = f"{self._batch}~{_ROWS}~{secrets.token_hex(8)}"
        part = Segment(names=(self._batch,), rows=tuple(rows), handled={node: len(rows)})
        create_exclusive(self._folder.ready(*_WHERE) / name, *seal("progress", part))
        self._names.add(name)

    def record_attempt(self, part: str, worker: str) -> str:
        """Record, before the work, that `worker` tries a part; return the mark for `end_attempt`."""
        mark = f"{self._batch}~{_TRY}~{part}~{worker}~{secrets.token_hex(4)}"
        create_mark(self._folder.ready(*_WHERE) / mark)
        self._names.add(mark)
        return mark

    def end_attempt(self, mark: str) -> None:
        """Take back the mark of an attempt that did its part no harm."""
        remove_file(self._folder.below(*_WHERE, mark))
        self._names.discard(mark)

    def lost_attempts(self, part: str, is_lost: Callable[[str], bool], task_limit_s: float) -> int:
        """Return how many attempts at a part ended with the worker's death.

        `is_lost(worker)` says that a worker is known to be dead; of others the age of the mark decides.
        """
        marks = [name for name in self._names if name.split("~")[1:3] == [_TRY, part]]
        lost = [mark for mark in marks if is_lost(mark.split("~")[3])]
        others = [mark for mark in marks if mark not in lost]
        if others:
            now = clock_s(self._folder.ready(*_WHERE))
            lost += [mark for mark in others if self._age_s(mark, now) > task_limit_s]
        return len(lost)

    def has_live_attempt(self, part: str, is_lost: Callable[[str], bool], patience_s: float) -> bool:
        """Return whether a worker that may be alive began the part less than `patience_s` ago."""
        marks = [name for name in self._names if name.split("~")[1:3] == [_TRY, part] and not is_lost(name.split("~")[3])]
        if not marks:
            return False
        now = clock_s(self._folder.ready(*_WHERE))
        return any(self._age_s(mark, now) < patience_s for mark in marks)

    def _age_s(self, mark: str, now: float) -> float:
        made = modified_s(self._folder.below(*_WHERE, mark))
        return now - made if made is not None else 0.0

    def clear(self) -> None:
        """Forget all of it, once the batch is in the label log."""
        for name in self._names:
            remove_file(self._folder.below(*_WHERE, name))
        self._names = set()
