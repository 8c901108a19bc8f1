"""One intake batch to its segment of the label log: exactly once, whatever dies on the way.

Owns the order of steps and the cornering of poison: an attempt is recorded before the work; a part of a batch that cost two
workers their lives is halved, and an item that did so alone becomes a failed row. Must never hold what a restart needs in memory.
Called by the Celery task of `roles.data.worker`; one `BatchProcessor` a process, one batch at a time.

A large batch is cut into parts that the workers of all train nodes share; whoever finishes the last part writes the segment.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, OrderedDict
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from datastore_layout.intake_files import read_intake
from datastore_layout.intake_progress import BatchProgress, has_segment
from datastore_layout.labels import LabelRow, write_segment
from datastore_layout.root import Root, TaskFolder, task_folder
from datastore_layout.tasks import read_spec
from intake.pipeline import Pipeline
from labelloop.errors import NotFoundError, RetryableError, UnreadableItemError
from labelloop.messages import Item, Sample, SubmitRequest, TaskSpec
from labelloop.settings import Settings

logger = logging.getLogger(__name__)

LOST_ATTEMPTS = 2
PATIENCE = 5  # times train.requeue_after_s: how long a part that was begun is not hinted again
_PIPELINES = 32


class Result(Enum):
    """What became of a hint."""

    WRITTEN = "its segment was written"
    KNOWN = "its segment was there already"
    GONE = "it was processed and collected, or never accepted"
    UNFINISHED = "its time was up, the rest goes on"
    PART = "a part of it is done, others are not yet"


def worker_token(node: str) -> str:
    """Return who this process is, so that others on the node can see whether it lives: node, pid and start time."""
    return f"{node}.{os.getpid()}.{_start_of(os.getpid())}"


def _start_of(pid: int) -> str:
    """Return when a process started, in clock ticks since boot; '' when there is none."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = status.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def is_lost(worker: str, me: str) -> bool:
    """Return whether the attempt of `worker` is known to have failed: it was mine and is not going on, or its process of this
    node is gone. Of other nodes nothing is known."""
    if worker == me:
        return True
    node, pid, start = worker.rsplit(".", 2)
    return node == me.rsplit(".", 2)[0] and _start_of(int(pid)) != start


class BatchProcessor:
    """Processes batches of any task below one datastore root."""

    def __init__(self, root: Root, settings: Settings, node: str) -> None:
        self._root = root
        self._settings = settings
        self._me = worker_token(node)
        self._pipelines: OrderedDict[tuple[str, int], Pipeline] = OrderedDict()

    def plan(self, task: str, batch: str) -> tuple[tuple[int, int], ...] | None:
        """Return the parts (start, stop) of a large batch that nobody has finished or is at; None = process it as a whole.

        Raises RetryableError when the datastore is not ready.
        """
        folder = task_folder(self._root, task)
        if has_segment(folder, batch):
            return None
        try:
            samples = read_intake(folder, batch).samples
        except NotFoundError:
            return None
        size = self._settings.train.part_samples
        if len(samples) <= size:
            return None
        progress = BatchProgress(folder, batch)
        saved = {(row.item_id, row.revision) for row, _ in progress.saved_rows()}
        parts = [(start, min(start + size, len(samples))) for start in range(0, len(samples), size)]
        open_parts = [(a, b) for a, b in parts if any((s.item_id, s.revision) not in saved for s in samples[a:b])]
        if not open_parts:
            return None
        patience_s = PATIENCE * self._settings.train.requeue_after_s
        return tuple((a, b) for a, b in open_parts if not progress.has_live_attempt(f"{a}-{b}", self._is_lost, patience_s))

    def _is_lost(self, worker: str) -> bool:
        return is_lost(worker, self._me)

    def process(self, task: str, batch: str, start: int = 0, stop: int = 0) -> Result:
        """Write the segment of a batch, or as much as time allows; of samples `start` to `stop` alone unless `stop` is 0.

        Raises RetryableError when the datastore or the encoder is not ready; the sweep hints again.
        """
        folder = task_folder(self._root, task)
        if has_segment(folder, batch):
            BatchProgress(folder, batch).clear()
            return Result.KNOWN
        try:
            request = read_intake(folder, batch)
        except NotFoundError:
            return Result.GONE
        work = _Work(folder, request, self._pipeline(folder), self._settings, self._me)
        if not work.run(start, stop):
            return Result.UNFINISHED
        if not work.is_whole():
            return Result.PART
        is_mine = write_segment(folder, batch, work.rows(), work.handled())
        work.progress.clear()
        return Result.WRITTEN if is_mine else Result.KNOWN

    def _pipeline(self, folder: TaskFolder) -> Pipeline:
        spec: TaskSpec = read_spec(folder)
        key = (spec.task, spec.revision)
        if key not in self._pipelines:
            self._pipelines[key] = Pipeline(folder, spec, spec.extra.encoder, self._settings.intake)
            if len(self._pipelines) > _PIPELINES:
                self._pipelines.popitem(last=False)[1].close()
        self._pipelines.move_to_end(key)
        return self._pipelines[key]

    def close(self) -> None:
        """Close all connections."""
        while self._pipelines:
            self._pipelines.popitem()[1].close()


