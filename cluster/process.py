"""One supervised process: what it should be, what to do with it next (pure), how to start it and kill all of it.

Owns spawning, the mark by which a process tree is found again, and log files. Must never decide which processes are
wanted. Called by `cluster.supervisor` alone; `ProcessSpec` by everybody who wants a process supervised.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path

import msgspec

logger = logging.getLogger(__name__)

MARK = "SUPERVISED_BY"  # in the environment of the process and of all it starts
LOG_BYTES = 8 * 2**20
LOGS_KEPT = 3
_DEATH_S, _DEATH_POLL_S = 1.0, 0.005
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A wanted process. Two specs that differ in anything mean a restart.

    `env` comes on top of the inherited environment. `version` stands for content that argv does not show (a configuration
    file). `stop_layer`: higher layers are stopped before lower ones. `grace_s` between SIGTERM and SIGKILL, None = the setting.
    """

    name: str
    argv: tuple[str, ...]
    log_file: Path
    env: dict[str, str] = {}
    cwd: Path | None = None
    version: str = ""
    stop_layer: int = 0
    grace_s: float | None = None

    @property
    def mark(self) -> str:
        """Return what tells this process's tree from all others."""
        return mark_of(self.log_file)


def mark_of(log_file: Path) -> str:
    """Return the mark of the process that logs to `log_file`, which is unique to it, across restarts."""
    return str(log_file.absolute())


class Step(Enum):
    """What the supervisor does next with one process."""

    KEEP = "keep"
    START = "start"
    TERMINATE = "terminate"
    KILL = "kill"
    FORGET = "forget"


class ProcessSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One process at this moment. Times are monotonic seconds. `may_stop`: no higher stop layer still runs."""

    is_wanted: bool
    is_changed: bool = False
    is_running: bool = False
    is_stopping: bool = False
    may_stop: bool = True
    kill_at_s: float = 0.0
    not_before_s: float = 0.0


def next_step(seen: ProcessSeen, now_s: float) -> tuple[Step, str]:
    """Return what to do with one process and why; pure."""
    if seen.is_running and seen.is_stopping:
        return (Step.KILL, "did not stop in time") if now_s >= seen.kill_at_s else (Step.KEEP, "stopping")
    if seen.is_running and not (seen.is_wanted and not seen.is_changed):
        why = "changed" if seen.is_wanted else "not wanted any more"
        return (Step.TERMINATE, why) if seen.may_stop else (Step.KEEP, f"{why}, others stop first")
    if seen.is_running:
        return Step.KEEP, "running"
    if not seen.is_wanted:
        return Step.FORGET, "stopped"
    if now_s < seen.not_before_s:
        return Step.KEEP, "backing off"
    return Step.START, "wanted"


def backoff_s(failures: int, first_s: float, most_s: float) -> float:
    """Return the pause before the next start after `failures` falls in a row: first, doubled each time, at most `most_s`."""
    return min(most_s, first_s * 2.0 ** min(max(0, failures - 1), 30)) if failures else 0.0


def _die_with_parent(parent: int) -> Callable[[], None]:
    """Return what runs in the child before exec: SIGKILL when the starting thread ends, however it ends."""

    def set_signal() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != parent:  # the parent fell between fork and prctl
                os._exit(1)

    return set_signal


def spawn(spec: ProcessSpec) -> subprocess.Popen[bytes]:
    """Start `spec` in a session of its own, its output appended to the log file; it dies with the calling thread.

    Raises OSError when it cannot be started.
    """
    spec.log_file.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(spec.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            spec.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=spec.cwd,
            env={**os.environ, **spec.env, MARK: _chain(spec.mark)},  # inherited, not read: settings come from spec.env
            start_new_session=True,
            preexec_fn=_die_with_parent(os.getpid()),
        )
    finally:
        os.close(log)


def _chain(mark: str) -> str:
    """Return the marks a child carries: its supervisor's own supervisors first, so that each finds all that is below it."""
    return "\n".join([*filter(None, os.environ.get(MARK, "").split("\n")), mark])


def _marks(environ: bytes) -> list[bytes]:
    prefix = f"{MARK}=".encode()
    return next((entry[len(prefix) :].split(b"\n") for entry in environ.split(b"\0") if entry.startswith(prefix)), [])


def find_marked(mark: str) -> tuple[int, ...]:
    """Return the pids of all processes (other than this one) that carry `mark`, children that left the group included."""
    wanted = mark.encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if wanted in _marks((entry / "environ").read_bytes()):
                found.append(int(entry.name))
        except OSError:  # it ended meanwhile, or belongs to somebody else
            continue
    return tuple(found)


def kill_tree(pid: int, mark: str) -> int:
    """SIGKILL the group of `pid` (0 = none known) and every process that carries `mark`; return how many were marked.

    Waits until they are gone, `_DEATH_S` at most: a process that was killed goes on holding its ports and files for a moment, and
    one that forked at the wrong moment has left a child behind.
    """
    if pid:
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            logger.debug("group %d is gone", pid)
    found = marked = find_marked(mark)
    until_s = time.monotonic() + _DEATH_S
    while marked:
        for each in marked:
            try:
                os.kill(each, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() >= until_s:
            logger.warning("%d killed process(es) are still there after %.0f s: %s", len(marked), _DEATH_S, marked)
            break
        time.sleep(_DEATH_POLL_S)
        marked = find_marked(mark)
    return len(found)


def describe_exit(status: int) -> str:
    """Return a sentence for a return code of `subprocess`: negative = killed by that signal."""
    if status >= 0:
        return f"exited with {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def tail_log(path: Path, lines: int, max_bytes: int = 256 * 1024) -> str:
    """Return the last `lines` lines of a log file (at most `max_bytes`); '' when there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - max_bytes))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:]) if lines > 0 else ""


def rotate_log(path: Path, max_bytes: int = LOG_BYTES) -> bool:
    """Copy a log over `max_bytes` aside and empty it in place (its writer appends); return whether that was due.

    Lines written between the copy and the emptying are lost; the writer never notices and never blocks.
    """
    try:
        if path.stat().st_size <= max_bytes:
            return False
    except FileNotFoundError:
        return False
    for number in range(LOGS_KEPT, 1, -1):
        older = path.with_name(f"{path.name}.{number - 1}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number}"))
    shutil.copy2(path, path.with_name(f"{path.name}.1"))
    os.truncate(path, 0)
    return True
