"""Which items to ask people next: one version, one pool, one order, and the very scores that the order was made from.

Owns the way from a finished job or explicit items to the pool that `ordering` orders. Must never mix versions, nor order a failed
item. Called by `service` on RPC threads; numpy on the job's result files, no model but the quick committee of a strategy that asks
for one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from datastore_layout.decisions import read_decision
from datastore_layout.root import Root, TaskFolder, task_folder
from datastore_layout.tasks import read_spec
from intake.encoders import find_encoder
from intake.pipeline import encoder_of
from labelloop.errors import IntegrityError, InvalidInputError
from labelloop.messages import REGION_CATEGORIES, Array, ChunkResult, Item, RankReply, RankRequest, Region, TaskSpec
from roles.inference.jobs import Jobs
from roles.inference.labelled import Labelled, LabelReader, hard_rows, label_numbers, read_labelled
from roles.inference.ordering import Candidates, Features, Known, order
from roles.inference.predicting import Interactive


class Ranking:
    """Answers `rank`. Thread-safe."""

    def __init__(self, root: Root, jobs: Jobs, interactive: Interactive, version_of: Callable[[str], str]) -> None:
        self._root, self._jobs, self._interactive, self._version_of = root, jobs, interactive, version_of
        self._label_reader = LabelReader()

    def rank(self, request: RankRequest) -> RankReply:
        """Return the order of a finished job's items or of explicit ones. Raises InvalidInputError unless exactly one is named."""
        if bool(request.job_id) == bool(request.items):
            raise InvalidInputError("rank needs either a job_id or items: name one of them")
        folder = task_folder(self._root, request.task)
        spec = read_spec(folder)
        pool = self._of_job(folder, spec, request.job_id) if request.job_id else self._of_items(folder, request)
        to_points, features = self._to_points(folder, spec, pool.version), pool.features
        pool = replace(pool, features=lambda wanted: to_points(features(wanted)))
        has_regions = pool.regions is not None  # a label's probability is then its surest region's: rows do not sum to 1
        return order(request, pool, has_regions or spec.extra.kind == "multilabel", self._known(folder, spec, pool, request.seed))

    def _known(self, folder: TaskFolder, spec: TaskSpec, pool: Candidates, seed: int) -> Known:
        def labels() -> NDArray[np.int64]:
            return label_numbers(hard_rows(self._label_reader.rows(folder), spec), spec)

        def labelled(most: int) -> Labelled:
            rows = hard_rows(self._label_reader.rows(folder), spec)
            own = _encoder_of(folder, spec)
            encoder = self._jobs.manifest(folder, pool.version).encoder if pool.version else own
            shards = self._jobs.shard_set(folder, encoder)
            found = read_labelled(rows, label_numbers(rows, spec), shards, encoder == own, most, seed)
            return replace(found, features=self._to_points(folder, spec, pool.version)(found.features))

        return Known(labels, labelled)

    def _to_points(self, folder: TaskFolder, spec: TaskSpec, version: str) -> Callable[[Features], Features]:
        """Return what makes rows of features points between which distances mean something: encoders for regions may pack them."""
        name = None
        if spec.category in REGION_CATEGORIES:
            name = self._jobs.manifest(folder, version).encoder if version else encoder_of(folder, spec)
        return find_encoder(name).coordinates if name else lambda rows: rows

    def _of_job(self, folder: TaskFolder, spec: TaskSpec, job_id: str) -> Candidates:
        version = self._jobs.head(folder, job_id).version
        results = self._jobs.all_results(folder, job_id)
        if any(result.version != version for result in results):
            raise IntegrityError(f"job {job_id!r} holds results of other versions than {version!r}: send it again")
        encoder = self._jobs.manifest(folder, version).encoder if version else _encoder_of(folder, spec)
        shards = self._jobs.shard_set(folder, encoder)
        kept = [_good_rows(result) for result in results]
        ids = [np.array(result.item_ids, dtype=object)[rows] for result, rows in zip(results, kept, strict=True)]
        proba = [_matrix(result.proba)[rows] for result, rows in zip(results, kept, strict=True) if result.proba is not None]
        places = [(result.shard, rows) for result, rows in zip(results, kept, strict=True) if len(rows)]
        dim = shards.features(places[0][0]).shape[1] if places and places[0][0] else 0

        def features(wanted: NDArray[np.int64]) -> Features:
            starts = np.cumsum([0, *(len(rows) for _, rows in places)])
            out = np.empty((len(wanted), dim), np.float32)
            which = np.searchsorted(starts, wanted, side="right") - 1
            for at, (shard, rows) in enumerate(places):
                mine = which == at
                if mine.any():
                    out[mine] = shards.features(shard)[rows[wanted[mine] - starts[at]]]
            return out

        if any(not shard for shard, _ in places):
            dim = 0
        merged = np.concatenate(ids) if ids else np.empty(0, dtype=object)
        return Candidates(version, merged, np.concatenate(proba) if proba else None, dim, features, _regions(results, kept))

    def _of_items(self, folder: TaskFolder, request: RankRequest) -> Candidates:
        version = self._version_of(request.task)
        if version:
            return self._scored(folder, version, request.items, request.task)
        rows = self._interactive.features(request.task, "", request.items)
        matrix = np.frombuffer(rows.data, np.float32).reshape(len(rows.item_ids), rows.dim)
        return Candidates("", np.array(rows.item_ids, dtype=object), None, rows.dim, lambda wanted: matrix[wanted])

    def _scored(self, folder: TaskFolder, version: str, items: tuple[Item, ...], task: str) -> Candidates:
        manifest = self._jobs.manifest(folder, version)
        has_regions = manifest.category in REGION_CATEGORIES
        answer = self._interactive.predict(task, version, manifest.labels, items, has_regions)
        failed = {error.item_id for error in answer.failed}
        good = np.array([row for row, item_id in enumerate(answer.item_ids) if item_id not in failed], dtype=np.int64)
        ids, proba = np.array(answer.item_ids, dtype=object)[good], _matrix(answer.proba)[good]

        def features(wanted: NDArray[np.int64]) -> Features:
            link_of = {item.item_id: item for item in items}
            rows = self._interactive.features(task, version, [link_of[item_id] for item_id in ids[wanted]])
            return np.frombuffer(rows.data, np.float32).reshape(len(rows.item_ids), rows.dim)

        found = [answer.regions[row] for row in good] if answer.regions else None
        return Candidates(version, ids, proba, 1, features, found)


def _encoder_of(folder: TaskFolder, spec: TaskSpec) -> str:
    name = spec.extra.encoder if spec.extra.encoder != "auto" else read_decision(folder, "encoder")
    if name is None:
        raise InvalidInputError(f"task {spec.task!r} has no encoder yet: send its items by predict_async first")
    return name


def _good_rows(result: ChunkResult) -> NDArray[np.int64]:
    failed = {error.item_id for error in result.failed}
    if not failed:
        return np.arange(len(result.item_ids), dtype=np.int64)
    return np.array([row for row, item_id in enumerate(result.item_ids) if item_id not in failed], dtype=np.int64)


def _regions(results: Sequence[ChunkResult], kept: Sequence[NDArray[np.int64]]) -> list[tuple[Region, ...]] | None:
    """Return what was found in each good item; None for a task without regions."""
    if not any(result.regions for result in results):
        return None
    return [result.regions[row] for result, rows in zip(results, kept, strict=True) for row in rows]


def _matrix(array: Array) -> NDArray[np.float32]:
    return np.frombuffer(array.data, dtype=array.dtype).reshape(array.shape)