class _Work:
    """One batch while it is being worked on: the rows that are known so far, by position."""

    def __init__(self, folder: TaskFolder, request: SubmitRequest, pipeline: Pipeline, settings: Settings, me: str) -> None:
        self.progress = BatchProgress(folder, request.batch_id)
        self._folder = folder
        self._samples = request.samples
        self._batch = request.batch_id
        self._pipeline = pipeline
        self._limit_s = settings.train.task_limit_s
        self._me = me
        self._node = me.rsplit(".", 2)[0]
        self._rows: dict[int, LabelRow] = {}
        self._nodes: dict[int, str] = {}
        self._recall()

    def _recall(self) -> None:
        """Take in what is saved of the batch."""
        saved = {(row.item_id, row.revision): (row, node) for row, node in self.progress.saved_rows()}
        for i, sample in enumerate(self._samples):
            if (found := saved.get((sample.item_id, sample.revision))) is not None:
                self._rows[i], self._nodes[i] = found

    def run(self, start: int = 0, stop: int = 0) -> bool:
        """Work on samples `start` to `stop`, 0 = all; False when the time was up, with what is done saved."""
        is_part = bool(stop)
        return self._part(start, min(stop, len(self._samples)) or len(self._samples), is_half=is_part)

    def is_whole(self) -> bool:
        """Return whether all samples are done, by whomever; a part's rows are saved before this is asked."""
        if len(self._rows) < len(self._samples):
            self.progress = BatchProgress(self._folder, self._batch)
            self._recall()
        return len(self._rows) == len(self._samples)

    def handled(self) -> dict[str, int]:
        """Return how many samples each node did."""
        return dict(Counter(self._nodes.get(i, self._node) for i in self._rows))

    def rows(self) -> list[LabelRow]:
        """Return the rows of all samples, in their order."""
        return [self._rows[i] for i in range(len(self._samples))]

    def _part(self, start: int, stop: int, is_half: bool) -> bool:
        todo = [i for i in range(start, stop) if i not in self._rows]
        if not todo:
            return True
        part = f"{start}-{stop}"
        lost = self.progress.lost_attempts(part, lambda worker: is_lost(worker, self._me), self._limit_s)
        if lost >= LOST_ATTEMPTS:
            return self._corner(start, stop, lost)
        mark = self.progress.record_attempt(part, self._me)
        try:
            is_finished = self._embed(todo)
        except RetryableError:  # nothing that the samples did
            self.progress.end_attempt(mark)
            raise
        if is_half or not is_finished:
            self.progress.save_rows([self._rows[i] for i in todo if i in self._rows], self._node)
        self.progress.end_attempt(mark)
        return is_finished

    def _corner(self, start: int, stop: int, lost: int) -> bool:
        """Halve a part that cost several attempts, or give up its only sample."""
        if stop - start > 1:
            logger.warning("batch %s: samples %d to %d ended %d workers, trying its halves", self._batch, start, stop, lost)
            middle = (start + stop) // 2
            return self._part(start, middle, is_half=True) and self._part(middle, stop, is_half=True)
        sample = self._samples[start]
        logger.error("batch %s: item %r ended %d workers by itself and is given up", self._batch, sample.item_id, lost)
        reason = f"processing it ended its worker {lost} times; replace the item and label it again"
        self._rows[start] = _row(sample, error=(UnreadableItemError.code, reason))
        self.progress.save_rows([self._rows[start]], self._node)
        return True

    def _embed(self, todo: Sequence[int]) -> bool:
        """Fill the rows of the samples at `todo`; False when the time was up before all were done."""
        wanted = [i for i in todo if not self._samples[i].is_deleted]
        self._rows.update((i, _row(self._samples[i])) for i in todo if self._samples[i].is_deleted)
        if not wanted:
            return True
        items = [Item(item_id=self._samples[i].item_id, link=self._samples[i].link) for i in wanted]
        found = self._pipeline.features(items, budget_s=self._limit_s / 4)
        for at, place in zip(found.indices, found.places, strict=True):
            self._rows[wanted[at]] = _row(self._samples[wanted[at]], place=place)
        for at, error in zip(found.failed_indices, found.failed, strict=True):
            self._rows[wanted[at]] = _row(self._samples[wanted[at]], error=(error.code, error.reason))
        return not found.unfinished


def _row(sample: Sample, place: tuple[str, int] = ("", -1), error: tuple[str, str] = ("", "")) -> LabelRow:
    return LabelRow(
        item_id=sample.item_id,
        revision=sample.revision,
        link=sample.link,
        labels=sample.labels,
        is_deleted=sample.is_deleted,
        annotator=sample.annotator,
        draft=sample.draft,
        shard=place[0],
        row=place[1],
        error_code=error[0],
        error_reason=error[1],
        regions=sample.regions,
        proba=sample.proba,
    )
