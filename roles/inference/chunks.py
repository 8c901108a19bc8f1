"""One chunk of a durable job, answered exactly once, even when an item in it kills its worker.

Owns attempts, halving and result files. Must never be stopped by one item: it is answered as failed. Called by `worker`.

An attempt is marked before the work; one that ended in an error (the worker lived) is marked as survived. A chunk with two lost
attempts is halved, each half counts its own, and an item that is lost twice alone is failed. Halves that are answered are kept
beside the results, so that a later death does not cost them again. Results are written and brought to disk by a second thread
while the next chunk is computed; `drain` waits for them, before the order is reported as done.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from datastore_layout.job_progress import JobDesk
from labelloop.errors import InternalError, LabelloopError, NotReadyError, PermanentError
from labelloop.messages import Array, ChunkResult, Item, ItemError
from learning.regions import RegionModel
from roles.inference.calls import ChunkPart, ChunkWork, failed_chunk
from roles.inference.predictor import Predictor, Scored, pack_array, unpack_array

logger = logging.getLogger(__name__)

LOST_ATTEMPTS = 2
BUDGET_S = 10.0


@dataclass(frozen=True)
class _Piece:
    """Rows or items `lo` <= i < `hi` of one chunk; `key` names its attempts."""

    order: ChunkWork
    part: ChunkPart
    desk: JobDesk
    lo: int
    hi: int
    is_whole: bool

    @property
    def key(self) -> str:
        return str(self.part.chunk) if self.is_whole else f"{self.part.chunk}.{self.lo}-{self.hi}"

    def cut(self, lo: int, hi: int) -> _Piece:
        return _Piece(self.order, self.part, self.desk, lo, hi, False)


class ChunkWorker:
    """Answers chunks with `predictor`; one per worker child."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="results")
        self._writing: list[Future[bool]] = []

    def open_desk(self, order: ChunkWork) -> JobDesk:
        """Return the desk at which the chunks of one order are answered."""
        return JobDesk(self._predictor.folder(order.task), order.job_id)

    def answer(self, desk: JobDesk, order: ChunkWork, part: ChunkPart) -> None:
        """Compute one chunk and hand its result to the writer; a chunk that is answered already costs nothing.

        Raises RetryableError when the attempt may be repeated; the chunk is then as open as before.
        """
        if desk.is_done(part.chunk):
            return
        try:
            result = self._predictor.root.surely(lambda: self._compute(desk, order, part))
        except PermanentError as exc:
            logger.error("chunk %d of job %s is answered as failed: %s", part.chunk, order.job_id, exc)
            self.fail(desk, order, part, exc)
        else:
            self._write(desk, result)

    def _compute(self, desk: JobDesk, order: ChunkWork, part: ChunkPart) -> ChunkResult:
        n = len(part.items) or len(self._rows(order, part))
        result = self._corner(_Piece(order, part, desk, 0, n, True))
        return self._gather(order, part, result) if part.items and result.item_ids and not result.shard else result

    def fail(self, desk: JobDesk, order: ChunkWork, part: ChunkPart, exc: LabelloopError) -> None:
        """Answer every item of a chunk with one error."""
        self._write(desk, failed_chunk(order, part, exc))

    def drain(self) -> None:
        """Return once every result handed over is on disk; raises what the writer met."""
        writing, self._writing = self._writing, []
        for future in writing:
            future.result()

    def close(self) -> None:
        self._writer.shutdown()

    def _write(self, desk: JobDesk, result: ChunkResult) -> None:
        self._writing.append(self._writer.submit(desk.write_result, result))

    def _rows(self, order: ChunkWork, part: ChunkPart) -> NDArray[np.float32]:
        encoder = self._predictor.encoder(order.task, order.version)
        return self._predictor.shards(order.task, encoder).features(part.shard)

    # ------------------------------------------------------------ cornering poison

    def _corner(self, piece: _Piece) -> ChunkResult:
        desk = piece.desk
        began = desk.attempts_of(piece.key)
        kept = None if piece.is_whole else desk.read_piece(piece.key)
        if kept is not None:
            return kept
        if began and began - desk.attempts_of(f"{piece.key}.survived") >= LOST_ATTEMPTS:
            return self._halve(piece)
        desk.record_attempt(piece.key)
        result = self._try(piece)
        if not piece.is_whole:
            desk.write_piece(piece.key, result)
        return result

    def _try(self, piece: _Piece) -> ChunkResult:
        try:
            return self._score(piece)
        except BaseException:
            piece.desk.record_attempt(f"{piece.key}.survived")
            raise

    def _halve(self, piece: _Piece) -> ChunkResult:
        if piece.hi - piece.lo == 1:
            return self._poisoned(piece)
        middle = (piece.lo + piece.hi) // 2
        logger.warning("chunk %s of job %s lost %d workers, trying its halves", piece.key, piece.order.job_id, LOST_ATTEMPTS)
        return _join(self._corner(piece.cut(piece.lo, middle)), self._corner(piece.cut(middle, piece.hi)))

    def _poisoned(self, piece: _Piece) -> ChunkResult:
        part, reason = piece.part, f"this item ended its worker {LOST_ATTEMPTS} times"
        item_id = part.items[piece.lo].item_id if part.items else self._ids(piece.order, part)[piece.lo]
        logger.error("item %s of job %s is answered as failed: %s", item_id, piece.order.job_id, reason)
        failed = (ItemError(item_id=item_id, code=InternalError.code, reason=reason),)
        if part.items:
            return ChunkResult(chunk=part.chunk, shard="", version=piece.order.version, item_ids=(), n_items=0, failed=failed)
        warm = self._predictor.warm(piece.order.task, piece.order.version)
        proba = pack_array(np.zeros((1, len(warm.manifest.labels)), np.float32))
        result = ChunkResult(
            chunk=part.chunk, shard=part.shard, version=piece.order.version, item_ids=(), n_items=1, proba=proba, failed=failed
        )
        return msgspec.structs.replace(result, regions=((),)) if isinstance(warm.model, RegionModel) else result

    def _ids(self, order: ChunkWork, part: ChunkPart) -> tuple[str, ...]:
        return self._predictor.shards(order.task, self._predictor.encoder(order.task, order.version)).ids(part.shard)

    def _score(self, piece: _Piece) -> ChunkResult:
        order, part = piece.order, piece.part
        if part.shard:
            rows = slice(piece.lo, piece.hi)
            return _packed(part, self._predictor.score_rows(order.task, order.version, part.shard, rows), piece.hi - piece.lo)
        return self._score_items(piece, part.items[piece.lo : piece.hi])

    def _score_items(self, piece: _Piece, items: Sequence[Item]) -> ChunkResult:
        """Score items within the budget of time; slow links are put off, those that failed meanwhile are not tried again."""
        order, part = piece.order, piece.part
        failed = self._failed_before(piece)
        known = {error.item_id for error in failed}
        items = [item for item in items if item.item_id not in known]
        scored = self._predictor.score_items(order.task, order.version, items, write_shard=True, budget_s=BUDGET_S)
        result = _packed(part, scored, len(scored.item_ids), tuple(failed))
        if scored.is_finished:
            return result
        if scored.failed:
            kept = msgspec.structs.replace(result, item_ids=(), n_items=0, proba=None, failed=scored.failed, regions=())
            piece.desk.write_piece(f"{piece.key}.failed-{len(failed)}", kept)
        raise NotReadyError(f"chunk {piece.key} of job {order.job_id} is slow: it goes on at its next turn")

    def _failed_before(self, piece: _Piece) -> list[ItemError]:
        failed: list[ItemError] = []
        while kept := piece.desk.read_piece(f"{piece.key}.failed-{len(failed)}"):
            failed.extend(kept.failed)
        return failed

    def _gather(self, order: ChunkWork, part: ChunkPart, joined: ChunkResult) -> ChunkResult:
        """Give the good items of a halved chunk one shard; their features are cached by now."""
        good = set(joined.item_ids)
        items = [item for item in part.items if item.item_id in good]
        scored = self._predictor.score_items(order.task, order.version, items, write_shard=True)
        result = _packed(part, scored, len(scored.item_ids))
        return msgspec.structs.replace(result, failed=joined.failed + result.failed)


def _packed(part: ChunkPart, scored: Scored, n: int, failed: tuple[ItemError, ...] = ()) -> ChunkResult:
    proba = None if scored.proba is None else pack_array(scored.proba)
    return ChunkResult(
        chunk=part.chunk,
        shard=scored.shard,
        version=scored.version,
        item_ids=scored.item_ids,
        n_items=n,
        proba=proba,
        failed=failed + scored.failed,
        regions=scored.regions,
    )


def _join(first: ChunkResult, second: ChunkResult) -> ChunkResult:
    return ChunkResult(
        chunk=first.chunk,
        shard=first.shard if first.shard == second.shard else "",
        version=first.version,
        item_ids=first.item_ids + second.item_ids,
        n_items=first.n_items + second.n_items,
        proba=_stacked(first.proba, second.proba),
        failed=first.failed + second.failed,
        regions=first.regions + second.regions,
    )


def _stacked(first: Array | None, second: Array | None) -> Array | None:
    parts = [unpack_array(array) for array in (first, second) if array is not None]
    return pack_array(np.concatenate(parts)) if parts else None
