"""Supervises training children: one warm spare, at most `slots` at work, the next attempt when one dies.

Owns the child processes of a train worker. Must never import numpy, scikit-learn, torch or tensorflow, nor train. Called by the
Celery task that takes hints (`offer`, any thread) and by the role process (start, close).

One thread spawns, watches and kills all children: the kernel's parent-death signal goes by the thread that spawned, so that thread
lives as long as the process. Hints wait in memory only; a hint that dies with this process is hinted again by the sweep.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from datastore_layout.root import Root, task_folder
from datastore_layout.runs import cancel_reason, finish, latest_attempt, read_finish, read_run
from labelloop.errors import LabelloopError
from labelloop.logs import log_context
from labelloop.messages import encode
from labelloop.settings import TrainSettings
from roles.hints import RunHint

logger = logging.getLogger(__name__)

TICK_S = 0.02
CANCEL_LOOK_S = 0.2
SPARE_PAUSE_S = 0.3
RETRY_PAUSE_S = 0.5
KEPT_WARM = 3


class Child:
    """One training child, in a process group of its own."""

    def __init__(self, config_file: Path, environment: Mapping[str, str], algorithms: tuple[str, ...]) -> None:
        command = [sys.executable, "-m", "roles.train.child", str(config_file), str(os.getpid()), ",".join(algorithms)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(environment), start_new_session=True
        )

    def give(self, hint: RunHint) -> bool:
        """Hand over the order; False when the child is dead."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(encode(hint))
            self.process.stdin.close()
        except OSError:
            return False
        return True

    def poll(self) -> int | None:
        """Return the exit status, None while it lives."""
        return self.process.poll()

    def kill(self) -> None:
        """Kill the whole process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def end(self) -> str:
        """Kill what is left of the group, wait, close the pipes; return what the child said last."""
        self.kill()
        self.process.wait()
        assert self.process.stdout is not None
        said = self.process.stdout.read().decode("utf-8", "replace").strip()
        self._close()
        return said

    def _close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class Job(msgspec.Struct):
    """A child at work on a hint."""

    hint: RunHint
    child: Child
    looked_s: float


class Runner:
    """See the module. `environment` is that of the children: thread caps, allocator, settings."""

    def __init__(
        self,
        root: Root,
        config_file: Path,
        environment: Mapping[str, str],
        settings: TrainSettings,
        slots: int = 1,
        algorithms: tuple[str, ...] = ("logistic-regression",),
    ) -> None:
        self._root = root
        self._config_file = config_file
        self._environment = environment
        self._settings = settings
        self._slots = slots
        self._algorithms = algorithms
        self._lock = threading.Condition()
        self._hints: list[tuple[float, int, RunHint]] = []
        self._order = itertools.count()
        self._jobs: list[Job] = []
        self._spare: Child | None = None
        self._spare_due_s = 0.0
        self._is_ending = False
        self._thread = threading.Thread(target=self._work, name="runner", daemon=True)

    def start(self) -> None:
        """Start the supervising thread and with it the spare."""
        self._thread.start()

    def offer(self, hint: RunHint, after_s: float = 0.0) -> None:
        """Take a hint in; it is carried out when a slot is free, and dropped if somebody else has claimed it by then."""
        with self._lock:
            if all(known != hint for _, _, known in self._hints):
                heapq.heappush(self._hints, (time.monotonic() + after_s if after_s else 0.0, next(self._order), hint))
                self._lock.notify()

    def close(self) -> None:
        """Kill all children and end the thread."""
        with self._lock:
            self._is_ending = True
            self._lock.notify()
        self._thread.join()

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of children at work."""
        return tuple(job.child.process.pid for job in list(self._jobs))

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
            for child in [job.child for job in self._jobs] + ([self._spare] if self._spare else []):
                child.end()

    def _cycle(self, now_s: float) -> None:
        for job in tuple(self._jobs):
            self._watch(job, now_s)
        hint = self._next_hint(now_s)
        if hint is not None:
            self._begin(hint, now_s)
        self._keep_spare(now_s)
        with self._lock:
            is_idle = not self._jobs and not self._hints and self._spare is not None
            if not self._is_ending and (hint is None):
                self._lock.wait(1.0 if is_idle else TICK_S)

    def _next_hint(self, now_s: float) -> RunHint | None:
        with self._lock:
            if len(self._jobs) >= self._slots or not self._hints or self._hints[0][0] > now_s:
                return None
            return heapq.heappop(self._hints)[2]

    def _begin(self, hint: RunHint, now_s: float) -> None:
        with log_context(task=hint.task, run=str(hint.run)):
            if (why := self._why_not(hint)) is not None:
                logger.info("hint of run %d attempt %d is dropped: %s", hint.run, hint.attempt, why)
                return
            child, self._spare = self._spare or self._spawn(), None
            if not child.give(hint):
                child.end()
                self.offer(hint, RETRY_PAUSE_S)
                return
            self._jobs.append(Job(hint, child, now_s))
            logger.info("run %d attempt %d is trained by process %d", hint.run, hint.attempt, child.process.pid)

    def _why_not(self, hint: RunHint) -> str | None:
        try:
            folder = task_folder(self._root, hint.task)
            if (end := read_finish(folder, hint.run)) is not None:
                return f"the run is {end.state}"
            if latest_attempt(folder, hint.run) >= hint.attempt:
                return "the attempt is claimed"
            self._remember(read_run(folder, hint.run).algorithm)
        except LabelloopError as exc:
            return str(exc)
        return None

    def _remember(self, algorithm: str) -> None:
        """Keep the libraries of the algorithms of late warm in the next spares."""
        if algorithm not in self._algorithms:
            self._algorithms = (*self._algorithms, algorithm)[-KEPT_WARM:]

    def _spawn(self) -> Child:
        return Child(self._config_file, self._environment, self._algorithms)

    def _keep_spare(self, now_s: float) -> None:
        if self._spare is not None and self._spare.poll() is not None:
            logger.warning("the spare child ended by itself with status %s, another is started", self._spare.poll())
            self._spare.end()
            self._spare, self._spare_due_s = None, now_s + 1.0
        if self._spare is None and not self._jobs and now_s >= self._spare_due_s:
            self._spare = self._spawn()

    def _watch(self, job: Job, now_s: float) -> None:
        status = job.child.poll()
        if status is not None:
            said = job.child.end()
            self._jobs.remove(job)
            self._spare_due_s = now_s + SPARE_PAUSE_S
            with log_context(task=job.hint.task, run=str(job.hint.run)):
                self._after(job.hint, status, said)
        elif now_s - job.looked_s >= CANCEL_LOOK_S:
            job.looked_s = now_s
            self._kill_if_cancelled(job)

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
        logger.info("run %d of %s is cancelled, process group %d is killed", job.hint.run, job.hint.task, job.child.process.pid)
        job.child.kill()

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
            if attempt >= self._settings.attempts:
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
