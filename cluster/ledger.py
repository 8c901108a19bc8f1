"""Which certificates were issued to whom, and which of them were revoked: the folder `issued/` beside the CA.

Owns one small file a certificate (0600), removed when the certificate expires. Must never hold a certificate's key. Called by
`cluster.authority` on each signature and by the registry for `revoke`. Files, so that two processes may work on one folder.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from labelloop.decoding import decode_json
from labelloop.errors import NotFoundError
from labelloop.tls import write_file

logger = logging.getLogger(__name__)


class Issued(msgspec.Struct, frozen=True, kw_only=True):
    """One certificate; `serial` in lower-case hex, `key` the SHA-256 of its public key, `expires_s` Unix time."""

    serial: str
    name: str
    kind: str
    key: str
    expires_s: float
    is_revoked: bool = False


class Ledger:
    """The issued certificates of one authority. `clock` gives Unix time."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def note(self, issued: Issued) -> None:
        """Keep a certificate, before it leaves this machine."""
        write_file(self._folder / f"{issued.serial}.json", msgspec.json.encode(issued), 0o600)

    def all(self) -> tuple[Issued, ...]:
        """Return the certificates that have not expired; expired ones are removed from disk."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                issued = decode_json(Issued, path.read_bytes())
            except FileNotFoundError:
                continue
            except msgspec.MsgspecError as exc:
                logger.error("%s cannot be read, its certificate cannot be revoked by name: %s", path, exc)
                continue
            if issued.expires_s <= self._clock():
                path.unlink(missing_ok=True)
            else:
                found.append(issued)
        return tuple(found)

    def revoke(self, name: str) -> tuple[str, ...]:
        """Revoke all certificates of `name`; return their serials. Raises NotFoundError when there are none that are good."""
        held = [issued for issued in self.all() if issued.name == name]
        if not held:
            raise NotFoundError(f"no certificate was issued to {name!r}: see `labelloop nodes`")
        for issued in held:
            self.note(msgspec.structs.replace(issued, is_revoked=True))
        return tuple(issued.serial for issued in held)

    def revoked(self) -> tuple[Issued, ...]:
        """Return the revoked certificates that have not expired."""
        return tuple(issued for issued in self.all() if issued.is_revoked)
