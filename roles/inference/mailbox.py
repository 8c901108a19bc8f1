"""The reply queue of one inference_rpc process: workers answer here, waiting threads are woken within a millisecond.

Owns the connection that consumes the queue and the thread that drains it. Must never know what a reply means. Called by
`asking` and `dispatch` (which subscribe by call id) and by `worker` (which posts). Celery's result backend is not used: it
stores each answer, and its consumer is not made for many threads.

Threads: `subscribe` and `unsubscribe` may be called from any thread; handlers run on the mailbox thread and must only hand over.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import celery
import kombu

from labelloop.errors import LabelloopError
from labelloop.messages import decode, encode
from roles.celery_app import BROKER_ERRORS
from roles.inference.calls import Reply

logger = logging.getLogger(__name__)

RECONNECT_S = 0.1
DRAIN_S = 0.5
_TYPE = "application/data"

Handler = Callable[[Reply], None]


class Mailbox:
    """Consume `queue` and hand each reply to the handler of its call; a reply nobody waits for is dropped."""

    def __init__(self, app: celery.Celery, queue: str) -> None:
        self.queue = queue
        self._app = app
        self._handlers: dict[str, Handler] = {}
        self._is_stopping = threading.Event()
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

    def _run(self) -> None:
        while not self._is_stopping.is_set():
            connection = self._app.connection_for_read()
            errors = (*BROKER_ERRORS, *connection.connection_errors, *connection.channel_errors)
            try:
                with connection:
                    self._drain(connection)
            except errors as exc:
                logger.warning("replies stop: broker is away (%s), trying again in %.1f s", exc, RECONNECT_S)
                self._is_stopping.wait(RECONNECT_S)

    def _drain(self, connection: kombu.Connection) -> None:
        queue = kombu.Queue(self.queue, kombu.Exchange(""), routing_key=self.queue, durable=True)
        with connection.Consumer(queue, on_message=self._deliver, no_ack=True, accept=[_TYPE]):
            while not self._is_stopping.is_set():
                try:
                    connection.drain_events(timeout=DRAIN_S)
                except TimeoutError:
                    continue

    def _deliver(self, message: Any) -> None:
        try:
            reply = decode(Reply, message.body)
        except LabelloopError as exc:
            logger.error("a reply on %s is not readable, dropped: %s", self.queue, exc)
            return
        handler = self._handlers.get(reply.call)
        if handler is not None:
            handler(reply)


def post(app: celery.Celery, queue: str, reply: Reply) -> None:
    """Send `reply` to `queue`. A broker that is away loses it: whoever waits asks again or finds the result file."""
    with app.producer_or_acquire() as producer:
        try:
            producer.publish(
                encode(reply),
                exchange="",
                routing_key=queue,
                content_type=_TYPE,
                content_encoding="binary",
                delivery_mode=1,
                retry=False,
            )
        except (*BROKER_ERRORS, *producer.connection.connection_errors) as exc:
            logger.warning("reply %s to %s was not sent: %s", reply.kind, queue, exc)
