"""The reply queue of one inference_rpc process: workers answer here, waiting threads are woken within a millisecond.

Owns who waits for which call. Must never know what a reply means. Called by `asking` and `dispatch` (which subscribe by call id)
and by `worker` (which posts). Celery's result backend is not used: it stores each answer, and its consumer is not made for many
threads.

Threads: all methods may be called from any thread; handlers run on the listener's thread and must only hand over.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import kombu

from labelloop.errors import LabelloopError, UnreachableError
from labelloop.messages import decode, encode
from roles.amqp import classic_queue
from roles.celery_app import BROKER_ERRORS, RoleApp
from roles.inference.calls import Reply
from roles.listening import Listener

logger = logging.getLogger(__name__)

_TYPE = "application/data"

Handler = Callable[[Reply], None]


class Mailbox:
    """Consume `queue` and hand each reply to the handler of its call; one that nobody waits for goes to `on_stray`."""

    def __init__(self, app: RoleApp, queue: str, on_stray: Handler | None = None) -> None:
        self.queue = queue
        self._on_stray = on_stray
        self._handlers: dict[str, Handler] = {}
        self._listener = Listener(app, classic_queue(queue), self._deliver, "mailbox", no_ack=True, accept=[_TYPE])

    def start(self) -> None:
        self._listener.start()

    def close(self) -> None:
        self._listener.close()

    def subscribe(self, call: str, handler: Handler) -> None:
        self._handlers[call] = handler

    def unsubscribe(self, call: str) -> None:
        self._handlers.pop(call, None)

    def require_broker(self) -> None:
        """Return at once while replies can come in; raise UnreachableError when they have not been able to for a second."""
        self._listener.require()

    def check_broker(self) -> None:
        """Raise UnreachableError when the broker has been away for a second; never wait."""
        self._listener.check()

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
    try:
        deliver(app, queue, reply, must_arrive=False)
    except UnreachableError as exc:
        logger.warning("reply %s to %s was not sent: %s", reply.kind, queue, exc)


def deliver(app: RoleApp, queue: str, reply: Reply, *, must_arrive: bool = True) -> None:
    """Send `reply` to `queue`. Raises UnreachableError; with `must_arrive` also when RabbitMQ has no such queue."""

    def put(producer: kombu.Producer, **options: Any) -> None:
        producer.publish(
            encode(reply),
            exchange="",
            routing_key=queue,
            content_type=_TYPE,
            content_encoding="binary",
            delivery_mode=1,
            retry=False,
            **options,
        )

    if app.outlet is not None:
        confirm_s = app.conf.broker_transport_options["read_timeout"]
        app.outlet.publish(functools.partial(put, mandatory=must_arrive, timeout=confirm_s, confirm_timeout=confirm_s))
        return
    try:
        with app.producer_or_acquire() as producer:
            put(producer)
    except BROKER_ERRORS as exc:
        raise UnreachableError(str(exc)) from exc
