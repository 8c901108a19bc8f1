"""What a role process is at, for `labelloop status`: at most one small file a second, whatever happens in between.

Owns the thread that writes it. Must never make a task wait. Called by the workers of all roles, each with the name under which its
manager supervises it. An `Activity` made before a fork starts its thread in the child that first says something. Making one clears
what a process that was killed left behind.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from labelloop.nodefiles import say_activity

logger = logging.getLogger(__name__)

PAUSE_S = 1.0


class Activity:
    """Says what `process` of the node with this state folder does; any thread may."""

    def __init__(self, state_dir: str, process: str) -> None:
        self._state, self._process = Path(state_dir), process
        self._text = self._written = ""
        self._pid = 0
        self._lock = threading.Lock()
        self._is_new = threading.Event()
        self._put("")

    def say(self, text: str) -> None:
        """Note what the process is at; '' = nothing. It is written within a second."""
        if text == self._text:
            return
        self._text = text
        with self._lock:
            if self._pid != os.getpid():
                self._pid, self._is_new = os.getpid(), threading.Event()
                threading.Thread(target=self._write, args=(self._is_new,), name="activity", daemon=True).start()
        self._is_new.set()

    def _write(self, is_new: threading.Event) -> None:
        pause = threading.Event()
        while True:
            is_new.wait()
            is_new.clear()
            text = self._text
            if text != self._written:
                self._put(text)
                self._written = text
            pause.wait(PAUSE_S)

    def _put(self, text: str) -> None:
        try:
            say_activity(self._state, self._process, text)
        except OSError as exc:
            logger.warning("what this process is at cannot be written: %s", exc)
