"""The processes of one docker: starting its process 1, finding all that run in it, running one more, killing it.

Owns the `pid` file of a docker. Must never leave a process that the lab's mark does not find. Called by `lab` and `faults`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cluster.lab.plan import SHARED, mark_of
from cluster.lab.shell import find_program
from cluster.process import MARK, find_marked
from labelloop.errors import DeadlineError, InternalError, NotReadyError
from labelloop.tls import write_file

CHECKOUT = Path(__file__).resolve().parents[2]
_NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid")
_READY_S = 60.0
_POLL_S = 0.01


def environment(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of everything in a docker: nothing of the machine's own but the place of the packages."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "LABELLOOP_VENV": sys.prefix,
        "LABELLOOP_INSTALL": "no",  # the packages are shared, and their owner keeps them
        "PYTHONDONTWRITEBYTECODE": "1",
        MARK: mark_of(folder),
        **settings,
    }


def hidden_paths() -> tuple[Path, ...]:
    """Return the folders of the machine that a docker needs at their own path: the checkout, its packages, its Python."""
    return tuple(dict.fromkeys((CHECKOUT, Path(sys.prefix), Path(sys.base_prefix))))


class Started:
    """A docker on its way: `pid` is its process 1 as the machine sees it; `wait_ready` returns once it has its wire and mounts."""

    def __init__(self, folder: Path, name: str, popen: subprocess.Popen[bytes]) -> None:
        self._folder = folder / name
        self._name = name
        self._popen = popen
        self.pid = self._find_first()
        write_file(self._folder / "pid", f"{self.pid}\n".encode(), 0o600)

    def _find_first(self) -> int:
        until_s = time.monotonic() + _READY_S
        while time.monotonic() < until_s and self._popen.poll() is None:
            if pid := _child_of(self._popen.pid):
                return pid
            time.sleep(_POLL_S)
        raise self._failure("did not start")

    def wait_ready(self) -> None:
        """Return when process 1 says so. Raises InternalError with its last words, DeadlineError."""
        pipe = self._popen.stdout
        assert pipe is not None
        with pipe:
            readable, _, _ = select.select([pipe], [], [], _READY_S)
            if not readable:
                raise DeadlineError(f"docker {self._name} did not come up within {_READY_S:.0f} s")
            if pipe.readline() != b"ready\n":
                raise self._failure("ended before it was up")

    def _failure(self, what: str) -> InternalError:
        log = self._folder / "init.log"
        words = log.read_text(errors="replace").strip()[-500:] if log.exists() else ""
        return InternalError(f"docker {self._name} {what}: {words}")


def start_docker(
    folder: Path, name: str, address: str, gateway: str, commands: Mapping[str, Sequence[str]], settings: Mapping[str, str]
) -> Started:
    """Start process 1 of a docker with `commands` (log name → argv); the caller plugs its wire in."""
    own = folder / name
    own.mkdir(parents=True, exist_ok=True, mode=0o700)
    config: dict[str, Any] = {
        "folder": str(own),
        "name": name,
        "address": address,
        "gateway": gateway,
        "shared": {"disk": str(folder / "datastore"), "token": str(folder / "token"), "ssh": str(own / "ssh")},
        "shared_root": SHARED,
        "keep": [str(path) for path in hidden_paths() if _is_hidden(path)],
        "env": environment(folder, settings),
        "commands": {log: list(argv) for log, argv in commands.items()},
    }
    write_file(own / "config.json", msgspec.json.encode(config), 0o600)
    argv = [
        find_program("unshare"),
        "--net",
        "--uts",
        "--ipc",
        "--pid",
        "--mount",
        "--fork",
        "--kill-child=SIGKILL",
        "--mount-proc",
    ]
    argv += [sys.executable, "-m", "cluster.lab.init", str(own / "config.json")]
    with (own / "init.log").open("ab") as log:
        popen = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=CHECKOUT,
            env=environment(folder, {}),
            start_new_session=True,
        )
    watch(popen)
    return Started(folder, name, popen)


_popens: list[subprocess.Popen[bytes]] = []


def watch(popen: subprocess.Popen[bytes]) -> None:
    """Have `reap` collect a process that this one started."""
    _popens.append(popen)


def reap() -> None:
    """Collect the parents of dockers that died, those that this process started."""
    _popens[:] = [popen for popen in _popens if popen.poll() is None]


def _child_of(parent: int) -> int:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                    return int(entry.name)
    return 0


def _is_hidden(path: Path) -> bool:
    from cluster.lab.inside import OWN_FOLDERS

    return any(path.is_relative_to(folder) for folder in OWN_FOLDERS)


def pid_of(folder: Path, name: str) -> int:
    """Return process 1 of a docker as the machine sees it, 0 when the docker is down."""
    try:
        pid = int((folder / name / "pid").read_text())
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except (OSError, ValueError):
        return 0
    return pid if mark_of(folder).encode() in environ and not _is_zombie(pid) else 0


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except OSError:
        return True


def pids_in(first: int) -> tuple[int, ...]:
    """Return all processes of the docker whose process 1 is `first`, itself included, in the machine's own numbers."""
    return pids_by_docker((first,)).get(first, ())


def pids_by_docker(firsts: Iterable[int]) -> dict[int, tuple[int, ...]]:
    """Return process 1 → all processes of its docker, for those of `firsts` that live, in one look at the machine."""
    namespaces: dict[str, int] = {}
    for first in firsts:
        with contextlib.suppress(OSError):
            namespaces[os.readlink(f"/proc/{first}/ns/pid")] = first  # noqa: PTH115  (many: a Path each is slow)
    found: dict[int, list[int]] = {first: [] for first in namespaces.values()}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError):
                owner = namespaces.get(os.readlink(f"/proc/{name}/ns/pid"))  # noqa: PTH115
                if owner is not None:
                    found[owner].append(int(name))
    return {first: tuple(sorted(pids)) for first, pids in found.items()}


def command_of(pid: int) -> str:
    """Return the command line of a process, '' when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def enter(first: int, name: str) -> list[str]:
    """Return the words before a command that runs it inside the docker. Raises NotReadyError when the docker is down."""
    if not first:
        raise NotReadyError(f"docker {name} is down: boot it first")
    return [find_program("nsenter"), "--target", str(first), *_NAMESPACES, "--"]


def kill_docker(folder: Path, name: str) -> bool:
    """Kill process 1 and with it all of the docker at once, like a power cut; return whether it was up."""
    first = pid_of(folder, name)
    if not first:
        return False
    others = pids_in(first)
    os.kill(first, signal.SIGKILL)
    until_s = time.monotonic() + _READY_S
    while any(not _is_zombie(pid) and command_of(pid) for pid in others):
        if time.monotonic() > until_s:
            raise DeadlineError(f"docker {name} did not die within {_READY_S:.0f} s")
        time.sleep(_POLL_S)
    (folder / name / "pid").unlink(missing_ok=True)
    reap()
    return True


def kill_marked(folder: Path) -> int:
    """Kill every process of the lab, known or not; return how many there were."""
    mark, n = mark_of(folder), 0
    until_s = time.monotonic() + _READY_S
    while pids := [pid for pid in find_marked(mark) if not _is_zombie(pid)]:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                n += 1
        if time.monotonic() > until_s:
            raise DeadlineError(f"processes of the lab do not die: {pids}")
        time.sleep(_POLL_S)
        reap()
    reap()
    return n
