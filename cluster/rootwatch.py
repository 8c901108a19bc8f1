"""What a heartbeat says of the datastore: free bytes, and what is wrong with the mount.

Owns one thread that looks, so that a mount which hangs is told and never waited for. Must never write. Called by the manager.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from datastore_layout.root import open_root
from labelloop.errors import LabelloopError

_LOOK_EVERY_S = 2.0
_HUNG_AFTER_S = 5.0
_FIRST_PATIENCE_S = 0.5


class RootWatch:
    """The datastore's state of some seconds ago at most; any thread may ask. `clock` is monotonic seconds."""

    def __init__(self, root: Path, cluster_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._cluster_id = cluster_id
        self._clock = clock
        self._lock = threading.Lock()
        self._looking: threading.Thread | None = None
        self._began_s = float("-inf")
        self._known = (0, "not looked at yet")

    def read(self) -> tuple[int, str]:
        """Return (free bytes, what is wrong or '') at once, and look again in the background when that is due.

        Only the first caller waits a moment, so that it has something to say.
        """
        with self._lock:
            now_s = self._clock()
            is_first = self._looking is None
            is_looking = self._looking is not None and self._looking.is_alive()
            if is_looking and now_s - self._began_s >= _HUNG_AFTER_S:
                return 0, f"{self._root} has not answered for {now_s - self._began_s:.0f} s: the mount hangs"
            if not is_looking and now_s - self._began_s >= _LOOK_EVERY_S:
                self._began_s = now_s
                self._looking = threading.Thread(target=self._look, name="root-watch", daemon=True)
                self._looking.start()
            looking = self._looking
        if is_first and looking is not None:
            looking.join(_FIRST_PATIENCE_S)
        with self._lock:
            return self._known

    def _look(self) -> None:
        try:
            open_root(self._root, self._cluster_id)
            stat = os.statvfs(self._root)
            known = (stat.f_bavail * stat.f_frsize, "")
        except (LabelloopError, OSError) as exc:
            known = (0, str(exc))
        with self._lock:
            self._known = known
