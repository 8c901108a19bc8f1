"""The processes of one RabbitMQ: its Erlang virtual machine and epmd, started so that they outlive the manager.

Owns `process.json` in the node's state folder. A broker left over from an earlier manager is found by the folder it works in and
taken over; one that is not this node's (Debian's own start, another host name) is ended. Must never end a process that works in
another folder. Called by `rabbitmq`, under its lock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from cluster.broker.rabbitmq_config import EPMD_PORT, SERVER, Paths
from cluster.broker.rabbitmq_secrets import owner
from cluster.state import read_state, write_state
from labelloop.errors import NotReadyError, SettingsError

logger = logging.getLogger(__name__)

_EPMD = "epmd"
_EPMD_WAIT_S = 5.0
_STOP_GRACE_S = 15.0
_POLL_S = 0.02
_LISTENING = "0A"
_STARTUP_LOG = "startup.log"
_STAMP = re.compile(r"^\d{4}-\S+ \S+ \[\w+\] <\S+>")
_SAID_CHARS = 300
_BOOT_WORDS = b"-s\0rabbit\0boot"


class Birth(msgspec.Struct, frozen=True):
    """The broker's process: `started` in clock ticks since boot tells it from a later one with its number.

    `cookie`: a short hash of the cookie that it was started with; '' = not known.
    """

    pid: int = 0
    started: int = 0
    node: str = ""
    cookie: str = ""

    def is_alive(self) -> bool:
        """Return whether it still runs."""
        return bool(self.pid) and started_at(self.pid) == self.started

    def age_s(self) -> float:
        """Return the seconds since it started."""
        uptime_s = float(Path("/proc/uptime").read_text().split()[0])
        return max(0.0, uptime_s - self.started / os.sysconf("SC_CLK_TCK"))


def started_at(pid: int) -> int:
    """Return when `pid` started, in ticks since boot; 0 when there is no such process or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def find_servers(data: Path) -> tuple[int, ...]:
    """Return the pids of all RabbitMQ servers of this machine that work in the folder `data`, whoever started them."""
    return tuple(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _is_server(entry, data))


def _is_server(entry: Path, data: Path) -> bool:
    try:
        return _BOOT_WORDS in (entry / "cmdline").read_bytes() and (entry / "cwd").samefile(data)
    except OSError:  # it ended meanwhile, or is not ours to look at
        return False


