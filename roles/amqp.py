"""RabbitMQ's side of the transport: TLS, heartbeats, confirmed messages, queues that are used and never declared.

Owns what a connection to RabbitMQ is made with and `Outlet`, the way out of a process: each message is confirmed by the broker, and
a connection about which there is any doubt is dropped, because a late confirmation would be taken for that of the next message.
Must never declare a queue or an exchange (`cluster.broker` does), nor know what a message means. Called by `roles.celery_app`.

`Outlet.publish` may be called from any thread; each call has a connection for itself while it runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import amqp
import amqp.exceptions
import kombu
import kombu.exceptions

from labelloop.errors import TooLargeError, UnreachableError
from labelloop.messages import RoleConfig
from labelloop.settings import BrokerSettings

logger = logging.getLogger(__name__)

CONNECT_S = 2.0
CLOSE_S = 0.3
USER_TIMEOUT_MS = 4000
MOST_IDLE = 16
_ERRORS = (kombu.exceptions.OperationalError, OSError, amqp.exceptions.AMQPError, amqp.exceptions.MessageNacked)
_TOO_LARGE = 406  # a message over the broker's max_message_size closes the channel with PRECONDITION_FAILED

R = TypeVar("R")


def is_amqp(url: str) -> bool:
    """Return whether `url` names a RabbitMQ."""
    return url.startswith(("amqp://", "amqps://"))


def tls_options(config: RoleConfig) -> dict[str, Any] | bool:
    """Return kombu's options for mutual TLS with the node's own certificate; False for a URL without TLS.

    The server's certificate must come from the cluster's CA and name the host or address in the URL. The files are read at each
    new connection, so that a renewed certificate is taken up.
    """
    if not config.broker_url.startswith("amqps://"):
        return False
    return {
        "certfile": config.certificate_file,
        "keyfile": config.key_file,
        "ca_certs": config.ca_file,
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": None,  # kombu: check against the host of the URL
        "tls_minimum_version": ssl.TLSVersion.TLSv1_2,
    }


def transport_options(settings: BrokerSettings) -> dict[str, Any]:
    """Return what makes py-amqp notice within seconds that its peer is gone, and confirm what it publishes."""
    return {
        "confirm_publish": True,
        "read_timeout": settings.confirm_timeout_s,
        "write_timeout": settings.confirm_timeout_s,
        "socket_settings": {socket.TCP_USER_TIMEOUT: USER_TIMEOUT_MS},
    }


def shorten_waits(connection: kombu.Connection | None) -> None:
    """Let a consumer that ends wait `CLOSE_S` for each answer of its RabbitMQ: closing takes four, and a dead one gives none."""
    own = getattr(connection, "_connection", None)  # `.connection` would connect
    transport = own.transport if isinstance(own, amqp.Connection) else None
    if transport is not None and transport.sock is not None:
        wait = struct.pack("ll", int(CLOSE_S), int(CLOSE_S % 1 * 1e6))
        with contextlib.suppress(OSError):
            transport.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)


def quorum_queue(name: str) -> kombu.Queue:
    """Return a queue of work: the argument is what makes Celery set its prefetch for each consumer, as quorum queues need."""
    return _queue(name, {"x-queue-type": "quorum"})


def classic_queue(name: str) -> kombu.Queue:
    """Return a queue of one node alone, which has no replicas."""
    return _queue(name, {})


def _queue(name: str, arguments: dict[str, str]) -> kombu.Queue:
    return kombu.Queue(name, kombu.Exchange(""), routing_key=name, durable=True, no_declare=True, queue_arguments=arguments or None)


class Outlet:
    """Confirmed messages of one process to one broker. `connect(on_blocked)` makes a connection that is not open yet."""

    def __init__(self, connect: Callable[[Callable[[str], None]], kombu.Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._idle: list[kombu.Producer] = []
        self._pid = os.getpid()

    def publish(self, act: Callable[[kombu.Producer], R]) -> R:
        """Run `act` with a producer. A connection that lay idle and turns out dead is replaced once.

        Raises UnreachableError when the broker is away, has no such queue, holds publishers back (a memory or disk alarm), or does
        not confirm in time; TooLargeError.
        """
        producer = self._take()
        if producer is not None:
            try:
                return self._run(producer, act)
            except _ERRORS as exc:
                self._forget_idle()
                if not _is_dead(exc):
                    raise _renamed(exc) from exc
        try:
            return self._run(self._fresh(), act)
        except _ERRORS as exc:
            raise _renamed(exc) from exc

    def close(self) -> None:
        """Close the idle connections."""
        self._forget_idle()

    def _run(self, producer: kombu.Producer, act: Callable[[kombu.Producer], R]) -> R:
        is_good = False
        try:
            result = act(producer)
            is_good = True
            return result
        finally:
            if is_good:
                self._give(producer)
            else:
                _drop(producer)

    def _fresh(self) -> kombu.Producer:
        connection = self._connect(_refuse)
        try:
            connection.ensure_connection(max_retries=0)
            producer = kombu.Producer(connection, auto_declare=False)
            producer.revive(connection.default_channel)
            return producer
        except BaseException:
            connection.collect()
            raise

    def _take(self) -> kombu.Producer | None:
        with self._lock:
            if self._pid != os.getpid():  # a forked child must not speak on its parent's connections
                self._idle, self._pid = [], os.getpid()
            return self._idle.pop() if self._idle else None

    def _give(self, producer: kombu.Producer) -> None:
        with self._lock:
            if len(self._idle) < MOST_IDLE:
                self._idle.append(producer)
                return
        _drop(producer)

    def _forget_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for producer in idle:
            _drop(producer)


def _refuse(reason: str) -> None:
    """Called by py-amqp when the broker says that it takes nothing more for now."""
    raise UnreachableError(f"the broker holds publishers back (a memory or disk alarm): {reason}")


def _drop(producer: kombu.Producer) -> None:
    """Close the socket without a word: the peer may be frozen."""
    with contextlib.suppress(*_ERRORS):
        producer.__connection__.collect()


def _is_dead(exc: BaseException) -> bool:
    """Return whether nothing was confirmed because the connection had died before; a silent broker gets no second try."""
    cause = exc.__cause__ or exc
    if isinstance(cause, TimeoutError | amqp.exceptions.MessageNacked | amqp.exceptions.ChannelError):
        return False
    return isinstance(cause, OSError | amqp.exceptions.ConnectionError)


def _renamed(exc: BaseException) -> UnreachableError | TooLargeError:
    cause = exc.__cause__ or exc
    if isinstance(cause, amqp.exceptions.ChannelError):
        if cause.reply_code == _TOO_LARGE:
            return TooLargeError(f"the broker refuses the message: {cause.reply_text}")
        return UnreachableError(f"the broker has no such queue yet: {cause.reply_text}")
    if isinstance(cause, TimeoutError):
        return UnreachableError("the broker did not confirm in time")
    if isinstance(cause, amqp.exceptions.MessageNacked):
        return UnreachableError("the broker gave the message back")
    return UnreachableError(str(cause) or type(cause).__name__)
