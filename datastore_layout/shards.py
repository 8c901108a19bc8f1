"""Features, computed once: immutable shards of up to some thousand rows, found by item or content, mapped into memory.

Owns `Preprocess/shards/<encoder>/<name>` (index) and `Preprocess/features-<encoder>/<name>.f32` (raw little-endian float32
rows, so a mapping starts at a page). The index is written last: a shard is visible exactly when it is complete. A name is a
hash of the content, so writing the same rows again gives the same shard. `compaction` joins small shards; their old names
stay readable for ever as parts of the joined one. Called by intake (write, find), training (rows) and prediction (features).
"""

from __future__ import annotations

import bisect
import errno
import hashlib
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from datastore_layout.envelope import seal, unseal
from datastore_layout.files import create_exclusive, exists, publish_file, read_file, reading
from datastore_layout.root import TaskFolder
from datastore_layout.shard_index import KeyTable, Part, Place, ShardIndex, content_key, item_key
from datastore_layout.watch import DirectoryWatch
from labelloop.errors import IntegrityError, InvalidInputError, NotFoundError
from labelloop.ids import parse_item, parse_token

INLINE_BYTES = 128 * 1024
_LOOKS = 4
_NAME = re.compile(r"s([1-9][0-9]{0,8})-[0-9a-f]{28}")
_KEPT_IDS = 64
Features = npt.NDArray[np.float32]


def index_folder(encoder: str) -> tuple[str, ...]:
    """Return where the index files of an encoder lie, below the task."""
    return ("Preprocess", "shards", parse_token(encoder, "encoder"))


def features_folder(encoder: str) -> tuple[str, ...]:
    """Return where the features of an encoder lie, below the task."""
    return ("Preprocess", f"features-{parse_token(encoder, 'encoder')}")


def features_file(name: str) -> str:
    """Return the file name of a shard's features."""
    return f"{name}.f32"


def read_index(folder: TaskFolder, encoder: str, name: str) -> ShardIndex:
    """Return one index file. Raises NotFoundError, IntegrityError."""
    path = folder.below(*index_folder(encoder), parse_token(name, "shard"))
    index = unseal("shard", read_file(path), ShardIndex, path)
    if (
        index.encoder != encoder
        or index.n != rows_of(name)
        or len(index.item_keys) != 16 * index.n
        or len(index.content_keys) != 16 * index.n
    ):
        raise IntegrityError(f"{path} does not describe {index.n} rows of encoder {encoder!r}: remove it and embed again")
    return index


