"""The label log: what every compute node knows about labels, as immutable segments `Preprocess/labels/<batch id>`.

Owns the merged view by (item, revision), in which a row seen twice is harmless. Must never change a segment; `compaction`
joins old ones into `_merged-...` files that readers take like any other. Called by the data workers (write), the train master
(progress, policy, comparer) and the training children (merged).
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import msgspec

from datastore_layout.envelope import seal, unseal
from datastore_layout.files import create_exclusive, modified_s, read_file
from datastore_layout.root import TaskFolder
from datastore_layout.watch import DirectoryWatch
from labelloop.errors import NotFoundError
from labelloop.ids import ItemId, parse_item, parse_token
from labelloop.messages import Draft, Message, Region, Sample

WHERE = ("Preprocess", "labels")
MERGED = "_merged-"
_LOOKS = 4


class LabelRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One processed sample. `shard` and `row` say where its features are ('' and -1 = nowhere); `error_code` '' = good."""

    item_id: str
    revision: int
    link: str
    labels: tuple[str, ...]
    is_deleted: bool = False
    annotator: str = ""
    draft: Draft | None = None
    shard: str = ""
    row: int = -1
    error_code: str = ""
    error_reason: str = ""
    regions: tuple[Region, ...] = ()
    proba: tuple[float, ...] = ()


class Segment(Message, frozen=True, kw_only=True):
    """One file of the log: the rows of the batches `names` (one, or many in a merged file), oldest first.

    `handled` says how many of the rows each node processed; a merged file does not tell.
    """

    names: tuple[str, ...]
    rows: tuple[LabelRow, ...]
    handled: dict[str, int] = {}


def write_segment(folder: TaskFolder, name: str, rows: Sequence[LabelRow], handled: Mapping[str, int] | None = None) -> bool:
    """Append the rows of one intake batch under its name; False when the batch has its segment already.

    `handled` tells how many of them each node processed.

    Raises InvalidInputError on malformed ids, StorageFullError.
    """
    parse_token(name, "segment")
    for row in rows:
        parse_item(row.item_id)
    path = folder.ready(*WHERE) / name
    return create_exclusive(path, *seal("labels", Segment(names=(name,), rows=tuple(rows), handled=dict(handled or {}))))


def is_log_file(name: str) -> bool:
    """Return whether a name in the folder of the log holds rows (the notes of a join do not)."""
    return name.startswith(MERGED) or not name.startswith("_")


def read_segment(folder: TaskFolder, name: str) -> Segment:
    """Return one file of the log by its file name. Raises NotFoundError (not there, or merged since), IntegrityError."""
    path = folder.below(*WHERE, name)
    return unseal("labels", read_file(path), Segment, path)


def oldest_first(folder: TaskFolder, names: Iterable[str]) -> list[str]:
    """Return the file names oldest first: merged files by their number, then segments as the file system saw them."""
    names = list(names)
    merged = sorted(name for name in names if name.startswith(MERGED))
    dated = [(modified_s(folder.below(*WHERE, name)) or 0.0, name) for name in names if not name.startswith(MERGED)]
    return merged + [name for _, name in sorted(dated)]


def preferred(a: LabelRow, b: LabelRow) -> LabelRow:
    """Return which of two rows of one (item, revision) holds, whatever their order: a good one, then the least content."""
    return min(
        a, b, key=lambda r: (bool(r.error_code), r.is_deleted, r.labels, r.regions, r.proba, r.link, r.annotator, r.shard, r.row)
    )


def conflict_of(sample: Sample, seen: Sample | LabelRow) -> str | None:
    """Return how `sample` differs from what was `seen` under the same (item, revision); None = the same content.

    What an annotator was shown as a draft is not part of the content.
    """
    for field in ("labels", "link", "is_deleted", "annotator", "regions", "proba"):
        new, old = getattr(sample, field), getattr(seen, field)
        if new != old:
            return (
                f"item {sample.item_id!r} revision {sample.revision} was accepted before with {field} {old!r}, "
                f"now {new!r}: send it with a higher revision"
            )
    return None


