"""The four clients of the flow, each sending its items through an RPC at a steady pace while something breaks.

Owns their notes. Must never look into the datastore nor judge. Called by `scripts.chaos.flow`.

- the outbox client sends batches and sends again, under new batch ids, what progress does not call done after a while;
- the raw client keeps nothing: a batch that `submit` answered is the cluster's business from then on;
- the caller asks `predict` and waits for each answer;
- the job client leaves durable jobs with `predict_async` and pages their results.

Each client is one thread. A retryable error is answered with another try and counted; a permanent one ends the client and is a
finding.
"""

from __future__ import annotations

import abc
import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence

import msgspec

from labelloop import messages as m
from labelloop.clients import Cluster
from labelloop.errors import LabelloopError, RetryableError
from scripts.chaos.items import ids, item_of, sample_of
from scripts.chaos.oracle import CallSeen, ChunkSeen, JobSeen

logger = logging.getLogger(__name__)

HELD_SHARE = 0.4
REST_S = 0.05
RETRY_S = 0.2
ASK_S = 0.3
CALL_S = 10.0


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How many items each client sends, in which portions, over how many seconds; the last part waits for the fault's end."""

    outbox: int = 1500
    raw: int = 500
    calls: int = 1000
    jobs: int = 4000
    batch: int = 20
    job: int = 500
    span_s: float = 20.0

    def scaled(self, share: float) -> Sizes:
        """Return the same flow with `share` of the items."""
        return msgspec.structs.replace(
            self,
            outbox=max(self.batch, int(self.outbox * share)),
            raw=max(self.batch, int(self.raw * share)),
            calls=max(self.batch, int(self.calls * share)),
            jobs=max(self.batch, int(self.jobs * share)),
            job=max(self.batch, int(self.job * share)),
        )


class Pace:
    """How many of `n` items may be on their way by now: a steady rate, whose last part waits until `release`."""

    def __init__(self, span_s: float) -> None:
        self._span_s = span_s
        self._began_s = time.monotonic()
        self._is_released = False

    def allowed(self, n: int) -> int:
        """Return how many of `n` items may have been sent, at least one batch's worth later than never: 0 <= allowed <= n."""
        share = min(1.0, (time.monotonic() - self._began_s) / self._span_s)
        return int(n * (share if self._is_released else min(share, 1.0 - HELD_SHARE)))

    def release(self) -> None:
        """Let the last part go."""
        self._is_released = True


class Stream(abc.ABC):
    """One client. `n_done` of `n` items are acknowledged or answered; `troubles` counts the retryable errors by their code."""

    def __init__(self, name: str, cluster: Cluster, task: str, pace: Pace, item_ids: Sequence[str]) -> None:
        self.name, self.cluster, self.task, self.pace = name, cluster, task, pace
        self.item_ids = tuple(item_ids)
        self.n_done = 0
        self.troubles: Counter[str] = Counter()
        self.last_trouble = ""
        self.errors: list[str] = []
        self.longest_silence_s = 0.0
        self._heard_s = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"chaos-{name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._heard_s = time.monotonic()
        self._thread.start()

    def close(self) -> None:
        """End after the call in flight."""
        self._ended.set()
        self._thread.join()

    @property
    def is_finished(self) -> bool:
        """Return whether every item got its answer."""
        return self.n_done >= len(self.item_ids)

    @property
    def is_running(self) -> bool:
        """Return whether the client still tries."""
        return self._thread.is_alive()

    @abc.abstractmethod
    def step(self) -> bool:
        """Do what is due; return whether there was anything to do. Raises what the cluster answers."""

    def heard(self) -> None:
        """Note that the cluster gave an answer."""
        now_s = time.monotonic()
        self.longest_silence_s = max(self.longest_silence_s, now_s - self._heard_s)
        self._heard_s = now_s

    def _run(self) -> None:
        while not (self._ended.is_set() or self.is_finished):
            try:
                if not self.step():
                    self._heard_s = time.monotonic()  # it waits for its pace, not for the cluster
                    self._ended.wait(REST_S)
            except RetryableError as exc:
                self.troubles[exc.code] += 1
                self.last_trouble = str(exc)
                logger.debug("%s tries again: %s", self.name, exc)
                self._ended.wait(RETRY_S)
            except LabelloopError as exc:
                self.errors.append(f"{self.name}: {exc.code}: {exc}")
                logger.error("%s ends: %s", self.name, exc)
                return

    def _portion(self, start: int, size: int) -> tuple[str, ...]:
        """Return the next `size` ids from `start` that the pace allows as a whole; () = not yet."""
        end = min(start + size, len(self.item_ids))
        return self.item_ids[start:end] if self.pace.allowed(len(self.item_ids)) >= end else ()


