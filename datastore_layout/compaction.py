"""Joins many small files of the label log, or many small shards, into few: what a network file system needs.

Owns `Preprocess/labels/_merged-<number>-<rows>-<hash>` and merged shards. Must never change what a reader sees: a merged file
holds the same rows, batch names and shard names, a row that is seen twice is harmless, and old files go only after a grace.
Safe against crashes and against a second compaction anywhere: the same input gives the same file, and a file covered twice is
harmless. Called by `collect`; in between by whoever writes many small batches.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from itertools import takewhile

import msgspec
import numpy as np

from datastore_layout.covers import covered_names, drop_covered, note_covered
from datastore_layout.envelope import seal
from datastore_layout.files import create_exclusive, list_names, remove_file
from datastore_layout.intake_files import list_intake
from datastore_layout.labels import MERGED, LabelRow, Segment, is_log_file, oldest_first, preferred, read_segment
from datastore_layout.labels import WHERE as LABELS
from datastore_layout.root import TaskFolder
from datastore_layout.shard_index import Part, ShardIndex
from datastore_layout.shards import (
    features_file,
    features_folder,
    index_folder,
    name_shard,
    read_features,
    read_index,
    rows_of,
    write_shard,
)
from labelloop.errors import NotFoundError

logger = logging.getLogger(__name__)

GRACE_S = 60.0
SHARD_GRACE_S = 3600.0  # a process may still have an old file mapped, and some network mounts do not keep it for that
LEAST_FILES = 64
MOST_ROWS = 262_144
SHARD_ROWS = 4096
_FAN_IN = 8


# ---------------------------------------------------------------- labels


def compact_labels(folder: TaskFolder, least: int = LEAST_FILES, grace_s: float = GRACE_S) -> int:
    """Join segments, oldest first, once there are `least`, and merged files once eight of a size follow each other.

    A segment whose intake batch is still on disk is left alone, so that its name stays taken while a worker may process the
    batch again. Returns how many files were joined in this call; the ones joined `grace_s` ago are removed.
    Raises IntegrityError naming a damaged segment, StorageFullError.
    """
    where = folder.below(*LABELS)
    drop_covered(where, grace_s, lambda name: _drop(folder, LABELS, name))
    names = [name for name in list_names(where) if is_log_file(name)]
    left = set(names) - covered_names(where)
    pending = set(list_intake(folder))
    plain = [name for name in left if not name.startswith(MERGED) and name not in pending]
    merged = sorted(name for name in left if name.startswith(MERGED))
    joined = 0
    try:
        if len(plain) >= max(2, least):
            merged = sorted({*merged, _merge_segments(folder, oldest_first(folder, plain), _number_after(names))})
            joined = len(plain)
        run = _run_of_one_size(merged)
        if len(run) >= _FAN_IN:
            _merge_segments(folder, run, _number_of(run[0]))
            joined += len(run)
    except NotFoundError:  # another compaction removed what it had joined: the next call starts from what is
        logger.info("task %s: the label log is being joined by somebody else", folder.task)
    return joined


def _merge_segments(folder: TaskFolder, names: Sequence[str], number: int) -> str:
    segments = [read_segment(folder, name) for name in names]
    rows: dict[tuple[str, int], LabelRow] = {}
    for row in (row for segment in segments for row in segment.rows):
        key = (row.item_id, row.revision)
        rows[key] = preferred(rows[key], row) if key in rows else row
    batches = tuple(dict.fromkeys(name for segment in segments for name in segment.names))
    digest = hashlib.blake2b("\n".join(batches).encode(), digest_size=12).hexdigest()
    merged = f"{MERGED}{number:012d}-{len(rows):012d}-{digest}"
    where = folder.ready(*LABELS)
    note_covered(where, merged, (name for name in names if name != merged))
    create_exclusive(where / merged, *seal("labels", Segment(names=batches, rows=tuple(rows.values()))))
    return merged


def _number_of(merged: str) -> int:
    return int(merged.removeprefix(MERGED).partition("-")[0])


def _number_after(names: Sequence[str]) -> int:
    return max((_number_of(name) for name in names if name.startswith(MERGED)), default=0) + 1


def _rows_of(merged: str) -> int:
    return int(merged.removeprefix(MERGED).split("-")[1])


def _run_of_one_size(merged: Sequence[str]) -> list[str]:
    """Return the newest merged files that are no larger than eight times the newest, oldest first, within `MOST_ROWS` in all."""
    if not merged:
        return []
    most = _FAN_IN * max(1, _rows_of(merged[-1]))
    run = list(takewhile(lambda name: _rows_of(name) <= most, reversed(merged)))
    while sum(map(_rows_of, run)) > MOST_ROWS:
        run.pop()
    return run[::-1]


# ---------------------------------------------------------------- shards


def compact_shards(
    folder: TaskFolder, encoder: str, rows: int = SHARD_ROWS, least: int = LEAST_FILES, grace_s: float = SHARD_GRACE_S
) -> int:
    """Join shards of less than half of `rows` into shards of at most `rows`, once they fill one or are `least` in number.

    Every old name stays readable through `ShardSet`, now and after the old files are gone (`grace_s` later). Returns how many
    shards were joined in this call. Raises IntegrityError naming a damaged shard, StorageFullError.
    """
    where = folder.below(*index_folder(encoder))
    drop_covered(where, grace_s, lambda name: _drop_shard(folder, encoder, name))
    covered = covered_names(where)
    sizes = {name: rows_of(name) for name in list_names(where) if name not in covered}
    small = {name: n for name, n in sizes.items() if 0 < n < rows // 2}
    if len(small) < 2 or (sum(small.values()) < rows and len(small) < least):
        return 0
    joined = 0
    try:
        indexes = {name: read_index(folder, encoder, name) for name in sorted(small)}
        for group in _groups(indexes, rows):
            _merge_shards(folder, encoder, {name: indexes[name] for name in group})
            joined += len(group)
    except NotFoundError:  # as above
        logger.info("task %s: the shards of %s are being joined by somebody else", folder.task, encoder)
    return joined


def _groups(indexes: Mapping[str, ShardIndex], rows: int) -> list[list[str]]:
    """Return shards of one width to join, each group two or more within `rows`, deterministic."""
    groups: list[list[str]] = []
    filling: dict[int, tuple[list[str], int]] = {}
    for name, index in indexes.items():
        group, total = filling.get(index.dim, ([], 0))
        if not group or total + index.n > rows:
            group, total = [], 0
            groups.append(group)
        group.append(name)
        filling[index.dim] = (group, total + index.n)
    return [group for group in groups if len(group) > 1]


def _merge_shards(folder: TaskFolder, encoder: str, indexes: Mapping[str, ShardIndex]) -> None:
    parts: list[Part] = []
    start = 0
    for name, index in indexes.items():
        parts.append(Part(name=name, start=start, n=index.n))
        parts.extend(Part(name=p.name, start=start + p.start, n=p.n) for p in index.parts)
        start += index.n
    ids = [i for index in indexes.values() for i in msgspec.msgpack.decode(index.item_ids, type=list[str])]
    merged = ShardIndex(
        encoder=encoder,
        n=start,
        dim=next(iter(indexes.values())).dim,
        crc32=0,
        item_keys=b"".join(index.item_keys for index in indexes.values()),
        content_keys=b"".join(index.content_keys for index in indexes.values()),
        item_ids=msgspec.msgpack.encode(ids),
        parts=tuple(parts),
    )
    features = np.concatenate([read_features(folder, name, index) for name, index in indexes.items()])
    name, merged = name_shard(merged, features)
    note_covered(folder.ready(*index_folder(encoder)), name, indexes)
    write_shard(folder, name, merged, features)


def _drop_shard(folder: TaskFolder, encoder: str, name: str) -> None:
    _drop(folder, index_folder(encoder), name)
    _drop(folder, features_folder(encoder), features_file(name))


def _drop(folder: TaskFolder, where: tuple[str, ...], name: str) -> None:
    folder.root.check()
    remove_file(folder.below(*where, name))