class LabelLog:
    """The merged view of all segments; reads new files only. Thread-safe: one lock around each refresh."""

    def __init__(self, folder: TaskFolder, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._watch = DirectoryWatch(folder.below(*WHERE), clock)
        self._files: set[str] = set()
        self._segments: dict[str, None] = {}
        self._hash = 0
        self._latest: dict[str, LabelRow] = {}
        self._older: dict[tuple[str, int], LabelRow] = {}
        self._views: tuple[Mapping[ItemId, LabelRow], Mapping[ItemId, LabelRow]] | None = None
        self._segment_view: frozenset[str] | None = None

    def refresh(self) -> tuple[LabelRow, ...]:
        """Take in new files; return the rows that are new, oldest first. One stat when nothing changed.

        Raises IntegrityError naming a damaged file, having taken in nothing. The way out: remove that file; while its intake
        batch is still there the sweep processes it again, otherwise restore the file from a copy.
        """
        with self._lock:
            names = self._watch.names()
            if names is None:
                return ()
            new: list[LabelRow] = []
            for name, segment in self._read_fresh(names):
                self._files.add(name)
                self._add_names(segment.names)
                new.extend(row for row in segment.rows if self._add(row))
            if new:
                self._views = None
            return tuple(new)

    def merged(self) -> Mapping[ItemId, LabelRow]:
        """Return the highest revision of each item, oldest first; withdrawn and failed ones are left out.

        A snapshot: a later refresh does not change it.
        """
        return self._snapshot()[0]

    def failed(self) -> Mapping[ItemId, LabelRow]:
        """Return the items whose highest revision failed, with its reason. A snapshot, like `merged`."""
        return self._snapshot()[1]

    def answers(self) -> Mapping[ItemId, tuple[LabelRow, ...]]:
        """Return what each annotator last said, certainly, of each item that has a label now. A snapshot."""
        with self._lock:
            last: dict[tuple[str, str], LabelRow] = {}
            for row in (*self._older.values(), *self._latest.values()):
                key = (row.item_id, row.annotator)
                if key not in last or last[key].revision < row.revision:
                    last[key] = row
            found: dict[ItemId, tuple[LabelRow, ...]] = {}
            for row in last.values():
                is_labelled = not self._latest[row.item_id].is_deleted
                if is_labelled and not (row.is_deleted or row.error_code or row.proba):
                    found[ItemId(row.item_id)] = (*found.get(ItemId(row.item_id), ()), row)
            return MappingProxyType(found)

    def state_of(self, item_id: str, revision: int) -> LabelRow | None:
        """Return the row of exactly that identity (withdrawn and failed ones too), None when it was not processed."""
        row = self._latest.get(item_id)
        if row is not None and row.revision == revision:
            return row
        return self._older.get((item_id, revision))

    def latest_of(self, item_id: str) -> LabelRow | None:
        """Return the highest revision of an item, withdrawn and failed ones too."""
        return self._latest.get(item_id)

    @property
    def segments(self) -> frozenset[str]:
        """The batches that were read, whichever file they lie in now."""
        with self._lock:
            if self._segment_view is None:
                self._segment_view = frozenset(self._segments)
            return self._segment_view

    def has_segment(self, name: str) -> bool:
        """Return whether the batch `name` was read; cheaper than `segments` while labels come in."""
        return name in self._segments

    @property
    def position(self) -> str:
        """Count and hash of the batches that were read: equal on two nodes exactly when they know the same batches."""
        return f"{len(self._segments)}-{self._hash:016x}"

    def _read_fresh(self, names: list[str]) -> list[tuple[str, Segment]]:
        found: dict[str, Segment] = {}
        for _ in range(_LOOKS):
            has_missed = False
            fresh = (n for n in names if n not in self._files and n not in found and is_log_file(n))
            for name in oldest_first(self._folder, fresh):
                try:
                    found[name] = read_segment(self._folder, name)
                except NotFoundError:  # merged since the listing, or half visible
                    has_missed = True
            if not has_missed:
                break
            names = self._watch.names(is_forced=True) or []
        return list(found.items())

    def _add_names(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._segments:
                self._segments[name] = None
                self._segment_view = None
                self._hash ^= int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=8).digest(), "big")

    def _add(self, row: LabelRow) -> bool:
        """Take in one row; False when nothing changed by it."""
        latest = self._latest.get(row.item_id)
        if latest is None or row.revision > latest.revision:
            if latest is not None:
                self._older[latest.item_id, latest.revision] = self._latest.pop(row.item_id)
            self._latest[row.item_id] = row
            return True
        if row.revision == latest.revision:
            winner = preferred(latest, row)
            self._latest[row.item_id] = winner
            return winner != latest
        before = self._older.get((row.item_id, row.revision))
        winner = row if before is None else preferred(before, row)
        self._older[row.item_id, row.revision] = winner
        return winner != before

    def _snapshot(self) -> tuple[Mapping[ItemId, LabelRow], Mapping[ItemId, LabelRow]]:
        with self._lock:
            if self._views is None:
                good = {ItemId(k): r for k, r in self._latest.items() if not (r.is_deleted or r.error_code)}
                bad = {ItemId(k): r for k, r in self._latest.items() if r.error_code and not r.is_deleted}
                self._views = MappingProxyType(good), MappingProxyType(bad)
            return self._views