class OutboxStream(Stream):
    """The client with an outbox: a label leaves it when progress calls it done."""

    def __init__(self, cluster: Cluster, task: str, pace: Pace, sizes: Sizes) -> None:
        super().__init__("outbox", cluster, task, pace, ids("o", sizes.outbox))
        self._batch, self._resend_s = sizes.batch, 8.0
        self._bound = 0
        self._unsent: list[tuple[str, tuple[str, ...]]] = []
        self._sent_s: dict[str, float] = {}
        self._asked_s = 0.0
        self.n_resent = 0

    def step(self) -> bool:
        """Bind and send what is due, then ask how the sent ones fare."""
        did = self._bind()
        while self._unsent:
            batch_id, rows = self._unsent[0]
            self._send(batch_id, rows)
            self._unsent.pop(0)
            did = True
        return self._ask() or did

    def acknowledged(self) -> tuple[str, ...]:
        """Return the ids that progress called done."""
        gone = {row for _, rows in self._unsent for row in rows} | set(self._sent_s)
        return tuple(row for row in self.item_ids[: self._bound] if row not in gone)

    def offered(self) -> tuple[str, ...]:
        """Return every id that was ever bound to a batch."""
        return self.item_ids[: self._bound]

    def _bind(self) -> bool:
        rows = self._portion(self._bound, self._batch)
        if rows:
            self._unsent.append((f"outbox-{self._bound}", rows))
            self._bound += len(rows)
        return bool(rows)

    def _send(self, batch_id: str, rows: tuple[str, ...]) -> None:
        request = m.SubmitRequest(task=self.task, batch_id=batch_id, samples=tuple(sample_of(row) for row in rows))
        reply = self.cluster.train().submit(request, deadline_s=CALL_S)
        self.heard()
        self.errors.extend(f"outbox: {error.item_id} is rejected: {error.reason}" for error in reply.rejected)
        self._sent_s.update(dict.fromkeys(rows, time.monotonic()))

    def _ask(self) -> bool:
        now_s = time.monotonic()
        if not self._sent_s or now_s - self._asked_s < ASK_S:
            return False
        self._asked_s = now_s
        keys = tuple(m.ItemKey(item_id=row, revision=1) for row in self._sent_s)
        reply = self.cluster.train().progress(m.ProgressRequest(task=self.task, items=keys), deadline_s=CALL_S)
        self.heard()
        again = [state.item_id for state in reply.states if not self._settle(state, now_s)]
        if again:
            self.n_resent += len(again)
            self._unsent.append((f"outbox-again-{self.n_resent}", tuple(again)))
        return True

    def _settle(self, state: m.ItemState, now_s: float) -> bool:
        """Note one row's state; False when it must go again."""
        if state.state in ("done", "failed"):
            del self._sent_s[state.item_id]
            self.n_done += 1
            if state.state == "failed":
                self.errors.append(f"outbox: {state.item_id} failed: {state.reason}")
            return True
        if state.state == "waiting" and now_s - self._sent_s[state.item_id] < self._resend_s:
            return True
        del self._sent_s[state.item_id]
        return False


class RawStream(Stream):
    """The client without an outbox: it holds one batch until `submit` answers, then forgets it."""

    def __init__(self, cluster: Cluster, task: str, pace: Pace, sizes: Sizes) -> None:
        super().__init__("raw", cluster, task, pace, ids("r", sizes.raw))
        self._batch = sizes.batch
        self.offered: list[str] = []
        self.acknowledged: list[str] = []

    def step(self) -> bool:
        """Submit the next batch until it is answered."""
        rows = self._portion(self.n_done, self._batch)
        if not rows:
            return False
        self.offered = list(self.item_ids[: self.n_done + len(rows)])
        request = m.SubmitRequest(task=self.task, batch_id=f"raw-{self.n_done}", samples=tuple(sample_of(row) for row in rows))
        reply = self.cluster.train().submit(request, deadline_s=CALL_S)
        self.heard()
        self.errors.extend(f"raw: {error.item_id} is rejected: {error.reason}" for error in reply.rejected)
        self.acknowledged.extend(rows)
        self.n_done += len(rows)
        return True


