"""When to list a folder again: a cheap look ten times a second that never misses a name for longer than a second.

Owns the judgement whether a folder's time of change can be trusted. Must never compare that time with a clock: it is only
compared with itself. Called by the readers that are polled. Not thread-safe: its owner holds a lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from datastore_layout.files import list_names

SETTLE_S = 0.05
RELIST_S = 1.0


class DirectoryWatch:
    """Lists one folder, or says that nothing can have changed.

    A name may appear in the tick of the clock in which the folder was last listed, so a listing counts only once the time of
    change had stood still for `SETTLE_S` before it; and since a network mount may lie about it, no listing counts for
    longer than `RELIST_S`. `clock` is monotonic seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._stamp: tuple[int, int] | None = None
        self._stamp_since = clock()
        self._listed_at = float("-inf")

    def names(self, is_forced: bool = False) -> list[str] | None:
        """Return the visible names, sorted; None = unchanged since the last call."""
        now = self._clock()
        stamp = self._read_stamp()
        if stamp != self._stamp:
            self._stamp, self._stamp_since = stamp, now
        is_settled = self._listed_at - self._stamp_since >= SETTLE_S
        if is_settled and not is_forced and now - self._listed_at < RELIST_S:
            return None
        self._listed_at = now
        return list_names(self.path)

    def forget(self) -> None:
        """Make the next look a listing."""
        self._listed_at = float("-inf")

    def _read_stamp(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns
