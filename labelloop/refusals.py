"""What a server refused, in its log: who asked for what, and why not.

Owns the choice of what is worth a line. Must never let a peer fill the disk: the same refusal is logged once in ten seconds. Called
by `labelloop.wire.Server`.
"""

from __future__ import annotations

import logging
import threading
import time

from labelloop.errors import ForbiddenError, InvalidInputError, LabelloopError, UnauthenticatedError
from labelloop.tls import Peer

logger = logging.getLogger(__name__)

QUIET_S = 10.0
_MOST_KEPT = 512
_LEVELS = ((ForbiddenError, logging.WARNING), (UnauthenticatedError, logging.WARNING), (InvalidInputError, logging.INFO))


class Refusals:
    """Logs refused calls of one service. Thread-safe."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._logged_s: dict[tuple[str, str, str], float] = {}

    def note(self, peer: Peer, name: str, exc: LabelloopError) -> None:
        """Log that `peer` may not do, or did not properly ask for, what it asked; other errors are no refusals."""
        level = next((level for kind, level in _LEVELS if isinstance(exc, kind)), None)
        if level is None or not self._is_due((peer.name, name[:80], exc.code)):
            return
        logger.log(level, "%s: refused %s %s at %s: %r: %s", self._service, peer.kind, peer.name, peer.address, name[:80], exc)

    def _is_due(self, key: tuple[str, str, str]) -> bool:
        now_s = time.monotonic()
        with self._lock:
            if now_s - self._logged_s.get(key, float("-inf")) < QUIET_S:
                return False
            if len(self._logged_s) >= _MOST_KEPT:
                self._logged_s.clear()
            self._logged_s[key] = now_s
            return True
