"""Supervises trainings: a warm spare forks one for each hint, at most `slots` at a time; when one dies the next attempt follows.

Beside them one rank of another node's run may be at work. Owns the child processes of a train worker. Must never import numpy,
scikit-learn, torch or tensorflow, nor train. Called by the Celery tasks that take hints (`offer`, `offer_rank`, any thread) and by
the role process (start, close).

One thread spawns, watches and kills: the kernel's parent-death signal goes by the thread that spawned, so that thread lives as
long as the process. Hints wait in memory only; a hint that dies with this process is hinted again by the sweep.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from datastore_layout.root import Root, task_folder
from datastore_layout.runs import cancel_reason, finish, latest_attempt, read_finish, read_run
from labelloop.errors import LabelloopError
from labelloop.logs import log_context
from labelloop.settings import TrainSettings
from roles.hints import RankHint, RunHint
from roles.train.orders import Order, Report
from roles.train.run_watch import attempts_allowed
from roles.train.spare import SpareProcess

logger = logging.getLogger(__name__)

CANCEL_LOOK_S = 0.2
SPARE_PAUSE_S = 1.0
RETRY_PAUSE_S = 0.5
RANK_GRACE_S = 3.0  # a rank sees by itself that its attempt is over, if anything still answers it
IDLE_S = 1.0


class Job(msgspec.Struct):
    """A training at work on a hint, or a rank of one. `pid` 0 = ordered, but not forked yet; `said` its last sentence, `at` what
    it does now; `over_s` since when there is nothing left for a rank to take part in."""

    hint: RunHint
    looked_s: float
    pid: int = 0
    said: str = ""
    at: str = ""
    is_rank: bool = False
    slot: int = 0
    over_s: float | None = None

    def doing(self) -> str:
        """Return what it does now, for the node's status."""
        rank = "a rank of " if self.is_rank else ""
        return self.at or f"{self.hint.task}: {rank}run {self.hint.run} attempt {self.hint.attempt}"

    def is_of(self, hint: RunHint | RankHint) -> bool:
        """Return whether it works for the run of a hint."""
        return (self.hint.task, self.hint.run) == (hint.task, hint.run)

    def kill(self) -> None:
        """Kill its whole process group."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


class Runner:
    """See the module. `environment` is that of the trainings: thread caps, allocator, settings.

    `call(hint, node)` asks another node to take a rank of a run that is trained here, `say(text)` tells what the trainings are
    at; neither may block.
    """

    def __init__(
        self,
        root: Root,
        config_file: Path,
        environment: Mapping[str, str],
        settings: TrainSettings,
        slots: int = 1,
        algorithms: tuple[str, ...] = ("default",),
        call: Callable[[RankHint, str], None] = lambda _hint, _node: None,
        say: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._call, self._say = call, say
        self._root = root
        self._config_file = config_file
        self._environment = environment
        self._settings = settings
        self._slots = slots
        self._algorithms = algorithms
        self._lock = threading.Lock()
        self._hints: list[tuple[float, int, RunHint]] = []
        self._order = itertools.count()
        self._rank_hints: deque[RankHint] = deque()
        self._jobs: list[Job] = []
        self._spare: SpareProcess | None = None
        self._spare_due_s = 0.0
        self._is_ending = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._thread = threading.Thread(target=self._work, name="runner", daemon=True)

    def start(self) -> None:
        """Start the supervising thread and with it the spare."""
        self._thread.start()

    def offer(self, hint: RunHint, after_s: float = 0.0) -> None:
        """Take a hint in; it is carried out when a slot is free, and dropped if somebody else has claimed it by then."""
        hint = msgspec.structs.replace(hint, passed=())
        with self._lock:
            if any(known == hint for _, _, known in self._hints):
                return
            heapq.heappush(self._hints, (time.monotonic() + after_s if after_s else 0.0, next(self._order), hint))
        self._wake()

    def offer_rank(self, hint: RankHint) -> None:
        """Take in the call for a rank; it waits for the one before it, and is dropped when its attempt is over by then."""
        with self._lock:
            if hint not in self._rank_hints:
                self._rank_hints.append(hint)
        self._wake()

    def is_full(self) -> bool:
        """Return whether a further hint would wait: all slots are taken or spoken for."""
        with self._lock:
            return len(self._hints) + sum(not job.is_rank for job in tuple(self._jobs)) >= self._slots

    def close(self) -> None:
        """Kill all trainings and end the thread."""
        self._is_ending = True
        self._wake()
        self._thread.join()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"x")

    # ------------------------------------------------------------ the supervising thread

    def _work(self) -> None:
        try:
            while not self._is_ending:
                try:
                    self._cycle(time.monotonic())
                except Exception:
                    logger.exception("supervision of trainings failed, the next cycle starts from what is")
                    time.sleep(1.0)
        finally:
            for job in self._jobs:
                job.kill()
            if self._spare is not None:
                self._spare.end()

    def _cycle(self, now_s: float) -> None:
        self._keep_spare(now_s)
        self._take_reports(now_s)
        for job in self._jobs:
            if job.pid and now_s - job.looked_s >= CANCEL_LOOK_S:
                job.looked_s = now_s
                self._kill_if_cancelled(job)
                if job.is_rank:
                    self._kill_if_left_over(job, now_s)
        while (hint := self._next_hint(now_s)) is not None:
            self._begin(hint, now_s)
        while (rank := self._next_rank()) is not None:
            self._begin_rank(rank, now_s)
        self._wait()

    def _wait(self) -> None:
        """Sleep until something is reported or offered, or the next thing is due."""
        waits_s = CANCEL_LOOK_S if self._jobs or self._hints or self._spare is None else IDLE_S
        sources: list[SpareProcess | int] = [self._wake_read]
        if self._spare is not None:
            sources.append(self._spare)
        ready, _, _ = select.select(sources, [], [], waits_s)
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)

    # ------------------------------------------------------------ the spare

    def _keep_spare(self, now_s: float) -> None:
        if self._spare is None and now_s >= self._spare_due_s:
            self._spare = SpareProcess(self._config_file, self._environment, self._algorithms)

    def _take_reports(self, now_s: float) -> None:
        reports = self._spare.reports() if self._spare is not None else []
        if reports is None:
            self._bury_spare(now_s)
            return
        for report in reports:
            if report.kind == "ready":
                logger.info("the spare is warm (%s)", ", ".join(self._algorithms))
            self._take(report)

    def _bury_spare(self, now_s: float) -> None:
        assert self._spare is not None
        status = self._spare.end()
        logger.warning("the spare ended with status %d and took %d trainings along, another is started", status, len(self._jobs))
        self._spare, self._spare_due_s = None, now_s + (SPARE_PAUSE_S if not self._jobs else 0.0)
        for job in tuple(self._jobs):
            job.kill()
            self._jobs.remove(job)
            if job.is_rank:
                continue
            self._after(job.hint, -signal.SIGKILL if job.pid else 0, job.said)
            if not job.pid:
                self.offer(job.hint, RETRY_PAUSE_S)
        self._say_all()

    def _take(self, report: Report) -> None:
        job = next((job for job in self._jobs if job.hint == report.hint), None)
        if job is None:
            return
        with log_context(task=job.hint.task, run=str(job.hint.run)):
            if report.kind == "began":
                job.pid = report.pid
                how = "gets a rank" if job.is_rank else "is trained"
                logger.info("run %d attempt %d %s by process %d", job.hint.run, job.hint.attempt, how, job.pid)
                self._say_all()
            elif report.kind == "said":
                job.said = report.text
            elif report.kind == "at":
                job.at = report.text
                self._say_all()
            elif report.kind == "calls" and report.rank is not None:
                self._call(report.rank, report.node)
            elif report.kind == "ended":
                job.kill()  # what it may have left behind in its group
                self._jobs.remove(job)
                self._say_all()
                if not job.is_rank:
                    self._after(job.hint, report.status, job.said)

    def _say_all(self) -> None:
        self._say("; ".join(job.doing() for job in self._jobs))

    # ------------------------------------------------------------ hints

    def _next_hint(self, now_s: float) -> RunHint | None:
        with self._lock:
            is_free = self._spare is not None and sum(not job.is_rank for job in self._jobs) < self._slots
            if not is_free or not self._hints or self._hints[0][0] > now_s:
                return None
            return heapq.heappop(self._hints)[2]

    def _begin(self, hint: RunHint, now_s: float) -> None:
        with log_context(task=hint.task, run=str(hint.run)):
            algorithm, why_not = self._look_up(hint)
            if why_not:
                logger.info("hint of run %d attempt %d is dropped: %s", hint.run, hint.attempt, why_not)
                return
            order = Order(hint=hint, algorithm=algorithm, slot=self._free_slot())
            if self._spare is not None and self._spare.give(order):
                self._jobs.append(Job(hint, now_s, slot=order.slot))
            else:
                self.offer(hint, RETRY_PAUSE_S)

    def _free_slot(self) -> int:
        taken = {job.slot for job in self._jobs}
        return next(slot for slot in itertools.count() if slot not in taken)

    def _next_rank(self) -> RankHint | None:
        with self._lock:
            known = {(job.hint.task, job.hint.run, job.hint.attempt) for job in self._jobs}
            fresh = [hint for hint in self._rank_hints if (hint.task, hint.run, hint.attempt) not in known]
            self._rank_hints = deque(fresh)  # a call that is answered already comes again until the rank is in
            is_free = self._spare is not None and not any(job.is_rank for job in self._jobs)
            return self._rank_hints.popleft() if is_free and self._rank_hints else None

    def _begin_rank(self, rank: RankHint, now_s: float) -> None:
        with log_context(task=rank.task, run=str(rank.run)):
            hint = RunHint(task=rank.task, run=rank.run, attempt=rank.attempt)
            algorithm, why_not = self._look_up_rank(rank)
            if why_not:
                logger.info("rank of run %d attempt %d is not taken: %s", rank.run, rank.attempt, why_not)
                return
            order = Order(hint=hint, algorithm=algorithm, rank=rank, slot=self._free_slot())
            if self._spare is not None and self._spare.give(order):
                self._jobs.append(Job(hint, now_s, is_rank=True, slot=order.slot))  # a call that is lost comes again

    def _look_up_rank(self, rank: RankHint) -> tuple[str, str]:
        """Return the run's algorithm and why no rank of it is to be taken here, '' = it is."""
        if any(job.is_of(rank) for job in self._jobs):
            return "", "a process of the run is at work here"
        try:
            folder = task_folder(self._root, rank.task)
            if (end := read_finish(folder, rank.run)) is not None:
                return "", f"the run is {end.state}"
            if latest_attempt(folder, rank.run) != rank.attempt:
                return "", "it is not the newest attempt"
            return read_run(folder, rank.run).algorithm, ""
        except LabelloopError as exc:
            return "", str(exc)

    def _look_up(self, hint: RunHint) -> tuple[str, str]:
        """Return the run's algorithm and why it is not to be trained here, '' = it is."""
        for job in tuple(self._jobs):
            if job.is_of(hint) and job.is_rank and job.hint.attempt < hint.attempt:
                job.kill()  # its owner is dead: it would soon end by itself
            elif job.is_of(hint):
                return "", "an attempt is at work here"
        try:
            folder = task_folder(self._root, hint.task)
            if (end := read_finish(folder, hint.run)) is not None:
                return "", f"the run is {end.state}"
            if latest_attempt(folder, hint.run) >= hint.attempt:
                return "", "the attempt is claimed"
            return read_run(folder, hint.run).algorithm, ""
        except LabelloopError as exc:
            return "", str(exc)

    def _kill_if_cancelled(self, job: Job) -> None:
        try:
            folder = task_folder(self._root, job.hint.task)
            reason = cancel_reason(folder, job.hint.run)
            if reason is None:
                return
            finish(folder, job.hint.run, "cancelled", reason)
        except LabelloopError as exc:
            logger.warning("run %d of %s: %s", job.hint.run, job.hint.task, exc)
            return
        logger.info("run %d of %s is cancelled, process group %d is killed", job.hint.run, job.hint.task, job.pid)
        job.kill()

    def _kill_if_left_over(self, job: Job, now_s: float) -> None:
        """Kill a rank that outlives its attempt: it may wait without end for an owner whose machine has lost its power."""
        try:
            folder = task_folder(self._root, job.hint.task)
            is_over = latest_attempt(folder, job.hint.run) > job.hint.attempt or read_finish(folder, job.hint.run) is not None
        except LabelloopError as exc:
            logger.warning("run %d of %s: %s", job.hint.run, job.hint.task, exc)
            return
        if not is_over:
            return
        job.over_s = now_s if job.over_s is None else job.over_s
        if now_s - job.over_s >= RANK_GRACE_S:
            logger.warning("the rank of run %d attempt %d is killed: its attempt is over", job.hint.run, job.hint.attempt)
            job.kill()

    def _after(self, hint: RunHint, status: int, said: str) -> None:
        """Start the next attempt of a run that a dead child left without an end, or fail it."""
        if status == 0:
            return
        how = f"signal {-status}" if status < 0 else f"status {status}: {said}"
        try:
            folder = task_folder(self._root, hint.task)
            if read_finish(folder, hint.run) is not None:
                return
            attempt = latest_attempt(folder, hint.run)
            if attempt >= attempts_allowed(folder, hint.run, self._settings.attempts):
                reason = f"{attempt} attempts failed, the last with {how}"
                logger.error("run %d failed: %s", hint.run, reason)
                finish(folder, hint.run, "failed", reason)
                return
        except LabelloopError as exc:
            logger.warning("run %d: the sweep will see to it: %s", hint.run, exc)
            return
        if attempt > hint.attempt:  # another worker has taken over
            return
        logger.warning("attempt %d ended with %s: attempt %d follows", hint.attempt, how, attempt + 1)
        self.offer(RunHint(task=hint.task, run=hint.run, attempt=attempt + 1), 0.0 if status < 0 else RETRY_PAUSE_S * attempt)
