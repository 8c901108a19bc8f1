"""A thread that consumes one queue for as long as its process lives, whatever happens to the broker.

Owns the connection and its heartbeats. Must never declare the queue, nor know what a message means. Called by
`roles.inference.mailbox` and `roles.dead_letters`.

Threads: `take` runs on the listener's thread; `require` and `check` may be called from any other.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import kombu

from labelloop.errors import UnreachableError
from roles.celery_app import BROKER_ERRORS, RoleApp

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 1.0
DRAIN_S = 0.5
WAIT_S = 0.05
GRACE_S = 1.0  # how long the queue may be out of reach before callers are told so
FIRST_S = 60.0  # how long the first connection may take on a busy machine, as long as nothing fails


class Listener:
    """Hand each message of `queue` to `take`. `options` go to kombu's consumer; `prefetch` 0 = no bound."""

    def __init__(
        self, app: RoleApp, queue: kombu.Queue, take: Callable[[Any], None], name: str, *, prefetch: int = 0, **options: Any
    ) -> None:
        self._app, self._queue, self._take = app, queue, take
        self._prefetch, self._options = prefetch, options
        self._is_stopping = threading.Event()
        self._is_open = threading.Event()
        self._lost_s = time.monotonic() + FIRST_S  # until something fails
        self._trouble = "not connected yet"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._is_stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def require(self) -> None:
        """Return at once while the queue is consumed; raise UnreachableError when it has not been for a second."""
        while not self._is_open.is_set():
            self.check()
            self._is_open.wait(WAIT_S)

    def check(self) -> None:
        """Raise UnreachableError when the queue has not been consumed for a second; never wait."""
        if not self._is_open.is_set() and time.monotonic() - self._lost_s >= GRACE_S:
            raise UnreachableError(f"this node's broker is down, or paused in a minority: {self._trouble}")

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._is_stopping.is_set():
            connection = self._app.connection_for_read(heartbeat=self._app.conf.broker_heartbeat)
            errors = (*BROKER_ERRORS, *connection.connection_errors, *connection.channel_errors)
            try:
                self._consume(connection)
            except errors as exc:
                pause_s = FIRST_PAUSE_S if self._is_open.is_set() else min(2 * pause_s, LONGEST_PAUSE_S)
                self._lose(exc)
                self._is_stopping.wait(pause_s)
            finally:
                self._let_go(connection)

    def _consume(self, connection: kombu.Connection) -> None:
        connection.ensure_connection(max_retries=0)
        consumer = connection.Consumer(self._queue, on_message=self._take, **self._options)
        if self._prefetch:
            consumer.qos(prefetch_count=self._prefetch)
        with consumer:
            self._is_open.set()
            while not self._is_stopping.is_set():
                with contextlib.suppress(TimeoutError):
                    connection.drain_events(timeout=DRAIN_S)
                connection.heartbeat_check()

    def _lose(self, exc: BaseException) -> None:
        trouble = str(exc) or type(exc).__name__
        self._lost_s = min(self._lost_s, time.monotonic())
        if self._is_open.is_set():
            self._lost_s = time.monotonic()
            self._is_open.clear()
            logger.warning("%s is not consumed for now, trying again: %s", self._queue.name, exc)
        elif trouble != self._trouble:
            logger.info("%s is not consumed yet: %s", self._queue.name, exc)
        self._trouble = trouble

    def _let_go(self, connection: kombu.Connection) -> None:
        if self._app.outlet is None:
            connection.release()
        else:
            connection.collect()  # without a word: RabbitMQ may be frozen
