"""Which items to ask people next: one version, one pool, one order, and the very scores that the order was made from.

Owns the way from a finished job or explicit items to the pool that `learning.query.select` orders. Must never mix versions, nor
order a failed item. Called by `service` on RPC threads; numpy on the job's result files, no model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datastore_layout.decisions import read_decision
from datastore_layout.root import Root, TaskFolder, task_folder
from datastore_layout.tasks import read_spec
from labelloop.errors import IntegrityError, InvalidInputError
from labelloop.messages import Array, ChunkResult, Item, RankReply, RankRequest, TaskSpec
from learning.query import Selection, needs, select
from roles.inference.jobs import Jobs
from roles.inference.predicting import Interactive

MOST_FEATURE_BYTES = 256 * 2**20

Features = NDArray[np.float32]


@dataclass(frozen=True)
class Candidates:
    """Good items of one version. `features(rows)` reads the features of some of them, in that order."""

    version: str
    ids: NDArray[np.object_]
    proba: NDArray[np.float32] | None
    dim: int
    features: Callable[[NDArray[np.int64]], Features]


class Ranking:
    """Answers `rank`. Thread-safe."""

    def __init__(self, root: Root, jobs: Jobs, interactive: Interactive, version_of: Callable[[str], str]) -> None:
        self._root, self._jobs, self._interactive, self._version_of = root, jobs, interactive, version_of

    def rank(self, request: RankRequest) -> RankReply:
        """Return the order of a finished job's items or of explicit ones. Raises InvalidInputError unless exactly one is named."""
        if bool(request.job_id) == bool(request.items):
            raise InvalidInputError("rank needs either a job_id or items: name one of them")
        folder = task_folder(self._root, request.task)
        spec = read_spec(folder)
        pool = self._of_job(folder, spec, request.job_id) if request.job_id else self._of_items(folder, request)
        return order(request, pool, spec.extra.kind == "multilabel")

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
        return Candidates(version, merged, np.concatenate(proba) if proba else None, dim, features)

    def _of_items(self, folder: TaskFolder, request: RankRequest) -> Candidates:
        version = self._version_of(request.task)
        if version:
            return self._scored(folder, version, request.items, request.task)
        rows = self._interactive.features(request.task, "", request.items)
        matrix = np.frombuffer(rows.data, np.float32).reshape(len(rows.item_ids), rows.dim)
        return Candidates("", np.array(rows.item_ids, dtype=object), None, rows.dim, lambda wanted: matrix[wanted])

    def _scored(self, folder: TaskFolder, version: str, items: tuple[Item, ...], task: str) -> Candidates:
        labels = self._jobs.manifest(folder, version).labels
        answer = self._interactive.predict(task, version, labels, items)
        failed = {error.item_id for error in answer.failed}
        good = np.array([row for row, item_id in enumerate(answer.item_ids) if item_id not in failed], dtype=np.int64)
        ids, proba = np.array(answer.item_ids, dtype=object)[good], _matrix(answer.proba)[good]

        def features(wanted: NDArray[np.int64]) -> Features:
            link_of = {item.item_id: item for item in items}
            rows = self._interactive.features(task, version, [link_of[item_id] for item_id in ids[wanted]])
            return np.frombuffer(rows.data, np.float32).reshape(len(rows.item_ids), rows.dim)

        return Candidates(version, ids, proba, 1, features)


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


def _matrix(array: Array) -> NDArray[np.float32]:
    return np.frombuffer(array.data, dtype=array.dtype).reshape(array.shape)


def order(request: RankRequest, pool: Candidates, is_multilabel: bool) -> RankReply:
    """Return the order of `pool` without `request.exclude`, by `request.strategy`."""
    excluded = frozenset(request.exclude)
    is_open = np.fromiter((item_id not in excluded for item_id in pool.ids), dtype=np.bool_, count=len(pool.ids))
    rows = np.flatnonzero(is_open)
    proba = None if pool.proba is None else pool.proba[rows]
    if pool.dim and _needs_features(request.strategy, proba):
        rows, selection = _by_features(request, pool, rows, np.flatnonzero(~is_open), proba, is_multilabel)
    else:
        selection = select(
            request.strategy,
            proba=proba,
            features=np.empty((len(rows), 1), np.float32) if proba is None and request.strategy == "random" else None,
            n=request.n,
            seed=request.seed,
            exploration=request.exploration,
            is_multilabel=is_multilabel,
        )
    scores = np.ascontiguousarray(selection.scores, dtype=np.float32)
    return RankReply(
        strategy=selection.strategy,
        version=pool.version,
        item_ids=tuple(pool.ids[rows[selection.indices]]),
        scores=Array(dtype="float32", shape=scores.shape, data=scores.tobytes()),
        reason=selection.reason,
    )


def _needs_features(strategy: str, proba: NDArray[np.float32] | None) -> bool:
    if "features" in needs(strategy):
        return True
    return strategy == "auto" and (proba is None or (len(proba) > 1 and bool((proba == proba[0]).all())))


def _by_features(
    request: RankRequest,
    pool: Candidates,
    rows: NDArray[np.int64],
    labelled: NDArray[np.int64],
    proba: NDArray[np.float32] | None,
    is_multilabel: bool,
) -> tuple[NDArray[np.int64], Selection]:
    """Return (rows, selection into them). A pool too big for memory is judged on a seeded sample, the others follow at random."""
    rng = np.random.default_rng(request.seed)
    most = max(1024, MOST_FEATURE_BYTES // (4 * max(pool.dim, 64)))
    is_sampled = len(rows) > most
    sample = np.sort(rng.choice(len(rows), most, replace=False)) if is_sampled else np.arange(len(rows))
    if len(labelled) > most // 4:
        labelled = np.sort(rng.choice(labelled, most // 4, replace=False))
    selection = select(
        request.strategy,
        proba=None if proba is None else proba[sample],
        features=pool.features(rows[sample]),
        labelled_features=pool.features(labelled) if len(labelled) else None,
        n=0 if is_sampled else request.n,
        seed=request.seed,
        exploration=request.exploration,
        is_multilabel=is_multilabel,
    )
    if not is_sampled:
        return rows, selection
    scores = rng.random(len(rows), dtype=np.float32) * np.float32(min(1.0, max(float(selection.scores.max()), 0.0)))
    scores[sample[selection.indices]] = selection.scores
    order_all = np.argsort(-scores, kind="stable")[: request.n or None]
    reason = f"{selection.reason}; judged on {most} of {len(rows)} items"
    return rows, Selection(order_all, scores[order_all], selection.strategy, reason)
