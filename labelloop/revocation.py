"""Which certificates no server accepts any more: `revoked.json` beside the identity, told by the registry in each heartbeat.

Owns that file. Must never keep a peer in because the file cannot be read: then nobody new is let in until it can. Called by
`labelloop.wire.Server` on each handshake and call; written by managers (from heartbeats) and by the registry (its own).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

import msgspec

from labelloop.errors import UnauthenticatedError
from labelloop.tls import write_file

REVOKED_FILE = "revoked.json"


def plain_serial(serial: str) -> str:
    """Return a certificate's serial number as lower-case hex without leading zeros, however it was written."""
    return serial.strip().lower().removeprefix("0x").lstrip("0") or "0"


def write_revoked(folder: Path, serials: Iterable[str]) -> bool:
    """Put the serial numbers (hex) into the identity folder; return whether they differ from those that were there."""
    path = folder / REVOKED_FILE
    data = msgspec.json.encode(sorted({plain_serial(serial) for serial in serials}))
    try:
        if path.read_bytes() == data:
            return False
    except FileNotFoundError:
        if data == b"[]":
            return False
    write_file(path, data, 0o600)
    return True


class RevokedSerials:
    """The list of an identity folder, read again whenever the file changes. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / REVOKED_FILE
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._serials: frozenset[str] = frozenset()

    def has(self, serial: str) -> bool:
        """Return whether the certificate with this serial number (hex) was revoked. Raises UnauthenticatedError: cannot be read."""
        return plain_serial(serial) in self._read()

    def _read(self) -> frozenset[str]:
        with self._lock:
            try:
                stat = self._path.stat()
            except FileNotFoundError:
                self._seen, self._serials = None, frozenset()
                return self._serials
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if seen != self._seen:
                try:
                    self._serials = frozenset(msgspec.json.decode(self._path.read_bytes(), type=list[str]))
                except (OSError, msgspec.MsgspecError) as exc:
                    raise UnauthenticatedError(f"{self._path} cannot be read, so nobody is let in: {exc}") from exc
                self._seen = seen
            return self._serials
