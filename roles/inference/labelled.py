"""What people have labelled already, as the query strategies that learn from it see it: features and labels out of the label log.

Owns the way from the log's merged view to a bounded sample of labelled items and their features under one encoder. Must never
write, embed, or count a guess as a label: rows that rules or a crowd labelled softly, and rows of regions, have no hard label and
are left out. Called by `ranking` on RPC threads.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datastore_layout.labels import LabelLog, LabelRow
from datastore_layout.root import TaskFolder
from datastore_layout.shard_index import Place
from datastore_layout.shards import ShardSet
from labelloop.errors import NotFoundError
from labelloop.messages import TaskSpec

MOST_LABELLED = 4096
_LOGS = 4

Features = NDArray[np.float32]


@dataclass(frozen=True)
class Labelled:
    """`features` (l, d), (0, 0) for none, and `labels`, (l,) class numbers or (l, k) of 0/1, of the labelled items `ids`."""

    ids: tuple[str, ...]
    features: Features
    labels: NDArray[np.int64]


class LabelReader:
    """Reads the label logs of one datastore, the last few kept in memory. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._logs: OrderedDict[str, LabelLog] = OrderedDict()

    def rows(self, folder: TaskFolder) -> Collection[LabelRow]:
        """Return the newest good row of each labelled item of a task, oldest first. Raises IntegrityError naming a damaged file."""
        with self._lock:
            log = self._logs.pop(folder.task, None) or LabelLog(folder)
            self._logs[folder.task] = log
            while len(self._logs) > _LOGS:
                self._logs.popitem(last=False)
        log.refresh()
        return log.merged().values()


def hard_rows(rows: Collection[LabelRow], spec: TaskSpec) -> list[LabelRow]:
    """Return the rows that say for certain which of the task's labels their item has."""
    known, is_multiclass = frozenset(spec.extra.labels), spec.extra.kind == "multiclass"
    return [
        row
        for row in rows
        if not row.proba and not row.regions and known.issuperset(row.labels) and (len(row.labels) == 1 or not is_multiclass)
    ]


def label_numbers(rows: Sequence[LabelRow], spec: TaskSpec) -> NDArray[np.int64]:
    """Return the labels of hard `rows` in the task's order: (l,) class numbers, multilabel (l, k) of 0/1."""
    number = {label: at for at, label in enumerate(spec.extra.labels)}
    if spec.extra.kind == "multiclass":
        return np.array([number[row.labels[0]] for row in rows], dtype=np.int64)
    out = np.zeros((len(rows), len(number)), dtype=np.int64)
    for at, row in enumerate(rows):
        out[at, [number[label] for label in row.labels]] = 1
    return out


def sample_labelled(labels: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """Return up to `most` rows of labels, rising: all, or a seeded sample that keeps an item of every class while there is room."""
    if len(labels) <= most:
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    keys: NDArray[Any] = labels[order]
    first = np.sort(np.unique(keys, axis=0, return_index=True)[1])[:most]
    rest = np.setdiff1d(np.arange(len(order)), first)[: most - len(first)]
    return np.sort(order[np.concatenate([first, rest])])


def read_labelled(
    rows: Sequence[LabelRow], labels: NDArray[np.int64], shards: ShardSet, is_own_encoder: bool, most: int, seed: int
) -> Labelled:
    """Return up to `most` of the labelled `rows` with their features in `shards`; those that are not embedded there are left out.

    `is_own_encoder`: the log's own places are of this encoder, else an item is found by its id and link alone.
    """
    kept = sample_labelled(labels, most, seed)
    chosen = [rows[int(at)] for at in kept]
    shards.refresh()
    places = shards.find_many([(row.item_id, row.link) for row in chosen])
    if is_own_encoder:
        places = _own_places(shards, chosen, places)
    found = [at for at, place in enumerate(places) if place is not None]
    features = shards.rows([place for place in places if place is not None])
    return Labelled(tuple(chosen[at].item_id for at in found), features, labels[kept[found]])


def _own_places(shards: ShardSet, rows: Sequence[LabelRow], places: Sequence[Place | None]) -> list[Place | None]:
    """Fill what was not found with the place that the log tells, where its shard is there."""
    told = {row.shard for row, place in zip(rows, places, strict=True) if place is None and row.shard}
    there = {name for name in told if _is_there(shards, name)}
    return [place or ((row.shard, row.row) if row.shard in there else None) for row, place in zip(rows, places, strict=True)]


def _is_there(shards: ShardSet, name: str) -> bool:
    try:
        shards.features(name)
    except NotFoundError:
        return False
    return True
