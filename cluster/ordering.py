"""One order at a time on a node, and how the one being applied learns that a newer one waits.

Owns the lock of the orders. Must never apply one. Called by the manager; whoever waits for others within an order asks
`is_overtaken`, so that a newer order need not wait for what the older one waits for.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from labelloop.errors import BusyError

ORDER_WAIT_S = 60.0


class Ordering:
    """Thread-safe. `name` is the node's."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._order = threading.Lock()
        self._lock = threading.Lock()
        self._asked = 0
        self._applied = 0

    @contextlib.contextmanager
    def one(self, epoch: int = 0) -> Iterator[None]:
        """Hold the place of the one order, that of `epoch` if it is one of the registry. Raises BusyError after a minute."""
        with self._lock:
            self._asked = max(self._asked, epoch)
        if not self._order.acquire(timeout=ORDER_WAIT_S):
            raise BusyError(f"{self._name} has been applying another order for {ORDER_WAIT_S:.0f} s: try again")
        try:
            with self._lock:
                self._applied = max(self._applied, epoch)
            yield
        finally:
            self._order.release()

    def try_begin(self) -> bool:
        """Take the place if nobody holds it, and say whether; `end` gives it back."""
        return self._order.acquire(blocking=False)

    def end(self) -> None:
        """Give back the place that `try_begin` took."""
        self._order.release()

    def is_overtaken(self) -> bool:
        """Return whether an order newer than all that had the place is waiting for it."""
        with self._lock:
            return self._asked > self._applied
