"""A sign of life while one long step runs: reading a large document once, joining a large file.

Owns one thread a `with`. Called by importer and exporter.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator

from labelloop.errors import LabelloopError

logger = logging.getLogger(__name__)
BEAT_S = 4.0


@contextlib.contextmanager
def beating(touch: Callable[[], None]) -> Iterator[None]:
    """Call `touch` every few seconds until the block ends."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_S):
            try:
                touch()
            except LabelloopError as exc:
                logger.info("no sign of life: %s", exc)

    thread = threading.Thread(target=beat, name="beat")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
