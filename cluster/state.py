"""Small files a daemon keeps for itself: structs as JSON, replaced atomically, and the ports it was given.

Owns their encoding. Must never hold a secret in a file that others may read (0600 throughout). Called by the registry, the
managers and the embedded broker; one process per file.
"""

from __future__ import annotations

import logging
import socket
import time
from pathlib import Path
from typing import TypeVar

import msgspec

from labelloop.decoding import decode_json
from labelloop.errors import IntegrityError, SettingsError
from labelloop.tls import write_file

logger = logging.getLogger(__name__)

S = TypeVar("S", bound=msgspec.Struct)


def write_state(path: Path, value: msgspec.Struct) -> None:
    """Put `value` at `path` as indented JSON of mode 0600, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, msgspec.json.format(msgspec.json.encode(value)) + b"\n", 0o600)


def read_state(path: Path, kind: type[S]) -> S | None:
    """Return the struct at `path`, None when there is none yet. Raises IntegrityError naming a file that cannot be read."""
    try:
        return decode_json(kind, path.read_bytes())
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise IntegrityError(f"{path} is not a valid {kind.__name__}: {exc}; move it away to start afresh") from exc


class Ports(msgspec.Struct, frozen=True):
    """Ports by purpose, as they were given last time."""

    by_name: dict[str, int] = {}


def is_port_free(host: str, port: int) -> bool:
    """Return whether a server could listen on host:port now."""
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def choose_port(path: Path, name: str, host: str) -> int:
    """Return the port that `path` remembers for `name`, or a free one of `host`, remembered from now on.

    A remembered port is given again without a look: its holder may be the process that asks through a restart.
    Raises SettingsError when `host` is no address of this machine.
    """
    ports = read_state(path, Ports) or Ports()
    if name in ports.by_name:
        return ports.by_name[name]
    return replace_port(path, name, host)


def replace_port(path: Path, name: str, host: str) -> int:
    """Return a free port of `host` for `name`, remembered in `path`. Raises SettingsError when there is no such address here."""
    ports = read_state(path, Ports) or Ports()
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError as exc:
            raise SettingsError(f"cannot listen on {host}: {exc}; give an address of this machine") from exc
        port = int(probe.getsockname()[1])
    write_state(path, Ports({**ports.by_name, name: port}))
    return port


def claim_port(path: Path, name: str, host: str, patience_s: float = 2.0) -> int:
    """Return the remembered port once it is free (its last holder may be dying), another one when it stays taken."""
    port = choose_port(path, name, host)
    deadline_s = time.monotonic() + patience_s
    while not is_port_free(host, port):
        if time.monotonic() >= deadline_s:
            logger.warning("port %d of %s is taken by another process, moving to a free one", port, name)
            return replace_port(path, name, host)
        time.sleep(0.02)
    return port


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
