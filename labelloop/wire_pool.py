"""The client's half of the wire: a pool of connections to one server, deadlines, repeats of what is idempotent.

Owns which connection carries a call and when a call is made again. Must never import rpyc (a `Line` speaks it) and never repeat
a call that is not idempotent. Called by `labelloop.wire`, whose `Client` is this pool with rpyc's lines.

One call at a time uses a connection, so a slow call delays no other; at most `client_connections` of them are open.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable
from typing import Protocol

from labelloop.errors import (
    DeadlineError,
    IntegrityError,
    InvalidInputError,
    LabelloopError,
    TooLargeError,
    UnauthenticatedError,
    UnreachableError,
)
from labelloop.messages import Message, decode, encode
from labelloop.methods import SERVICES
from labelloop.revocation import RevokedSerials
from labelloop.settings import WireSettings
from labelloop.tls import Anonymous, ContextSource, Identity
from labelloop.wire_frames import FrameChannel, FrameError

logger = logging.getLogger(__name__)

HEAD_BYTES = 512  # more than any head before a payload
BACKOFF_S = 0.05

Answer = bytes | memoryview | LabelloopError


class Line(Protocol):
    """One open connection; each method raises EOFError, FrameError or OSError when it breaks."""

    def call(self, name: str, data: bytes, timeout_s: float) -> Answer:
        """Return the answer's bytes, or the error that the peer answered as a value."""

    def ping(self, timeout_s: float) -> Answer:
        """Return what the peer echoes."""

    def is_fresh(self) -> bool:
        """Return False when the peer has closed, or said something unasked, since the last answer."""

    def close(self) -> None:
        """Close it."""

    def abandon(self) -> None:
        """Close this process's end after a fork and leave the parent's working."""


Ask = Callable[[Line, float], Answer]


