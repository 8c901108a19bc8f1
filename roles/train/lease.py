"""The lease that shows an attempt alive.

Owns one thread that renews it by new files. Must never judge a lease: that is the observer's part. Called by the attempt.
"""

from __future__ import annotations

import logging
import threading

from datastore_layout.runs import Attempt
from labelloop.errors import LabelloopError

logger = logging.getLogger(__name__)


class Lease:
    """Renews an attempt's lease from a thread of its own until closed."""

    def __init__(self, attempt: Attempt, every_s: float) -> None:
        self._attempt = Attempt(attempt.folder, attempt.run, attempt.k)  # its own: an Attempt has one thread that writes
        self._every_s = every_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="lease", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._end.is_set():
            try:
                if not self._attempt.renew_lease():
                    return
            except LabelloopError as exc:
                logger.warning("lease not renewed, will be tried again: %s", exc)
            self._end.wait(self._every_s)

    def close(self) -> None:
        """End the thread."""
        self._end.set()
        self._thread.join()