def _node_in(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    prefix = b"RABBITMQ_NODENAME="
    return next((word.removeprefix(prefix).decode("utf-8", "replace") for word in words if word.startswith(prefix)), "")


class ServerProcess:
    """The server of the node named `node`, working in `paths.data`."""

    def __init__(self, node: str, state: Path, paths: Paths) -> None:
        self._node = node
        self._file = state / "process.json"
        self._paths = paths
        self._child: subprocess.Popen[bytes] | None = None  # kept, so that its end is noticed and it leaves no zombie

    def find(self) -> Birth | None:
        """Return this node's running server, None when there is none."""
        if self._child is not None:
            self._child.poll()
        birth = read_state(self._file, Birth) or Birth()
        if birth.node == self._node and birth.is_alive():
            return birth
        for pid in find_servers(self._paths.data):
            if _node_in(pid) == self._node and (started := started_at(pid)):
                birth = Birth(pid, started, self._node)
                write_state(self._file, birth)
                logger.info("took over the broker that runs as process %d", pid)
                return birth
        return None

    def is_alive(self) -> bool:
        """Return whether this node's server runs."""
        return self.find() is not None

    def former_node(self) -> str:
        """Return the Erlang name under which the broker was last started here; '' when it never was."""
        return (read_state(self._file, Birth) or Birth()).node

    def start(self, environment: Mapping[str, str], cookie: str) -> Birth:
        """Start the server and return at once; `cookie` is the hash of its cookie."""
        log = os.open(self._paths.log / _STARTUP_LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            self._child = self._spawn((str(SERVER),), environment, log)
        except FileNotFoundError as exc:
            raise SettingsError(f"{SERVER} is missing: install rabbitmq-server (`./start.sh node` does)") from exc
        finally:
            os.close(log)
        birth = Birth(self._child.pid, started_at(self._child.pid), self._node, cookie)
        write_state(self._file, birth)
        return birth

    def said(self) -> str:
        """Return the last words of the server's start, for an error."""
        try:
            lines = (self._paths.log / _STARTUP_LOG).read_text("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return ""
        words = (_STAMP.sub("", line).strip() for line in lines if "rror" in line or _STAMP.match(line))
        return " ".join(word for word in words if word.strip("="))[:_SAID_CHARS]

    def stop(self, grace_s: float = _STOP_GRACE_S) -> None:
        """End this node's server: SIGTERM, then SIGKILL after `grace_s` (0 = at once)."""
        birth = self.find()
        if birth is not None:
            self._end(birth.pid, birth.started, grace_s)

    def end_others(self) -> None:
        """End every server in this folder that is not this node's: it holds the ports and another name's data."""
        for pid in find_servers(self._paths.data):
            if _node_in(pid) != self._node and (started := started_at(pid)):
                logger.warning("ending process %d, a broker that was not started for %s", pid, self._node)
                self._end(pid, started, _STOP_GRACE_S)

    def _end(self, pid: int, started: int, grace_s: float) -> None:
        for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, _STOP_GRACE_S)):
            if wait_s <= 0:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            deadline_s = time.monotonic() + wait_s
            while time.monotonic() < deadline_s:
                if self._child is not None:
                    self._child.poll()
                if started_at(pid) != started:
                    return
                time.sleep(_POLL_S)
        raise NotReadyError(f"process {pid} of the broker does not end: it may wait for a dead disk")

    def _spawn(self, argv: tuple[str, ...], environment: Mapping[str, str], output: int) -> subprocess.Popen[bytes]:
        """Start `argv` as the broker's user in a session of its own, with nothing of this process's environment or files."""
        ids = owner()
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=self._paths.data,
            env=dict(environment),
            start_new_session=True,
            user=ids[0] if ids else None,
            group=ids[1] if ids else None,
            extra_groups=[] if ids else None,
        )

    # ------------------------------------------------------------ epmd

    def ensure_epmd(self, environment: Mapping[str, str], address: str) -> None:
        """Have an epmd that listens on `address` and loopback only. Raises NotReadyError when it cannot be had."""
        if is_everywhere(EPMD_PORT):
            self._run_epmd(environment, "-kill")  # refused while it serves somebody: then it stays, and the log says so
            deadline_s = time.monotonic() + _EPMD_WAIT_S
            while is_everywhere(EPMD_PORT) and time.monotonic() < deadline_s:
                time.sleep(_POLL_S)
            if is_everywhere(EPMD_PORT):
                logger.warning("epmd listens on all addresses and serves another program: end that one")
        if can_connect(address, EPMD_PORT):
            return
        self._run_epmd(environment, "-daemon")
        deadline_s = time.monotonic() + _EPMD_WAIT_S
        while not can_connect(address, EPMD_PORT):
            if time.monotonic() >= deadline_s:
                raise NotReadyError(f"epmd does not listen on {address}:{EPMD_PORT}: is it an address of this machine?")
            time.sleep(_POLL_S)

    def _run_epmd(self, environment: Mapping[str, str], word: str) -> None:
        try:
            process = self._spawn((_EPMD, word), environment, subprocess.DEVNULL)
            process.wait(_EPMD_WAIT_S)
        except FileNotFoundError as exc:
            raise SettingsError("epmd is missing: install rabbitmq-server, which brings Erlang") from exc
        except subprocess.TimeoutExpired as exc:
            process.kill()
            process.wait()
            raise NotReadyError(f"epmd {word} hangs") from exc


def can_connect(host: str, port: int, timeout_s: float = 1.0) -> bool:
    """Return whether a server listens on host:port."""
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except OSError:
        return False
    return True


def is_everywhere(port: int) -> bool:
    """Return whether some server of this network namespace listens on `port` of every address."""
    for path in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with contextlib.suppress(FileNotFoundError):
            for line in path.read_text().splitlines()[1:]:
                words = line.split()
                address, _, found = words[1].partition(":")
                if words[3] == _LISTENING and int(found, 16) == port and not address.strip("0"):
                    return True
    return False
