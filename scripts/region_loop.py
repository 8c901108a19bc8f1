"""People who correct drafts of boxes or spans, played by the truth, on a real cluster over RPC.

Owns one task's way round: the cluster says which items to ask next and drafts them, the oracle corrects the drafts and counts
what it had to do, the labels go back, the cluster trains by itself. Must never look into the datastore: it knows what a platform's
backend knows. Called by `scripts.bench_regions` and the cluster's tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from labelloop.clients import Cluster
from labelloop.errors import DeadlineError, NotFoundError, RetryableError
from labelloop.messages import (
    Category,
    ChunkResult,
    Draft,
    Item,
    JobRequest,
    OpenTaskRequest,
    PredictRequest,
    ProgressRequest,
    RankRequest,
    Region,
    ResultsRequest,
    RunView,
    Sample,
    SubmitRequest,
    TaskExtraInfo,
    TaskRequest,
    TaskSpec,
)
from learning.metrics_regions import Corrections, corrections, region_f1
from learning.regions import Regions
from roles.regions import WIDTH_OF, to_arrays

T = TypeVar("T")
_LOOK_S = 0.02
_MOST_AT_ONCE = 200


class TrueItem(NamedTuple):
    """An item and what is truly in it."""

    item_id: str
    link: str
    regions: tuple[Region, ...]

    @property
    def item(self) -> Item:
        return Item(item_id=self.item_id, link=self.link)


class Round(NamedTuple):
    """One batch: how many items were labelled, by whose drafts ('' = none), what the oracle did, and which run came of it."""

    n_items: int
    version: str
    strategy: str
    done: Corrections
    run: RunView


class RegionLoop:
    """One task. Not thread-safe."""

    def __init__(
        self,
        cluster: Cluster,
        task: str,
        category: Category,
        labels: tuple[str, ...],
        truth: Sequence[TrueItem],
        *,
        batch: int,
        strategy: str = "auto",
        algorithm: str = "auto",
        encoder: str = "auto",
        patience_s: float = 120.0,
    ) -> None:
        self._cluster, self._task, self._strategy, self._batch, self._patience_s = cluster, task, strategy, batch, patience_s
        self._width = WIDTH_OF[category]
        self._number_of = {label: i for i, label in enumerate(labels)}
        self._pool = tuple(truth)
        self._open = {one.item_id: one for one in truth}
        self._shards: tuple[str, ...] = ()
        self._n_labelled = 0
        self.serving = ""
        extra = TaskExtraInfo(
            kind="regions", labels=labels, algorithm=algorithm, encoder=encoder, retrain_labels=batch, is_comparer_on=False
        )
        cluster.registry().open_task(OpenTaskRequest(spec=TaskSpec(task=task, category=category, extra=extra)))

    def round(self) -> Round:
        """Label the next batch by correcting its drafts and wait for the training that comes of it.

        Raises DeadlineError naming what did not come.
        """
        chosen, strategy = self._choose()
        drafts = self.drafts(chosen) if self.serving else [()] * len(chosen)
        done = corrections(self._arrays([one.regions for one in chosen]), self._arrays(drafts))
        self._submit(chosen, drafts)
        version, run = self.serving, self._await(self._run_over_all, f"a training on {self._n_labelled} labels")
        self._await(self._is_served, "the serving version's answers")
        return Round(len(chosen), version, strategy, done, run)

    def drafts(self, items: Sequence[TrueItem]) -> list[tuple[Region, ...]]:
        """Return what the serving version finds in each item."""
        found: list[tuple[Region, ...]] = []
        for start in range(0, len(items), _MOST_AT_ONCE):
            asked = tuple(one.item for one in items[start : start + _MOST_AT_ONCE])
            found += self._cluster.inference().predict(PredictRequest(task=self._task, items=asked)).regions
        return found

    def judge(self, items: Sequence[TrueItem]) -> tuple[Corrections, float]:
        """Return what the drafts of `items` need to be right, and their F1: of boxes at overlap 0.5, of spans exactly."""
        truth, drafts = self._arrays([one.regions for one in items]), self._arrays(self.drafts(items))
        return corrections(truth, drafts), region_f1(truth, drafts)

    def _choose(self) -> tuple[list[TrueItem], str]:
        """Return what the cluster wants to know next, by a job over the pool: embedded once, then scored by each version."""
        job_id = f"after-{self._n_labelled}"
        given = {"shards": self._shards} if self._shards else {"items": tuple(one.item for one in self._pool)}
        request = msgspec.convert({"task": self._task, "job_id": job_id, **given}, JobRequest)
        self._cluster.inference().predict_async(request)
        chunks = self._await(lambda: self._results(job_id), "the pool's scores")
        self._shards = tuple(chunk.shard for chunk in chunks if chunk.shard)
        labelled = tuple(one.item_id for one in self._pool if one.item_id not in self._open)
        order = RankRequest(task=self._task, strategy=self._strategy, n=self._batch, job_id=job_id, exclude=labelled)
        ranked = self._cluster.inference().rank(order)
        if not ranked.item_ids:
            failed = [error for chunk in chunks for error in chunk.failed]
            raise NotFoundError(f"no item of {self._task} is left to label; {failed[0].reason if failed else 'all are labelled'}")
        return [self._open.pop(item_id) for item_id in ranked.item_ids], ranked.strategy

    def _results(self, job_id: str) -> list[ChunkResult] | None:
        """Return all chunks of a job once it is done."""
        found: list[ChunkResult] = []
        while True:
            after = found[-1].chunk if found else -1
            page = self._cluster.inference().results(ResultsRequest(task=self._task, job_id=job_id, after=after, with_ids=False))
            found += page.chunks
            if page.is_complete:
                return found
            if not page.chunks:
                return None

    def _submit(self, chosen: Sequence[TrueItem], drafts: Sequence[tuple[Region, ...]]) -> None:
        samples = tuple(
            Sample(
                item_id=one.item_id,
                link=one.link,
                labels=(),
                regions=one.regions,
                draft=Draft(labels=(), version=self.serving, regions=draft) if self.serving else None,
            )
            for one, draft in zip(chosen, drafts, strict=True)
        )
        request = SubmitRequest(task=self._task, batch_id=f"batch-{self._n_labelled}", samples=samples)
        reply = self._cluster.train().submit(request)
        if reply.rejected:
            raise ValueError(f"a true label was refused: {reply.rejected[0].reason}")
        self._n_labelled += reply.accepted

    def _run_over_all(self) -> RunView | None:
        """Return the run that learned from everything sent so far, once it has ended."""
        runs = self._cluster.train().models(TaskRequest(task=self._task)).runs
        return next((run for run in runs if run.labels >= self._n_labelled and run.state in ("done", "failed")), None)

    def _is_served(self) -> bool:
        self.serving = self._cluster.train().models(TaskRequest(task=self._task)).serving
        if not self.serving or not self._open:
            return True  # a first run that failed; or nobody is left to ask about
        asked = (next(iter(self._open.values())).item,)
        return self._cluster.inference().predict(PredictRequest(task=self._task, items=asked)).version == self.serving

    def _await(self, look: Callable[[], T | None], what: str) -> T:
        end_s = time.monotonic() + self._patience_s
        while time.monotonic() < end_s:
            try:
                if found := look():
                    return found
            except RetryableError:
                pass  # nothing is lost: a node is starting, or changes versions
            time.sleep(_LOOK_S)
        progress = self._cluster.train().progress(ProgressRequest(task=self._task))
        raise DeadlineError(f"{what} did not come within {self._patience_s:g} s: {progress.next_training}")

    def _arrays(self, regions: Sequence[tuple[Region, ...]]) -> list[Regions]:
        return [to_arrays(one, self._number_of, self._width) for one in regions]


def as_figures(one: Round) -> dict[str, object]:
    """Return a round as plain figures for a report."""
    return {
        "items": one.n_items,
        "drafted by": one.version,
        "strategy": one.strategy,
        "true regions": one.done.n_true,
        "wrong": one.done.wrong,
        "missing": one.done.missing,
        "extra": one.done.extra,
        "corrections per 100": round(one.done.per_100, 1),
        "run": msgspec.structs.asdict(one.run)["state"],
        "held-out": one.run.metrics,
    }
