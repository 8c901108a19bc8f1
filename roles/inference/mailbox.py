"""The reply queue of one inference_rpc process: workers answer here, waiting threads are woken within a millisecond.

Owns the connection that consumes the queue and the thread that drains it. Must never know what a reply means, nor declare the
queue. Called by `asking` and `dispatch` (which subscribe by call id) and by `worker` (which posts). Celery's result backend is not
used: it stores each answer, and its consumer is not made for many threads.

Threads: `subscribe`, `unsubscribe` and `require_broker` may be called from any thread; handlers run on the mailbox thread and must
only hand over.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import kombu

from labelloop.errors import LabelloopError, TooLargeError, UnreachableError
from labelloop.messages import decode, encode
from roles.amqp import classic_queue
from roles.celery_app import BROKER_ERRORS, RoleApp
from roles.inference.calls import Reply

logger = logging.getLogger(__name__)

RECONNECT_S = 0.1
DRAIN_S = 0.5
GRACE_S = 1.0  # how long the queue may be out of reach before calls are told so
_TYPE = "application/data"

Handler = Callable[[Reply], None]


class Mailbox:
    """Consume `queue` and hand each reply to the handler of its call; a reply nobody waits for goes to `on_stray`."""

    def __init__(self, app: RoleApp, queue: str, on_stray: Handler | None = None) -> None:
        self.queue = queue
        self._app = app
        self._on_stray = on_stray
        self._handlers: dict[str, Handler] = {}
        self._is_stopping = threading.Event()
        self._is_open = threading.Event()
        self._lost_s = time.monotonic()
        self._trouble = "not connected yet"
        self._thread = threading.Thread(target=self._run, name="mailbox", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._is_stopping.set()
        self._thread.join()

    def subscribe(self, call: str, handler: Handler) -> None:
        self._handlers[call] = handler

    def unsubscribe(self, call: str) -> None:
        self._handlers.pop(call, None)

    def require_broker(self) -> None:
        """Return at once while replies can come in; raise UnreachableError when they have not been able to for a second."""
        if self._is_open.is_set():
            return
        left_s = self._lost_s + GRACE_S - time.monotonic()
        if left_s <= 0 or not self._is_open.wait(left_s):
            raise UnreachableError(f"this node's broker is down or paused in a minority: {self._trouble}")

    def check_broker(self) -> None:
        """Raise UnreachableError when the broker has been away for a second; never wait."""
        if not self._is_open.is_set() and time.monotonic() - self._lost_s > GRACE_S:
            raise UnreachableError(f"this node's broker went away under the call: {self._trouble}")

    def _run(self) -> None:
        while not self._is_stopping.is_set():
            connection = self._app.connection_for_read(heartbeat=self._app.conf.broker_heartbeat)
            errors = (*BROKER_ERRORS, *connection.connection_errors, *connection.channel_errors)
            try:
                self._drain(connection)
            except errors as exc:
                self._lose(exc)
                self._is_stopping.wait(RECONNECT_S)
            finally:
                self._let_go(connection)

    def _let_go(self, connection: kombu.Connection) -> None:
        if self._app.outlet is None:
            connection.release()
        else:
            connection.collect()  # without a word: RabbitMQ may be frozen

    def _lose(self, exc: BaseException) -> None:
        self._trouble = str(exc) or type(exc).__name__
        if self._is_open.is_set():
            self._lost_s = time.monotonic()
            self._is_open.clear()
            logger.warning("replies stop: broker is away (%s), trying again every %.1f s", exc, RECONNECT_S)

    def _drain(self, connection: kombu.Connection) -> None:
        connection.ensure_connection(max_retries=0)
        consumer = connection.Consumer(classic_queue(self.queue), on_message=self._deliver, no_ack=True, accept=[_TYPE])
        with consumer:
            self._is_open.set()
            while not self._is_stopping.is_set():
                with contextlib.suppress(TimeoutError):
                    connection.drain_events(timeout=DRAIN_S)
                connection.heartbeat_check()

    def _deliver(self, message: Any) -> None:
        try:
            reply = decode(Reply, message.body)
        except LabelloopError as exc:
            logger.error("a reply on %s is not readable, dropped: %s", self.queue, exc)
            return
        handler = self._handlers.get(reply.call, self._on_stray)
        if handler is not None:
            handler(reply)


def post(app: RoleApp, queue: str, reply: Reply) -> None:
    """Send `reply` to `queue`. A broker that is away loses it: whoever waits asks again or finds the result file.

    Raises TooLargeError when no broker would take it.
    """

    def put(producer: kombu.Producer) -> None:
        producer.publish(
            encode(reply),
            exchange="",
            routing_key=queue,
            content_type=_TYPE,
            content_encoding="binary",
            delivery_mode=1,
            retry=False,
            **timeouts,
        )

    timeouts: dict[str, float] = {}
    try:
        if app.outlet is not None:
            confirm_s = app.conf.broker_transport_options["read_timeout"]
            timeouts = {"timeout": confirm_s, "confirm_timeout": confirm_s}
            app.outlet.publish(put)
            return
        with app.producer_or_acquire() as producer:
            put(producer)
    except TooLargeError:
        raise
    except (*BROKER_ERRORS, UnreachableError) as exc:
        logger.warning("reply %s to %s was not sent: %s", reply.kind, queue, exc)
