"""Keeps a set of processes running: starts, watches, restarts with back-off, stops whole trees, keeps their logs.

Owns the processes it starts. Must never know what they do. Called by a manager (role processes) and by the demo (broker,
registry, managers, web, pilot).

Locks: `_lock` guards everything below it; one thread, the keeper, starts and stops processes, because a process dies with
the thread that started it. `update`, `views` and `stop` may be called from any thread.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cluster.process import (
    ProcessSeen,
    ProcessSpec,
    Step,
    backoff_s,
    describe_exit,
    find_marked,
    kill_tree,
    next_step,
    rotate_log,
    spawn,
    tail_log,
)
from labelloop.errors import InvalidInputError, NotFoundError
from labelloop.messages import ProcessView
from labelloop.settings import ClusterSettings

__all__ = ["ProcessSpec", "Supervisor"]
logger = logging.getLogger(__name__)

_ROTATE_EVERY_S = 5.0
_POLL_S = 0.05  # where the kernel has no pidfd
_STARTING_S = 1.0


class _Process:
    """What the keeper knows of one name; touched under the lock only."""

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.wanted: ProcessSpec | None = spec
        self.popen: subprocess.Popen[bytes] | None = None
        self.pidfd = -1
        self.started_s = 0.0
        self.not_before_s = 0.0
        self.kill_at_s = 0.0
        self.is_stopping = False
        self.starts = 0
        self.failures = 0
        self.reason = ""

    def seen(self, may_stop: bool) -> ProcessSeen:
        return ProcessSeen(
            is_wanted=self.wanted is not None,
            is_changed=self.wanted is not None and self.wanted != self.spec,
            is_running=self.popen is not None,
            is_stopping=self.is_stopping,
            may_stop=may_stop,
            kill_at_s=self.kill_at_s,
            not_before_s=self.not_before_s,
        )

    def is_settled(self, now_s: float) -> bool:
        if self.popen is None:
            return self.wanted is not None and now_s < self.not_before_s
        return self.wanted == self.spec and not self.is_stopping

    def view(self, now_s: float) -> ProcessView:
        state: Literal["starting", "running", "backing-off", "stopped"]
        if self.popen is None:
            state = "backing-off" if self.wanted is not None else "stopped"
        else:
            state = "running" if now_s - self.started_s >= _STARTING_S else "starting"
        pid = self.popen.pid if self.popen is not None else 0
        return ProcessView(name=self.spec.name, pid=pid, state=state, restarts=max(0, self.starts - 1), reason=self.reason)


class Supervisor:
    """Keeps `specs` running from `start` to `stop`."""

    def __init__(self, specs: Sequence[ProcessSpec], settings: ClusterSettings) -> None:
        self._settings = settings
        self._lock = threading.Condition()
        self._processes: dict[str, _Process] = {}
        self._is_ending = False
        self._is_stale = True  # wanted changed since the keeper last looked
        self._thread: threading.Thread | None = None
        self._selector = selectors.DefaultSelector()
        self._wake_fd = -1
        self._rotate_at_s = 0.0
        self._want(specs)

    def start(self) -> None:
        """Start all processes and return when each was started once (or is backing off)."""
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._wake_fd, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._keep, name="supervisor", daemon=True)
        self._thread.start()
        self._wait_settled()

    def update(self, specs: Sequence[ProcessSpec]) -> None:
        """Want exactly `specs` from now on: equal ones are left alone, others stopped, started or restarted.

        Returns when that has been done. Raises InvalidInputError on two specs of one name.
        """
        with self._lock:
            self._want(specs)
        self._wake()
        self._wait_settled()

    def views(self) -> tuple[ProcessView, ...]:
        """Return one view a process, in the order of the specs."""
        now_s = time.monotonic()
        with self._lock:
            return tuple(process.view(now_s) for process in self._processes.values())

    def log_text(self, name: str, lines: int) -> str:
        """Return the last `lines` lines of a process's log; raises NotFoundError naming the processes there are."""
        with self._lock:
            process = self._processes.get(name)
            known = ", ".join(self._processes)
        if process is None:
            raise NotFoundError(f"no process {name!r} here; there are: {known or 'none'}")
        return tail_log(process.spec.log_file, lines)

    def stop(self) -> None:
        """Stop all processes, highest stop layer first, each with its whole tree; returns when none is left."""
        with self._lock:
            self._is_ending = True
            self._want(())
        if self._thread is None:
            return
        self._wake()
        self._thread.join()
        self._thread = None
        self._selector.close()
        os.close(self._wake_fd)

    def _want(self, specs: Sequence[ProcessSpec]) -> None:
        names = [spec.name for spec in specs]
        if len(set(names)) != len(names):
            raise InvalidInputError(f"two processes of one name among {names}")
        for process in self._processes.values():
            process.wanted = None
        for spec in specs:
            process = self._processes.setdefault(spec.name, _Process(spec))
            process.wanted = spec
            if process.popen is None and process.spec != spec:
                process.not_before_s = 0.0
        self._is_stale = True

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def _wait_settled(self) -> None:
        with self._lock:
            self._lock.wait_for(
                lambda: not self._is_stale and all(p.is_settled(time.monotonic()) for p in self._processes.values())
            )

    # ------------------------------------------------------------ the keeper

    def _keep(self) -> None:
        while True:
            try:
                with self._lock:
                    wait_s = self._cycle(time.monotonic())
                    self._lock.notify_all()
                    if self._is_ending and not self._processes:
                        return
                self._sleep(wait_s)
            except Exception:  # the daemon loop: its end would kill every process it started
                logger.exception("supervisor cycle failed, trying again")
                time.sleep(_POLL_S)

    def _sleep(self, wait_s: float) -> None:
        for key, _ in self._selector.select(wait_s):
            if key.fd == self._wake_fd:
                os.eventfd_read(self._wake_fd)

    def _cycle(self, now_s: float) -> float:
        self._is_stale = False
        for process in list(self._processes.values()):
            self._note_exit(process, now_s)
        for process in list(self._processes.values()):
            self._act(process, now_s)
        if now_s >= self._rotate_at_s:
            self._rotate_at_s = now_s + _ROTATE_EVERY_S
            for process in self._processes.values():
                rotate_log(process.spec.log_file)
        return self._next_look_s(time.monotonic())

    def _next_look_s(self, now_s: float) -> float:
        times = [self._rotate_at_s]
        for process in self._processes.values():
            if process.popen is None:
                times.append(process.not_before_s)
            elif process.is_stopping:
                times.append(process.kill_at_s)
            if process.popen is not None and process.pidfd < 0:
                times.append(now_s + _POLL_S)
            if not process.is_settled(now_s) and process.popen is not None and not process.is_stopping:
                times.append(now_s + _POLL_S)  # waits for a higher layer
        return max(0.0, min(times) - now_s)

    def _act(self, process: _Process, now_s: float) -> None:
        step, reason = next_step(process.seen(self._may_stop(process)), now_s)
        if step is Step.START:
            self._start_one(process, now_s)
        elif step is Step.TERMINATE and process.popen is not None:
            logger.info("%s: terminate pid %d: %s", process.spec.name, process.popen.pid, reason)
            grace_s = self._settings.shutdown_grace_s if process.spec.grace_s is None else process.spec.grace_s
            process.is_stopping, process.kill_at_s = True, now_s + grace_s
            os.kill(process.popen.pid, signal.SIGTERM)
        elif step is Step.KILL and process.popen is not None:
            logger.warning("%s: kill pid %d: %s", process.spec.name, process.popen.pid, reason)
            process.kill_at_s = now_s + _STARTING_S
            kill_tree(process.popen.pid, process.spec.mark)
        elif step is Step.FORGET:
            del self._processes[process.spec.name]

    def _may_stop(self, process: _Process) -> bool:
        return not any(
            other.popen is not None and other.wanted is None and other.spec.stop_layer > process.spec.stop_layer
            for other in self._processes.values()
        )

    def _start_one(self, process: _Process, now_s: float) -> None:
        assert process.wanted is not None
        process.spec = process.wanted
        if process.starts == 0 and find_marked(process.spec.mark):
            left = kill_tree(0, process.spec.mark)
            logger.warning("%s: killed %d process(es) that an earlier supervisor left behind", process.spec.name, left)
        try:
            process.popen = spawn(process.spec)
        except OSError as exc:
            self._count_failure(process, now_s, f"cannot start: {exc}")
            return
        process.starts += 1
        process.started_s = now_s
        process.is_stopping = False
        try:
            process.pidfd = os.pidfd_open(process.popen.pid)
            self._selector.register(process.pidfd, selectors.EVENT_READ)
        except OSError:  # an old kernel: polled instead
            process.pidfd = -1
        logger.info(
            "%s: started pid %d%s", process.spec.name, process.popen.pid, f" after: {process.reason}" * bool(process.reason)
        )

    def _note_exit(self, process: _Process, now_s: float) -> None:
        if process.popen is None:
            return
        if os.waitid(os.P_PID, process.popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return
        kill_tree(process.popen.pid, process.spec.mark)  # before it is reaped: its group number is still its own
        status = process.popen.wait()
        if process.pidfd >= 0:
            self._selector.unregister(process.pidfd)
            os.close(process.pidfd)
            process.pidfd = -1
        process.popen = None
        if process.is_stopping:
            process.is_stopping, process.failures, process.not_before_s = False, 0, 0.0
            process.reason = "stopped on request"
            return
        if now_s - process.started_s >= self._settings.steady_after_s:
            process.failures = 0
        self._count_failure(process, now_s, describe_exit(status) + _last_line(process.spec.log_file))

    def _count_failure(self, process: _Process, now_s: float, reason: str) -> None:
        process.failures += 1
        pause_s = backoff_s(process.failures, self._settings.backoff_first_s, self._settings.backoff_most_s)
        process.not_before_s = now_s + pause_s
        process.reason = reason
        logger.warning("%s: %s; again in %.1f s", process.spec.name, reason, pause_s)


def _last_line(log_file: Path) -> str:
    line = tail_log(log_file, 1, max_bytes=4096).strip()
    return f" ({line[:200]})" if line else ""