def parse_address(address: str) -> tuple[str, int]:
    """Return (host, port) of 'host:port' or '[v6]:port'. Raises InvalidInputError naming the address."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidInputError(f"address {address!r} is not 'host:port'")
    return host, int(port)


def backoff_s(attempt: int) -> float:
    """Return the seconds to pause after failed attempt `attempt` (0, 1, ...): doubling, with jitter so that callers spread."""
    return BACKOFF_S * 2.0**attempt * random.uniform(0.5, 1.5)


class PooledClient:
    """Calls one service at one address. Thread-safe; after a fork the child opens connections of its own."""

    def __init__(
        self,
        address: str,
        service: str,
        identity: Identity | Anonymous,
        settings: WireSettings,
        open_line: Callable[[FrameChannel], Line],
    ) -> None:
        parse_address(address)
        self.address = address
        self.service = service
        self._table = SERVICES[service]
        self._settings = settings
        self._contexts = ContextSource(identity)
        self._revoked = RevokedSerials(identity.certificate_file.parent) if isinstance(identity, Identity) else None
        self._open_line = open_line
        self._reset()
        _pools.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(self._settings.client_connections)
        self._idle: list[tuple[Line, float]] = []
        self._closing = threading.Event()

    def call(self, method: str, request: Message, deadline_s: float | None = None) -> Message:
        """Return the answer of `method` to `request` within `deadline_s` (default `wire.deadline_s`).

        An idempotent method is repeated, with growing pauses, while the peer is unreachable. Raises the error the peer answered;
        UnreachableError, DeadlineError, UnauthenticatedError, TooLargeError, IntegrityError of the transport.
        """
        row = self._table.get(method)
        if row is None or not isinstance(request, row.request):
            raise InvalidInputError(f"{self.service}.{method} does not take {type(request).__name__}: see labelloop/methods.py")
        data = encode(request)
        if len(data) + HEAD_BYTES > self._settings.max_frame_bytes:
            raise TooLargeError(
                f"{self.service}.{method} with {len(data)} bytes is over wire.max_frame_bytes: send smaller batches"
            )
        name = f"{self.service}.{method}"
        retries = self._settings.retries if row.is_idempotent else 0
        answer = self._persist(lambda line, left_s: line.call(name, data, left_s), deadline_s, retries)
        try:
            return decode(row.reply, answer)
        except InvalidInputError as exc:
            raise IntegrityError(f"{self.service}.{method} at {self.address} gave an answer this build cannot read: {exc}") from exc

    def ping(self, deadline_s: float | None = None) -> None:
        """Return once the peer has echoed, certificate checked both ways; tried once. Raises as `call`."""
        self._persist(lambda line, left_s: line.ping(left_s), deadline_s, 0)

    def close(self) -> None:
        """Close the idle connections; those in use go when their call ends. Later calls raise UnreachableError."""
        self._closing.set()
        self.disconnect()

    def disconnect(self) -> None:
        """Close the idle connections; the next call opens a new one."""
        with self._lock:
            idle, self._idle = self._idle, []
        for line, _ in idle:
            line.close()

    def _persist(self, ask: Ask, deadline_s: float | None, retries: int) -> bytes | memoryview:
        end_s = time.monotonic() + (self._settings.deadline_s if deadline_s is None else deadline_s)
        for attempt in itertools.count():
            try:
                answer = self._once(ask, end_s)
                break
            except UnreachableError as exc:
                pause_s = backoff_s(attempt)
                if attempt >= retries or time.monotonic() + pause_s >= end_s or self._closing.wait(pause_s):
                    raise
                logger.info("%s at %s: again after %.2f s: %s", self.service, self.address, pause_s, exc)
        if isinstance(answer, LabelloopError):
            raise answer
        return answer

    def _once(self, ask: Ask, end_s: float) -> Answer:
        if not self._places.acquire(timeout=max(0.0, end_s - time.monotonic())):
            raise DeadlineError(f"no free connection to {self.service} at {self.address} within the deadline")
        try:
            line = self._take(end_s)
            try:
                answer = ask(line, self._left_s(end_s))
            except (EOFError, FrameError, OSError) as exc:
                line.close()
                raise self._explain(exc, end_s) from exc
            except BaseException:
                line.close()
                raise
            self._give(line)
            return answer
        finally:
            self._places.release()

    def _take(self, end_s: float) -> Line:
        if self._closing.is_set():
            raise UnreachableError(f"the client of {self.service} at {self.address} is closed")
        oldest_s = time.monotonic() - self._settings.idle_timeout_s / 2
        while True:
            with self._lock:
                line, since_s = self._idle.pop() if self._idle else (None, 0.0)
            if line is None:
                return self._connect(end_s)
            if since_s > oldest_s and line.is_fresh():
                return line
            line.close()

    def _give(self, line: Line) -> None:
        with self._lock:
            if not self._closing.is_set():
                self._idle.append((line, time.monotonic()))
                return
        line.close()

    def _connect(self, end_s: float) -> Line:
        timeout_s = min(self._left_s(end_s), self._settings.handshake_timeout_s)
        try:
            channel = dial(self.address, self._contexts.get(), timeout_s, self._settings.max_frame_bytes)
        except OSError as exc:
            raise self._explain(exc, end_s) from exc
        try:
            self._refuse_revoked(channel)
        except LabelloopError:
            channel.close()
            raise
        return self._open_line(channel)

    def _refuse_revoked(self, channel: FrameChannel) -> None:
        shown = channel.connection.getpeercert() or {}
        if self._revoked is not None and self._revoked.has(str(shown.get("serialNumber", ""))):
            raise UnauthenticatedError(f"the certificate of {self.service} at {self.address} was revoked")

    def _left_s(self, end_s: float) -> float:
        left_s = end_s - time.monotonic()
        if left_s <= 0:
            raise DeadlineError(f"{self.service} at {self.address} did not answer within the deadline")
        return left_s

    def _explain(self, exc: Exception, end_s: float) -> LabelloopError:
        where = f"{self.service} at {self.address}"
        if isinstance(exc, TimeoutError) and time.monotonic() >= end_s:
            return DeadlineError(f"{where} did not answer within the deadline")
        if isinstance(exc, ssl.SSLCertVerificationError):
            return UnauthenticatedError(f"the certificate of {where} is not valid here: {exc.verify_message}")
        if isinstance(exc, ssl.SSLError) and any(
            word in str(exc.reason) for word in ("ALERT_CERT", "ALERT_UNKNOWN_CA", "ALERT_BAD")
        ):
            return UnauthenticatedError(f"{where} refuses our certificate: {exc.reason}; enrol anew")
        return UnreachableError(f"{where} does not answer: {str(exc) or type(exc).__name__}")

    def leave_parent(self) -> None:
        """After a fork, in the child: let go of the parent's sockets (closed here, not shut down) and locks."""
        inherited = self._idle
        self._reset()
        for line, _ in inherited:
            line.abandon()


_pools: weakref.WeakSet[PooledClient] = weakref.WeakSet()


def _leave_parents() -> None:
    for pool in list(_pools):
        pool.leave_parent()


os.register_at_fork(after_in_child=_leave_parents)


def dial(address: str, context: ssl.SSLContext, timeout_s: float, max_frame_bytes: int) -> FrameChannel:
    """Return a channel to `address` after the handshake. Raises OSError (ssl.SSLError included)."""
    plain = socket.create_connection(parse_address(address), timeout=timeout_s)
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return FrameChannel(context.wrap_socket(plain, server_hostname=plain.getpeername()[0]), max_frame_bytes)
    except BaseException:
        plain.close()
        raise
