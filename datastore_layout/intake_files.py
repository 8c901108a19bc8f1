"""Batches that were accepted but not processed: `Preprocess/intake/<batch id>`, written before `submit` answers.

Owns the durability of accepted labels and the index of pending ones. Must never change a batch. Called by train_rpc (write,
index), its sweep (list) and the data workers (read); `collect` removes what the label log names.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

from datastore_layout.envelope import seal, unseal
from datastore_layout.files import create_exclusive, list_names, read_file
from datastore_layout.root import TaskFolder
from datastore_layout.watch import DirectoryWatch
from labelloop.errors import ConflictError, InvalidInputError, NotFoundError
from labelloop.ids import BatchId, ItemId, parse_item, parse_token
from labelloop.messages import Sample, SubmitRequest

_WHERE = ("Preprocess", "intake")


def write_intake(folder: TaskFolder, request: SubmitRequest) -> bool:
    """Make a batch durable; False when it was already. When this returns, the batch survives a power cut.

    Raises ConflictError when the batch id was used with other samples, InvalidInputError on malformed ids or another task's
    batch, StorageFullError.
    """
    if request.task != folder.task:
        raise InvalidInputError(f"batch of task {request.task!r} does not belong into the folder of {folder.task!r}")
    name = parse_token(request.batch_id, "batch id")
    for sample in request.samples:
        parse_item(sample.item_id)
    if create_exclusive(folder.ready(*_WHERE) / name, *seal("intake", request)):
        return True
    try:
        before = read_intake(folder, BatchId(name))
    except NotFoundError:  # processed and collected between the two looks: it was there
        return False
    if before != request:
        raise ConflictError(f"batch {name!r} was used before with other samples: use a new batch id")
    return False


def list_intake(folder: TaskFolder) -> tuple[BatchId, ...]:
    """Return the ids of the batches on disk, sorted; processed ones are there until collected."""
    return tuple(BatchId(name) for name in list_names(folder.below(*_WHERE)))


def read_intake(folder: TaskFolder, batch: str) -> SubmitRequest:
    """Return a batch. Raises NotFoundError (never accepted, or processed and collected), IntegrityError."""
    path = folder.below(*_WHERE, parse_token(batch, "batch id"))
    return unseal("intake", read_file(path), SubmitRequest, path)


class IntakeIndex:
    """The samples of all batches on disk, by (item, revision). Reads new batches only. Thread-safe."""

    def __init__(self, folder: TaskFolder, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._watch = DirectoryWatch(folder.below(*_WHERE), clock)
        self._batches: dict[str, tuple[Sample, ...]] = {}
        self._samples: dict[tuple[str, int], Sample] = {}

    def refresh(self) -> None:
        """Take in new batches and drop collected ones; one stat when nothing changed. Raises IntegrityError."""
        with self._lock:
            names = self._watch.names()
            if names is None:
                return
            for gone in self._batches.keys() - set(names):
                self._drop(gone)
            for name in names:
                if name not in self._batches:
                    self._read(name)

    def add(self, request: SubmitRequest) -> None:
        """Take in a batch that the caller has just written, without reading it back."""
        with self._lock:
            self._take(request.batch_id, request.samples)

    def find(self, item_id: str, revision: int) -> Sample | None:
        """Return the pending sample of that identity as of the last refresh."""
        return self._samples.get((item_id, revision))

    def waiting(self, segments: Collection[str]) -> tuple[BatchId, ...]:
        """Return the batches that are not in `segments` (those of the label log), sorted."""
        with self._lock:
            return tuple(BatchId(name) for name in sorted(self._batches) if name not in segments)

    def waiting_items(self, segments: Collection[str]) -> frozenset[ItemId]:
        """Return the items of the waiting batches."""
        waiting = self.waiting(segments)
        with self._lock:
            return frozenset(ItemId(s.item_id) for name in waiting for s in self._batches.get(name, ()))

    def _read(self, name: str) -> None:
        try:
            self._take(name, read_intake(self._folder, name).samples)
        except NotFoundError:  # collected or half visible: the next look knows
            self._watch.forget()
        except InvalidInputError:  # no batch id, so no batch
            self._batches[name] = ()

    def _take(self, name: str, samples: tuple[Sample, ...]) -> None:
        self._batches[name] = samples
        for sample in samples:
            self._samples.setdefault((sample.item_id, sample.revision), sample)

    def _drop(self, name: str) -> None:
        for sample in self._batches.pop(name):
            key = (sample.item_id, sample.revision)
            if self._samples.get(key) is sample:
                del self._samples[key]
