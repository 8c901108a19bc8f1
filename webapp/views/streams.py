"""Server-sent events without starving the web server: a stream holds a thread, so only a few run at a time and each is short.

Owns the count of streams of this process. Called by the views that stream.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

_RETRY_MS = 2000
_lock = threading.Lock()
_running = 0


def one_stream(pieces: Iterator[bytes], most: int) -> Iterator[bytes]:
    """Yield the stream `pieces` when fewer than `most` run, else only the word when to come back."""
    global _running
    yield b"retry: %d\n\n" % _RETRY_MS
    with _lock:
        if _running >= max(most, 1):
            return
        _running += 1
    try:
        yield from pieces
    finally:
        with _lock:
            _running -= 1