class CallStream(Stream):
    """The caller of `predict`: one call at a time, repeated until it is answered."""

    def __init__(self, cluster: Cluster, task: str, pace: Pace, sizes: Sizes) -> None:
        super().__init__("calls", cluster, task, pace, ids("p", sizes.calls))
        self._batch = sizes.batch
        self.seen: list[CallSeen] = []

    def step(self) -> bool:
        """Ask for the next items."""
        asked = self._portion(self.n_done, self._batch)
        if not asked:
            return False
        request = m.PredictRequest(task=self.task, items=tuple(item_of(item) for item in asked))
        reply = self.cluster.inference().predict(request, deadline_s=2 * CALL_S)
        self.heard()
        self.seen.append(call_seen(asked, reply))
        self.n_done += len(asked)
        return True


def call_seen(asked: tuple[str, ...], reply: m.Predictions) -> CallSeen:
    """Return one answer as a record: a failed item keeps its place in `item_ids` and is named in `failed` too."""
    failed = tuple(error.item_id for error in reply.failed)
    return CallSeen(asked=asked, answered=reply.item_ids, failed=failed, version=reply.version)


class JobStream(Stream):
    """The client of durable jobs: an accepted job is paged to its end."""

    def __init__(self, cluster: Cluster, task: str, pace: Pace, sizes: Sizes) -> None:
        super().__init__("jobs", cluster, task, pace, ids("u", sizes.jobs))
        self._size = sizes.job
        self._begun = 0
        self.asked: dict[str, tuple[str, ...]] = {}
        self.pages: dict[str, list[ChunkSeen]] = {}
        self.complete: set[str] = set()

    def step(self) -> bool:
        """Leave the next job when it is due, then read a page of each open one."""
        asked = self._portion(self._begun, self._size)
        if asked:
            self._accept(f"job-{self._begun}", asked)
        opened = [job_id for job_id in self.asked if job_id not in self.complete]
        for job_id in opened:
            self._page(job_id)
        return bool(asked or opened)

    def _accept(self, job_id: str, asked: tuple[str, ...]) -> None:
        request = m.JobRequest(task=self.task, job_id=job_id, items=tuple(item_of(item) for item in asked))
        self.cluster.inference().predict_async(request, deadline_s=CALL_S)
        self.heard()
        self.asked[job_id], self.pages[job_id] = asked, []
        self._begun += len(asked)

    def _page(self, job_id: str) -> None:
        pages = self.pages[job_id]
        after = pages[-1].chunk if pages else -1
        request = m.ResultsRequest(task=self.task, job_id=job_id, after=after)
        reply = self.cluster.inference().results(request, deadline_s=CALL_S)
        self.heard()
        pages.extend(chunk_seen(chunk) for chunk in reply.chunks)
        self.n_done += sum(len(chunk.item_ids) + len(chunk.failed) for chunk in reply.chunks)
        if reply.is_complete:
            self.complete.add(job_id)

    def read_again(self) -> tuple[JobSeen, ...]:
        """Return every accepted job with its pages read once more from the start. Raises what the cluster answers."""
        return tuple(
            JobSeen(
                job_id=job_id,
                asked=asked,
                pages=tuple(self.pages[job_id]),
                again=tuple(self._all_pages(job_id)) if job_id in self.complete else (),
                is_complete=job_id in self.complete,
            )
            for job_id, asked in self.asked.items()
        )

    def _all_pages(self, job_id: str) -> list[ChunkSeen]:
        found: list[ChunkSeen] = []
        while True:
            after = found[-1].chunk if found else -1
            request = m.ResultsRequest(task=self.task, job_id=job_id, after=after)
            reply = self.cluster.inference().results(request, deadline_s=3 * CALL_S)
            found.extend(chunk_seen(chunk) for chunk in reply.chunks)
            if reply.is_complete or not reply.chunks:
                return found


def chunk_seen(chunk: m.ChunkResult) -> ChunkSeen:
    """Return one chunk of results as a record."""
    failed = tuple(error.item_id for error in chunk.failed)
    return ChunkSeen(chunk=chunk.chunk, item_ids=chunk.item_ids, failed=failed, version=chunk.version)