def rows_of(name: str) -> int:
    """Return the number of rows of a shard, which its name starts with; 0 for what is no name of a shard."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else 0


def name_shard(index: ShardIndex, features: Features) -> tuple[str, ShardIndex]:
    """Return the name of a shard, a hash of its content, and `index` with `crc32` and `inline` filled in."""
    raw = features.data.cast("B")
    crc = zlib.crc32(raw)
    key = hashlib.blake2b(b"%b %d %d " % (index.encoder.encode(), index.dim, crc), digest_size=14)
    for part in (index.item_keys, index.content_keys, index.item_ids, msgspec.msgpack.encode(index.parts)):
        key.update(part)
    inline = bytes(raw) if features.nbytes <= INLINE_BYTES else b""
    return f"s{index.n}-{key.hexdigest()}", msgspec.structs.replace(index, crc32=crc, inline=inline)


def write_shard(folder: TaskFolder, name: str, index: ShardIndex, features: Features) -> None:
    """Write a shard that `name_shard` has named, features first; nothing to do when it is there."""
    where = folder.ready(*index_folder(index.encoder))
    if exists(where / name):
        return
    if not index.inline:
        publish_file(folder.ready(*features_folder(index.encoder)) / features_file(name), features.data.cast("B"))
    create_exclusive(where / name, *seal("shard", index))


def read_features(folder: TaskFolder, name: str, index: ShardIndex) -> Features:
    """Return the (n, dim) rows of a shard, read-only, checked. Raises NotFoundError, IntegrityError."""
    if index.inline:
        return _inline_array(index)
    path = folder.below(*features_folder(index.encoder), features_file(name))
    return _map_features(path, index.n, index.dim, index.crc32)


class ShardSet:
    """All shards of one task and encoder; reads new index files only. Thread-safe: one lock, never held during big reads."""

    def __init__(self, folder: TaskFolder, encoder: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self.encoder = parse_token(encoder, "encoder")
        self._lock = threading.RLock()
        self._watch = DirectoryWatch(folder.below(*index_folder(encoder)), clock)
        self._shards: dict[str, tuple[int, int, int]] = {}  # name → (n, dim, crc32)
        self._aliases: dict[str, tuple[str, int, int]] = {}  # name → (shard that holds it now, start, n)
        self._arrays: dict[str, Features] = {}
        self._ids: dict[str, tuple[str, ...]] = {}
        self._starts: list[int] = []  # place number of the first row of each shard, rising
        self._order: list[str] = []
        self._n_places = 0
        self._by_item = KeyTable()
        self._by_content = KeyTable()

    def write(
        self, item_ids: Sequence[str], links: Sequence[str], content_hashes: Sequence[str], features: npt.NDArray[np.floating]
    ) -> str:
        """Write n >= 1 rows as one immutable shard, on disk when this returns, and return its name.

        `features` is (n, d), finite, kept as float32; row i belongs to `item_ids[i]` behind `links[i]`, whose bytes have
        `content_hashes[i]`. The same rows again give the same name. Raises InvalidInputError, StorageFullError.
        """
        array = np.ascontiguousarray(features, dtype="<f4")
        n = len(item_ids)
        if array.ndim != 2 or not n or not n == len(links) == len(content_hashes) == array.shape[0] or not array.shape[1]:
            raise InvalidInputError(f"{n} items, {len(links)} links and {len(content_hashes)} hashes for features {array.shape}")
        if not np.isfinite(array).all():
            raise InvalidInputError(f"features of encoder {self.encoder!r} hold NaN or infinity: give finite numbers")
        index = ShardIndex(
            encoder=self.encoder,
            n=n,
            dim=array.shape[1],
            crc32=0,
            item_keys=b"".join(item_key(parse_item(i), link) for i, link in zip(item_ids, links, strict=True)),
            content_keys=b"".join(map(content_key, content_hashes)),
            item_ids=msgspec.msgpack.encode(list(item_ids)),
        )
        name, index = name_shard(index, array)
        write_shard(self._folder, name, index, array)
        with self._lock:
            if name not in self._shards:
                self._take(name, index)
        return name

    def refresh(self) -> None:
        """Take in new shards; one stat when nothing changed. Raises IntegrityError naming a damaged index file."""
        with self._lock:
            names = self._watch.names()
            if names is not None:
                self._read_fresh(names)

    def names(self) -> tuple[str, ...]:
        """Return the shards that together hold every row, sorted; one that is part of another is left out."""
        with self._lock:
            return tuple(sorted(name for name in self._shards if name not in self._aliases))

    def features(self, name: str) -> Features:
        """Return the (n, d) rows of a shard, read-only, C-contiguous, mapped from its file; checked once a process.

        Raises NotFoundError, IntegrityError.
        """
        holder, start, n = self._place_of(name)
        try:
            array = self._open(holder)
        except NotFoundError:  # joined into another since the last refresh
            holder, start, n = self._place_of(name, is_stale=True)
            array = self._open(holder)
        return array if n == len(array) else array[start : start + n]

    def ids(self, name: str) -> tuple[str, ...]:
        """Return the item ids of a shard, row by row. Raises NotFoundError, IntegrityError."""
        with self._lock:
            if name in self._ids:
                return self._ids[name]
        holder, start, n = self._place_of(name)
        try:
            index = read_index(self._folder, self.encoder, holder)
        except NotFoundError:
            holder, start, n = self._place_of(name, is_stale=True)
            index = read_index(self._folder, self.encoder, holder)
        found = msgspec.msgpack.decode(index.item_ids, type=tuple[str, ...])[start : start + n]
        with self._lock:
            if len(self._ids) >= _KEPT_IDS:
                del self._ids[next(iter(self._ids))]
            self._ids[name] = found
        return found

    def find(self, item_id: str, link: str) -> Place | None:
        """Return (shard, row) of an item behind exactly this link, as of the last refresh; None = not embedded yet."""
        with self._lock:
            return self._to_place(self._by_item.find(item_key(item_id, link)))

    def find_many(self, items: Iterable[tuple[str, str]]) -> list[Place | None]:
        """Return what `find` answers for each (item_id, link); an order of magnitude faster for hundreds."""
        keys = [item_key(item_id, link) for item_id, link in items]
        with self._lock:
            return [self._to_place(place) for place in self._by_item.find_many(keys)]

    def find_content(self, content_hash: str) -> Place | None:
        """Return (shard, row) of a row whose bytes had this hash, as of the last refresh."""
        with self._lock:
            return self._to_place(self._by_content.find(content_key(content_hash)))

    def rows(self, places: Sequence[Place]) -> Features:
        """Return a fresh (n, d) array of the rows at `places`, in their order; (0, 0) for none.

        Raises NotFoundError (naming the shard), InvalidInputError for a row that the shard has not.
        """
        if not places:
            return np.empty((0, 0), np.float32)
        by_shard: dict[str, tuple[list[int], list[int]]] = {}
        for i, (name, row) in enumerate(places):
            targets, rows = by_shard.setdefault(name, ([], []))
            targets.append(i)
            rows.append(row)
        out: Features | None = None
        for name, (targets, rows) in by_shard.items():
            array = self.features(name)
            if not 0 <= min(rows) <= max(rows) < len(array):
                raise InvalidInputError(f"shard {name} has {len(array)} rows, row {max(rows)} was asked for")
            if out is not None and out.shape[1] != array.shape[1]:
                raise InvalidInputError(f"shard {name} has rows of {array.shape[1]} numbers, the others of {out.shape[1]}")
            if out is None:
                out = np.empty((len(places), array.shape[1]), np.float32)
            out[targets] = array[rows]
        assert out is not None
        return out

    def _read_fresh(self, names: list[str]) -> None:
        for _ in range(_LOOKS):
            has_missed = False
            for name in self._unknown(names):
                try:
                    self._take(name, read_index(self._folder, self.encoder, name))
                except NotFoundError:  # merged since the listing, or half visible
                    has_missed = True
            if not has_missed:
                return
            names = self._watch.names(is_forced=True) or []

    def _unknown(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name not in self._shards and rows_of(name)]

    def _take(self, name: str, index: ShardIndex) -> None:
        self._shards[name] = (index.n, index.dim, index.crc32)
        self._starts.append(self._n_places)
        self._order.append(name)
        self._by_item.add(index.item_keys, self._n_places)
        self._by_content.add(index.content_keys, self._n_places)
        self._n_places += index.n
        if index.inline:
            self._arrays[name] = _inline_array(index)
        for part in index.parts:
            self._alias(part, name)

    def _alias(self, part: Part, holder: str) -> None:
        if part.name != holder and part.name not in self._aliases:
            self._aliases[part.name] = (holder, part.start, part.n)
            self._arrays.pop(part.name, None)

    def _to_place(self, place: int | None) -> Place | None:
        if place is None:
            return None
        at = bisect.bisect_right(self._starts, place) - 1
        return self._order[at], place - self._starts[at]

    def _place_of(self, name: str, is_stale: bool = False) -> tuple[str, int, int]:
        """Return (shard on disk, start, n) of a name, following joined ones to the last."""
        with self._lock:
            known = name in self._shards or name in self._aliases
            if is_stale or not known:
                self._watch.forget()
                self.refresh()
            holder, start, n = self._aliases.get(name) or (name, 0, self._shards.get(name, (-1,))[0])
            while holder in self._aliases:
                holder, offset, _ = self._aliases[holder]
                start += offset
        if n < 0:
            raise NotFoundError(f"shard {name!r} of encoder {self.encoder!r} is not in task {self._folder.task!r}")
        return holder, start, n

    def _open(self, holder: str) -> Features:
        with self._lock:
            array = self._arrays.get(holder)
            n, dim, crc = self._shards[holder]
        if array is None:
            path = self._folder.below(*features_folder(self.encoder), features_file(holder))
            array = _map_features(path, n, dim, crc)
            with self._lock:
                array = self._arrays.setdefault(holder, array)
        return array


def _inline_array(index: ShardIndex) -> Features:
    array = np.frombuffer(index.inline, "<f4").reshape(index.n, index.dim).copy()
    array.flags.writeable = False
    return array


def _map_features(path: Path, n: int, dim: int, crc: int) -> Features:
    with reading(path):
        if path.stat().st_size != 4 * n * dim:
            raise IntegrityError(f"{path} has not the size of {n} rows of {dim} float32: remove it and embed again")
        try:
            array: Features = np.memmap(path, "<f4", "r", shape=(n, dim))
        except OSError as exc:
            if exc.errno != errno.ENODEV:  # a mount that cannot map files
                raise
            array = np.fromfile(path, "<f4").reshape(n, dim)
            array.flags.writeable = False
    if zlib.crc32(array.data.cast("B")) != crc:
        raise IntegrityError(f"{path} does not match its checksum: remove it and embed again")
    return array
