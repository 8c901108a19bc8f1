"""A family of forked processes: the parent forks them, forks a fallen one again, and ends them all.

Owns fork, signal masks and back-off of one role process's children. The parent must never start a thread, open a TLS session or
import a model library, because each fork copies what it has. Called by `roles.inference.service` and `roles.inference.worker`.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 5.0
STEADY_AFTER_S = 10.0
TICK_S = 0.05


@dataclass
class _Member:
    """One seat of the family. `pid` 0 = empty; `due_s` when it may be forked again; `pause_s` grows while it keeps falling."""

    name: str
    main: Callable[[], int]
    pid: int = 0
    started_s: float = 0.0
    due_s: float = 0.0
    pause_s: float = 0.0


def pause_after(life_s: float, last_pause_s: float) -> float:
    """Return the seconds to wait before a process that lived `life_s` is forked again; the first fall costs 50 ms."""
    if life_s >= STEADY_AFTER_S or last_pause_s == 0.0:
        return FIRST_PAUSE_S
    return min(LONGEST_PAUSE_S, 2 * last_pause_s)


class Family:
    """Keep one process alive for each of `members` (name, main) until SIGTERM or SIGINT.

    `main` runs in the fork, in its main thread, and its return value is the exit status. A child dies with its parent.
    """

    def __init__(self, members: Sequence[tuple[str, Callable[[], int]]], grace_s: float) -> None:
        self.members = [_Member(name, main) for name, main in members]
        self.grace_s = grace_s

    def run(self) -> int:
        """Fork, watch and fork again; returns 0 after an orderly end of all members."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            while True:
                now_s = time.monotonic()
                for member in self.members:
                    if not member.pid and now_s >= member.due_s:
                        self._fork(member)
                caught = signal.sigtimedwait(_SIGNALS, TICK_S)
                self._reap()
                if caught is not None and caught.si_signo != signal.SIGCHLD:
                    logger.info("ending %d processes on signal %d", sum(bool(m.pid) for m in self.members), caught.si_signo)
                    return 0
        finally:
            self._end()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _fork(self, member: _Member) -> None:
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os._exit(_live(member, parent))
        member.pid, member.started_s = pid, time.monotonic()
        logger.info("forked %s as pid %d", member.name, pid)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for member in self.members:
                if member.pid == pid:
                    self._fallen(member, status)

    def _fallen(self, member: _Member, status: int) -> None:
        now_s = time.monotonic()
        member.pause_s = pause_after(now_s - member.started_s, member.pause_s)
        member.pid, member.due_s = 0, now_s + member.pause_s
        how = os.waitstatus_to_exitcode(status)
        logger.warning("%s ended with status %d, forking it again in %.2f s", member.name, how, member.pause_s)

    def _end(self) -> None:
        self._tell(signal.SIGTERM)
        deadline_s = time.monotonic() + self.grace_s
        while any(m.pid for m in self.members) and time.monotonic() < deadline_s:
            signal.sigtimedwait((signal.SIGCHLD,), TICK_S)
            self._collect()
        self._tell(signal.SIGKILL)
        for member in self.members:
            if member.pid:
                os.waitpid(member.pid, 0)
                member.pid = 0

    def _tell(self, number: int) -> None:
        for member in self.members:
            if member.pid:
                os.kill(member.pid, number)

    def _collect(self) -> None:
        for member in self.members:
            if member.pid and os.waitpid(member.pid, os.WNOHANG)[0]:
                member.pid = 0


def _live(member: _Member, parent: int) -> int:
    """Run `member.main` in a fresh fork and return its exit status; anything it raises is logged."""
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            return 1
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return member.main()
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else 1
    except Exception:  # the last frame of a process: log the traceback, then die
        logger.exception("%s fell", member.name)
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
