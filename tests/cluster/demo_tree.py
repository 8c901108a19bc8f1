"""A running demo and its process tree as /proc shows it, for tests that kill.

Owns one foreground `labelloop demo`. Called by the cluster tests of the demo.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cluster.process import find_marked, mark_of
from tests.support_signals import INTERRUPTIBLE

HERE = Path(__file__).resolve().parents[2]


class Seen(NamedTuple):
    """One live process of a demo: `kind` names what it is, `depth` how many of its ancestors have its very arguments."""

    pid: int
    parent: int
    kind: str


def _stat(pid: int) -> tuple[str, int]:
    """Return (state letter, parent's pid)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[1])


def _name(argv: list[str]) -> str:
    line = " ".join(argv)
    if "valkey-server" in line:
        return "broker"
    if "manager_rpc.py" in line:
        return "manager-" + argv[argv.index("--name") + 1]
    if "roles.train.child" in line:
        return "training-spare"
    for argument in argv:
        if argument.endswith(".json") and "/roles/" in argument:
            return Path(argument).stem
    for name in ("demo-supervisor", "demo-annotator", "registry", "web", "pilot"):
        if name in argv:
            return name
    return Path(argv[0]).name if argv else "?"


def _has_folder_in(pid: int, state: Path) -> bool:
    try:
        return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(state)
    except OSError:
        return False


def live_processes(state: Path) -> list[Seen]:
    """Return every process that the demo of `state` started, directly or not; zombies are not live.

    They carry the supervisor's mark; the broker overwrites its environment with its title, but works in its folder.
    """
    pids = {pid for name in ("supervisor", "annotator") for pid in find_marked(mark_of(state / "logs" / f"{name}.log"))}
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    pids |= {pid for pid in numbers if _has_folder_in(pid, state)}
    found: dict[int, tuple[int, list[str]]] = {}
    for pid in pids:
        try:
            letter, parent = _stat(pid)
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        except OSError:  # it ended meanwhile
            continue
        if letter not in "ZX":
            found[pid] = (parent, argv)

    def depth(pid: int) -> int:
        parent, argv = found[pid]
        return 1 + depth(parent) if parent in found and found[parent][1] == argv else 0

    return [Seen(pid, parent, f"{_name(argv)}/{depth(pid)}") for pid, (parent, argv) in found.items()]


def children_of(pid: int) -> list[int]:
    """Return the direct children, without walking all of /proc."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def until(is_true: Callable[[], bool], what: str, limit_s: float) -> float:
    """Return after how many seconds `is_true` held; fails naming `what` after `limit_s`."""
    began_s = time.monotonic()
    while not is_true():
        assert time.monotonic() - began_s < limit_s, f"{what} took longer than {limit_s:.0f} s"
        time.sleep(0.05)
    return time.monotonic() - began_s


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Demo:
    """The foreground process of `labelloop demo` on `state`; a context manager that leaves nothing behind."""

    def __init__(self, state: Path, *options: str) -> None:
        self.state = state
        self.output = state.with_name(f"{state.name}-{time.monotonic_ns()}.out")
        state.mkdir(parents=True, exist_ok=True)
        for name in ("port", "registry-port"):  # of its own, however many demos start at this moment
            if not (state / name).exists():
                (state / name).write_text(str(free_port()))
        argv = (*INTERRUPTIBLE, sys.executable, "-m", "scripts.cli", "demo", "--state", str(state), *options)
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(argv, cwd=HERE, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)

    def __enter__(self) -> Demo:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for seen in live_processes(self.state):
            os.kill(seen.pid, signal.SIGKILL)

    def text(self) -> str:
        """Return what the demo said so far."""
        return self.output.read_text(errors="replace")

    def wait_said(self, words: str, limit_s: float = 120.0) -> None:
        """Wait until the demo printed `words`; fails when it ended without."""
        until(lambda: words in self.text() or self.process.poll() is not None, f"the words {words!r}", limit_s)
        assert words in self.text(), self.text()

    def tree(self) -> list[Seen]:
        """Return all processes of the demo but the foreground one."""
        return live_processes(self.state)

    def pids(self, kind: str) -> set[int]:
        """Return the live processes of one kind."""
        return {seen.pid for seen in self.tree() if seen.kind == kind}
