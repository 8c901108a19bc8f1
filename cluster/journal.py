"""What the registry did and what was done to it, each with its reason: `actions.jsonl` in its folder.

Owns that file (0600) and keeps the newest 200. Must never hold a secret; what strangers say is quoted. Called by
`cluster.registry` and `cluster.steward`. Thread-safe.
"""

from __future__ import annotations

import datetime
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from labelloop.decoding import decode_json
from labelloop.messages import Action
from labelloop.tls import write_file

logger = logging.getLogger(__name__)

FILE = "actions.jsonl"
KEPT = 200
_MOST_LINES = 2 * KEPT
REFUSALS_EVERY_S = 1.0


class Journal:
    """The newest actions, on disk and in memory. A line that cannot be read, torn by a power cut, is left out."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE
        self._clock = clock
        self._lock = threading.Lock()
        self._actions = deque(_read(self._path), maxlen=KEPT)
        self._lines = 0
        self.counts = {"orders": 0, "order_failures": 0, "refusals": 0}
        self._refused_at_s = float("-inf")
        self._rewrite()

    def note(self, what: str, reason: str) -> None:
        """Log an action and keep it; the same one twice in a row is kept once. A full disk loses the file, not the registry."""
        action = Action(at=_text(self._clock()), what=what, reason=reason)
        with self._lock:
            last = self._actions[-1] if self._actions else None
            if last is not None and (last.what, last.reason) == (what, reason):
                return
            logger.info("%s: %s", what, reason)
            self._actions.append(action)
            try:
                self._append(action)
            except OSError as exc:
                logger.error("cannot keep the journal %s: %s", self._path, exc)

    def count(self, what: str) -> None:
        """Count one of `counts`."""
        with self._lock:
            self.counts[what] += 1

    def note_refusal(self, reason: str) -> None:
        """Keep a refused stranger: at most one a second, so that none can push out what matters; the log has them all."""
        logger.warning("refused: %s", reason)
        with self._lock:
            self.counts["refusals"] += 1
            now_s = time.monotonic()
            if now_s - self._refused_at_s < REFUSALS_EVERY_S:
                return
            self._refused_at_s = now_s
        self.note("refuse", reason)

    def actions(self) -> tuple[Action, ...]:
        """Return what is kept, the newest last."""
        with self._lock:
            return tuple(self._actions)

    def _append(self, action: Action) -> None:
        if self._lines >= _MOST_LINES:
            self._rewrite()
            return
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(msgspec.json.encode(action) + b"\n")
        self._lines += 1

    def _rewrite(self) -> None:
        write_file(self._path, b"".join(msgspec.json.encode(action) + b"\n" for action in self._actions), 0o600)
        self._lines = len(self._actions)


def _read(path: Path) -> list[Action]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(decode_json(Action, line))
        except msgspec.MsgspecError:
            logger.warning("%s has a torn line, left out", path)
    return found[-KEPT:]


def _text(unix_s: float) -> str:
    return datetime.datetime.fromtimestamp(unix_s, datetime.UTC).isoformat(timespec="seconds")
