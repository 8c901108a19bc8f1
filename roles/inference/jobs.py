"""Durable jobs as callers see them: accept, look, page the results.

Owns the cut into chunks and the pages. Must never compute a chunk, nor answer before the job is on disk. Called by `service` on RPC
threads; any process of any inference node may answer, because all state is in the datastore.

Results come in the order of the chunks without a gap: a caller that pages by `after` misses none. `results` waits up to a second
for the next chunk, so that a caller need not poll, and after the first page a moment more to fill a page; only some threads may
wait at the same time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import msgspec

from datastore_layout.job_progress import discard_result, has_result, result_size
from datastore_layout.jobs import ChunkSpec, JobHead, JobRecord, create_job, done_chunks, read_job_head, read_result
from datastore_layout.models import Manifest, read_manifest
from datastore_layout.root import Root, TaskFolder, task_folder
from datastore_layout.shards import ShardSet
from datastore_layout.tasks import read_spec
from labelloop.errors import IntegrityError, InternalError, InvalidInputError, NotFoundError
from labelloop.ids import parse_item, parse_token
from labelloop.messages import ChunkResult, JobKey, JobReply, JobRequest, ResultsReply, ResultsRequest
from labelloop.settings import Settings

logger = logging.getLogger(__name__)

WAIT_S = 1.0
LINGER_S = 0.02
FIRST_LOOK_S = 0.002
LONGEST_LOOK_S = 0.05
TORN_S = 1.0
MOST_CHUNKS = 256
PAGE_BYTES = 32 * 2**20
KEPT = 256
K = TypeVar("K")
V = TypeVar("V")
_WHOLE_JOB_CODES = frozenset({IntegrityError.code, NotFoundError.code, InternalError.code})


@dataclass
class _Tally:
    """Items of the chunks counted so far."""

    counted: set[int] = field(default_factory=set)
    items: int = 0
    failed: int = 0
    whole_job_failed: int = 0
    reason: str = ""

    def add(self, result: ChunkResult) -> None:
        self.counted.add(result.chunk)
        self.items += result.n_items + (0 if result.shard and not result.item_ids else len(result.failed))
        self.failed += len(result.failed)
        self.whole_job_failed += sum(error.code in _WHOLE_JOB_CODES for error in result.failed)
        if result.failed and not self.reason:
            self.reason = result.failed[0].reason


class Jobs:
    """The jobs of one datastore. Thread-safe."""

    def __init__(self, root: Root, settings: Settings, newest_of: Callable[[str], str], notify: Callable[[str, str], None]) -> None:
        self._root, self._settings = root, settings
        self._newest_of, self._notify = newest_of, notify
        self._lock = threading.Lock()
        self._tallies: OrderedDict[tuple[str, str], _Tally] = OrderedDict()
        self._heads: OrderedDict[tuple[str, str], JobHead] = OrderedDict()
        self._manifests: OrderedDict[tuple[str, str], Manifest] = OrderedDict()
        self._shards: OrderedDict[tuple[str, str], ShardSet] = OrderedDict()
        self._unreadable: dict[tuple[str, str, int], float] = {}
        self._waits = threading.BoundedSemaphore(max(1, settings.wire.worker_threads // 2))

    # ------------------------------------------------------------ accept and look

    def accept(self, request: JobRequest) -> JobReply:
        """Make the job durable, tell the dispatcher, answer; a repeated call answers for the job that is there."""
        _check(request)
        folder = task_folder(self._root, request.task)
        spec = read_spec(folder)
        version = request.version or self._newest_of(spec.task)
        if version:
            self.manifest(folder, version)
        chunks = cut(request, self._settings.inference.chunk_items)
        is_new = create_job(folder, JobRecord(job_id=request.job_id, version=version, chunks=chunks))
        self._notify(request.task, request.job_id)
        if not is_new:
            return self.view(JobKey(task=request.task, job_id=request.job_id))
        state: Literal["running", "done"] = "running" if chunks else "done"
        return JobReply(task=request.task, job_id=request.job_id, version=version, chunks=len(chunks), done=0, state=state)

    def view(self, key: JobKey) -> JobReply:
        """Return how far a job is."""
        folder = task_folder(self._root, key.task)
        head = self.head(folder, key.job_id)
        done = done_chunks(folder, key.job_id)
        tally = self._count(folder, key.job_id, done)
        state: Literal["running", "done", "failed"] = "running" if len(done) < head.n_chunks else "done"
        if state == "done" and tally.whole_job_failed and tally.whole_job_failed == tally.failed and tally.failed >= tally.items:
            state = "failed"
        return JobReply(
            task=key.task,
            job_id=key.job_id,
            version=head.version,
            chunks=head.n_chunks,
            done=len(done),
            state=state,
            reason=tally.reason,
            items=tally.items,
            failed_items=tally.failed,
        )

    def _count(self, folder: TaskFolder, job_id: str, done: frozenset[int]) -> _Tally:
        with self._lock:
            tally = _kept(self._tallies, (folder.task, job_id), _Tally)
            for chunk in sorted(done - tally.counted):
                result = self._read(folder, job_id, chunk)
                if result is not None:
                    tally.add(result)
            return tally

    def head(self, folder: TaskFolder, job_id: str) -> JobHead:
        """Return a job's record without its items, cached. Raises NotFoundError."""
        with self._lock:
            return _kept(self._heads, (folder.task, job_id), lambda: read_job_head(folder, job_id))

    def manifest(self, folder: TaskFolder, version: str) -> Manifest:
        """Return a version's manifest, cached. Raises NotFoundError, IntegrityError."""
        with self._lock:
            return _kept(self._manifests, (folder.task, version), lambda: read_manifest(folder, version))

    def shard_set(self, folder: TaskFolder, encoder: str) -> ShardSet:
        """Return the feature shards of one task and encoder, cached."""
        with self._lock:
            return _kept(self._shards, (folder.task, encoder), lambda: ShardSet(folder, encoder))

    # ------------------------------------------------------------ results

    def results(self, request: ResultsRequest) -> ResultsReply:
        """Return the next chunks after `request.after`, waiting up to a second for the first of them."""
        folder = task_folder(self._root, request.task)
        head = self.head(folder, request.job_id)
        first = max(-1, request.after) + 1
        limit = min(max(1, request.limit), MOST_CHUNKS)
        if first < head.n_chunks:
            self._await(folder, request.job_id, first, WAIT_S)
        if 0 < first < (last := min(first + limit, head.n_chunks) - 1):
            self._await(folder, request.job_id, last, LINGER_S)
        found = self._page(folder, head, first, limit)
        if request.with_ids:
            found = [self._with_ids(folder, head, result) for result in found]
        labels = self.manifest(folder, head.version).labels if head.version else ()
        return ResultsReply(
            task=request.task,
            job_id=request.job_id,
            version=head.version,
            labels=labels,
            chunks=tuple(found),
            is_complete=first + len(found) >= head.n_chunks,
        )

    def _await(self, folder: TaskFolder, job_id: str, chunk: int, wait_s: float) -> None:
        if has_result(folder, job_id, chunk) or not self._waits.acquire(blocking=False):
            return
        try:
            end_s, pause_s = time.monotonic() + wait_s, FIRST_LOOK_S
            while not has_result(folder, job_id, chunk) and time.monotonic() < end_s:
                time.sleep(pause_s)
                pause_s = min(LONGEST_LOOK_S, 1.25 * pause_s)
        finally:
            self._waits.release()

    def _read(self, folder: TaskFolder, job_id: str, chunk: int) -> ChunkResult | None:
        """Return a chunk's answer, None while there is none.

        One that stays unreadable (torn by a power cut: results are not brought to disk one by one) is discarded, and the
        dispatcher told, so that it is computed again.
        """
        key = (str(folder.task), job_id, chunk)
        try:
            result = read_result(folder, job_id, chunk)
        except (IntegrityError, NotFoundError) as exc:
            if not has_result(folder, job_id, chunk):
                return None
            first_s = self._unreadable.setdefault(key, time.monotonic())
            if time.monotonic() - first_s < TORN_S:
                time.sleep(LONGEST_LOOK_S)
                return None
            logger.error("chunk %d of job %s is computed again: %s", chunk, job_id, exc)
            discard_result(folder, job_id, chunk)
            self._notify(folder.task, job_id)
            result = None
        self._unreadable.pop(key, None)
        return result

    def _page(self, folder: TaskFolder, head: JobHead, first: int, limit: int) -> list[ChunkResult]:
        found: list[ChunkResult] = []
        n_bytes = 0
        for chunk in range(first, min(first + limit, head.n_chunks)):
            if not has_result(folder, head.job_id, chunk):
                break
            n_bytes += result_size(folder, head.job_id, chunk)
            if found and n_bytes > min(PAGE_BYTES, self._settings.wire.max_frame_bytes // 2):
                break
            result = self._read(folder, head.job_id, chunk)
            if result is None:
                break
            found.append(result)
        return found

    def _with_ids(self, folder: TaskFolder, head: JobHead, result: ChunkResult) -> ChunkResult:
        if result.item_ids or not result.n_items or not head.version:
            return result
        ids = self.shard_set(folder, self.manifest(folder, head.version).encoder).ids(result.shard)
        return msgspec.structs.replace(result, item_ids=ids[: result.n_items])

    def all_results(self, folder: TaskFolder, job_id: str) -> list[ChunkResult]:
        """Return every chunk of a finished job with its item ids; raises InvalidInputError while one is missing."""
        head = self.head(folder, job_id)
        found = [result for chunk in range(head.n_chunks) if (result := self._read(folder, job_id, chunk)) is not None]
        if len(found) < head.n_chunks:
            missing = head.n_chunks - len(found)
            raise InvalidInputError(f"job {job_id!r} still has {missing} chunks to answer: rank it when it is done")
        return [self._with_ids(folder, head, result) for result in found]


def cut(request: JobRequest, chunk_items: int) -> tuple[ChunkSpec, ...]:
    """Return the chunks of a job: `chunk_items` items each, or one shard each."""
    if request.shards:
        return tuple(ChunkSpec(shard=shard) for shard in request.shards)
    starts = range(0, len(request.items), chunk_items)
    return tuple(ChunkSpec(items=request.items[start : start + chunk_items]) for start in starts)


def _check(request: JobRequest) -> None:
    parse_token(request.job_id, "job id")
    if request.items and request.shards:
        raise InvalidInputError(f"job {request.job_id!r} names items and shards: send two jobs")
    for shard in request.shards:
        parse_token(shard, "shard")
    if len({item.item_id for item in request.items}) != len(request.items):
        raise InvalidInputError(f"job {request.job_id!r} names an item twice: send each once")
    for item in request.items:
        parse_item(item.item_id)


def _kept(table: OrderedDict[K, V], key: K, make: Callable[[], V]) -> V:
    """Return `table[key]`, made when missing; the ones used longest ago are dropped above `KEPT`."""
    if key not in table:
        table[key] = make()
        while len(table) > KEPT:
            table.popitem(last=False)
    table.move_to_end(key)
    return table[key]
