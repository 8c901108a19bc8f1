"""The demo's state folder: one demo at a time holds it; ports, tokens and small files in it are written whole.

Owns the folder's layout at the top. Must never start a process. Called by scripts.demo.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from cluster.authority import Authority
from labelloop.errors import ConflictError
from labelloop.messages import PeerKind
from labelloop.settings import read_settings

LOCK = "lock"
KINDS: tuple[PeerKind, ...] = ("node", "client", "ops")
TOKEN_LIFE_S = 10 * 365 * 86400.0


def hold_state(state: Path) -> int:
    """Take the state folder for this process until it ends, however it ends. Raises ConflictError when a demo runs on it."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(state / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(lock)
        raise ConflictError(f"a demo runs on {state} already: stop it, or give another folder with --state") from exc
    return lock


def empty_state(state: Path) -> None:
    """Delete everything in the state folder but its lock."""
    for path in state.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def prepare_state(state: Path, port: int) -> None:
    """Make the state folder on first use: ports, certificate authority and join tokens."""
    for name in ("media", "logs"):
        (state / name).mkdir(exist_ok=True)
    if port:
        replace_file(state / "port", str(port))
    else:
        _remember_port(state / "port", 8080)
    _remember_port(state / "registry-port", 7070)
    authority = Authority(state / "registry" / "authority", read_settings(None).cluster)
    for kind in KINDS:
        _remember(state / f"{kind}.token", functools.partial(authority.create_token, kind, TOKEN_LIFE_S))


def _remember_port(path: Path, wanted: int) -> None:
    """Keep a free port in `path`: the one remembered, `wanted` at first, another when somebody else listens there."""
    first = int(path.read_text()) if path.exists() else wanted
    replace_file(path, str(_free_port("127.0.0.1", first)))


def _free_port(host: str, wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ConflictError(f"no free port on {host}")


def _remember(path: Path, value: Callable[[], str]) -> str:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, value())
    return path.read_text()


def replace_file(path: Path, text: str) -> None:
    """Write `path`, mode 0600, whole or not at all, however this process ends."""
    beside = path.with_suffix(".part")
    beside.unlink(missing_ok=True)
    beside.touch(mode=0o600)
    beside.write_text(text)
    beside.rename(path)
