"""The only door to rpyc: calls of the fixed method list as bytes in, bytes out, under mutual TLS.

Owns what a peer may ask (ping, close, getroot and one call with a method's name and bytes), who may ask it (the kinds of
`labelloop.methods` against the peer's certificate) and how errors cross (code and one sentence, never a traceback). rpyc's own
server, its references, attribute access, pickling and exceptions are out of reach: its handler table is replaced and its boxes
carry plain values only. Must never run a handler in the accept loop, nor repeat a call that is not idempotent. Called by every
role, the registry and the managers (Server) and by `labelloop.clients` (Client).

A server process has one thread that accepts and one for each connection; at most `worker_threads` of them are inside handlers.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import select
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from typing import Any

from rpyc.core import brine, consts
from rpyc.core.protocol import Connection
from rpyc.core.service import VoidService

from labelloop.errors import (
    BusyError,
    ForbiddenError,
    InternalError,
    InvalidInputError,
    LabelloopError,
    NotFoundError,
    TooLargeError,
    UnauthenticatedError,
    UnreachableError,
    from_code,
)
from labelloop.messages import Message, decode, encode
from labelloop.methods import SERVICES, Method
from labelloop.refusals import Refusals
from labelloop.revocation import RevokedSerials
from labelloop.settings import WireSettings
from labelloop.tls import ANONYMOUS, Anonymous, ContextSource, Identity, Peer, peer_of, unverified_context
from labelloop.wire_door import Connections, Door, Ticket, open_listener
from labelloop.wire_frames import BrineReader, FrameChannel, FrameError, long_tail
from labelloop.wire_pool import HEAD_BYTES, Answer, PooledClient, backoff_s, dial, parse_address

__all__ = ["Client", "Handler", "Peer", "Server", "backoff_s", "fetch_ca", "parse_address"]

logger = logging.getLogger(__name__)

Handler = Callable[[Any, Peer], Message]

ANONYMOUS_FRAME_BYTES = 64 * 1024
SENTENCE_CHARS = 2000
COPIED_BYTES = 4096  # a payload below this travels in its head


# ---------------------------------------------------------------- rpyc, with its doors walled up


class _Handlers(dict[int, Callable[..., Any]]):
    def __missing__(self, code: object) -> Callable[..., Any]:
        raise ForbiddenError(f"rpyc request code {str(code)[:40]} is not served: only ping, close, getroot and call are")


class _Plain(Connection):
    """A connection that speaks rpyc's protocol in plain values only and holds no reference for its peer."""

    _closed: bool

    def __init__(self, channel: FrameChannel) -> None:
        super().__init__(VoidService(), channel, {"logger": None, "allow_pickle": False, "bind_threads": False})

    @classmethod
    def _request_handlers(cls) -> dict[int, Callable[..., Any]]:
        return _Handlers()

    def close(self) -> None:
        """Close the channel without a farewell: the peer reads the end of the stream."""
        if not self._closed:
            self._closed = True
            self._channel.close()

    def _send(self, msg: int, seq: int, args: Any) -> None:
        payload, args = self._split(args)
        body = brine.I1.pack(msg) + brine.dump((seq, args))
        self._channel.send(long_tail(body, len(payload)) if payload else body, payload)

    @staticmethod
    def _split(args: Any) -> tuple[bytes, Any]:
        """Return (payload, args with b'' in its place) when the last value of `args` is a long byte string."""
        return (args[1], (args[0], b"")) if type(args[1]) is bytes and len(args[1]) >= COPIED_BYTES else (b"", args)

    def _unbox(self, package: Any) -> Any:
        if not isinstance(package, tuple) or len(package) != 2 or package[0] != consts.LABEL_VALUE:
            raise ForbiddenError("only plain values cross this connection, never references to objects")
        return package[1]

    def _read(self, frame: memoryview) -> tuple[int, int, Any]:
        """Return (message type, sequence number, the rest) of a frame. Raises FrameError."""
        value = BrineReader(frame[1:]).read()
        if not isinstance(value, tuple) or len(value) != 2 or not isinstance(value[0], int):
            raise FrameError("a body is not (number, content)")
        return frame[0], value[0], value[1]


class _Served(_Plain):
    """A server's end of one connection."""

    def __init__(
        self,
        channel: FrameChannel,
        root: tuple[str, str],
        answer: Callable[[str, bytes | memoryview], bytes],
        refused: Callable[[str, LabelloopError], None],
    ) -> None:
        super().__init__(channel)
        self._root = root
        self._answer = answer
        self._refused = refused
        self._asked = ""
        self._is_over = False

    @classmethod
    def _request_handlers(cls) -> dict[int, Callable[..., Any]]:
        return _Handlers(
            {
                consts.HANDLE_PING: cls._handle_ping,
                consts.HANDLE_CLOSE: cls._handle_close,
                consts.HANDLE_GETROOT: cls._handle_getroot,
                consts.HANDLE_CALL: cls._handle_call,
            }
        )

    def serve_all(self) -> None:
        """Answer requests one after the other until either side ends it. Raises EOFError, FrameError, TooLargeError, OSError."""
        while not self._is_over:
            self._dispatch(self._channel.recv())

    def _dispatch(self, data: memoryview) -> None:
        msg, seq, content = self._read(data)
        if msg != consts.MSG_REQUEST:
            raise FrameError(f"message type {msg} is not a request")
        self._asked = "a request that is no call"
        self._dispatch_request(seq, content)
        self._last_traceback = None  # rpyc keeps it, and with it the request's payload

    def _box_exc(self, typ: Any, val: Any, tb: Any) -> tuple[str, str]:
        error = val if isinstance(val, LabelloopError) else InvalidInputError("the request is not one of ours")
        self._refused(self._asked, error)
        return error.code, str(error)[:SENTENCE_CHARS].encode("utf-8", "replace").decode("utf-8")

    def _handle_ping(self, data: object) -> object:
        if not isinstance(data, bytes | str):
            raise InvalidInputError("a ping carries a short string")
        return data

    def _handle_close(self) -> None:
        self._is_over = True

    def _handle_getroot(self) -> tuple[str, str]:
        return self._root

    def _handle_call(self, name: object, args: object, kwargs: object = ()) -> bytes:
        if not isinstance(name, str) or not isinstance(args, tuple) or len(args) != 1 or kwargs != ():
            raise InvalidInputError("a call is a method's name and one byte string")
        self._asked = name
        if not isinstance(args[0], bytes | memoryview):
            raise InvalidInputError(f"{name[:80]} takes one byte string, not {type(args[0]).__name__}")
        return self._answer(name, args[0])


class _Calling(_Plain):
    """A client's end of one connection: one request at a time."""

    @staticmethod
    def _split(args: Any) -> tuple[bytes, Any]:
        handler, (label, values) = args
        if handler != consts.HANDLE_CALL:
            return b"", args
        return values[1][0], (handler, (label, (values[0], (b"",))))

    def request(self, handler: int, values: tuple[Any, ...], timeout_s: float) -> Any:
        """Return the peer's answer, an error of its own as a LabelloopError value. Raises EOFError, FrameError, OSError."""
        self._channel.connection.settimeout(timeout_s)
        self._channel.frame_timeout_s = timeout_s
        number = self._get_seq_id()
        self._send(consts.MSG_REQUEST, number, (handler, (consts.LABEL_VALUE, values)))
        msg, seq, content = self._read(self._channel.recv())
        if seq != number or msg not in (consts.MSG_REPLY, consts.MSG_EXCEPTION):
            raise FrameError(f"message {msg} with number {seq} does not answer request {number}")
        return self._unbox(content) if msg == consts.MSG_REPLY else self._unbox_exc(content)

    def _unbox_exc(self, raw: Any) -> LabelloopError:
        if not isinstance(raw, tuple) or len(raw) != 2 or not all(isinstance(part, str) for part in raw):
            raise FrameError("an error is not (code, sentence)")
        return from_code(raw[0], raw[1])

    def call(self, name: str, data: bytes, timeout_s: float) -> Answer:
        """Return the answer's bytes, or the peer's error."""
        answer = self.request(consts.HANDLE_CALL, (name, (data,)), timeout_s)
        if not isinstance(answer, bytes | memoryview | LabelloopError):
            raise FrameError(f"the answer of {name} is {type(answer).__name__}, not bytes")
        return answer

    def ping(self, timeout_s: float) -> Answer:
        """Return what the peer echoes."""
        answer = self.request(consts.HANDLE_PING, (b"ping",), timeout_s)
        if answer != b"ping" and not isinstance(answer, LabelloopError):
            raise FrameError("the echo of a ping is another")
        return answer if isinstance(answer, LabelloopError) else b"ping"

    def root(self, timeout_s: float) -> Any:
        """Return what the peer says of itself: (service, CA certificate PEM)."""
        return self.request(consts.HANDLE_GETROOT, (), timeout_s)

    def abandon(self) -> None:
        """Close this process's end after a fork, without a shutdown that the parent would feel."""
        self._closed = True
        self._channel.connection.close()

    def is_fresh(self) -> bool:
        """Return False when the peer has closed, or said something unasked, since the last answer."""
        poller = select.poll()
        poller.register(self._channel.fileno(), select.POLLIN)
        return not poller.poll(0)


# ---------------------------------------------------------------- server


class Server:
    """Serves one service. `listen()` before forks, `start()` after them in each process, `close()` at the end."""

    def __init__(
        self, service: str, handlers: Mapping[str, Handler], identity: Identity, settings: WireSettings, host: str, port: int
    ) -> None:
        unknown = set(handlers) - set(SERVICES[service])
        if unknown:
            raise InvalidInputError(f"service {service} has no methods {sorted(unknown)}: see labelloop/methods.py")
        self.service = service
        self._handlers = dict(handlers)
        self._identity = identity
        self._settings = settings
        self._place = (host, port)
        self._refusals = Refusals(service)
        self._listener: socket.socket | None = None
        self._door: Door | None = None

    @property
    def address(self) -> tuple[str, int]:
        """The (host, port) bound by `listen`."""
        if self._listener is None:
            raise InternalError("the server does not listen yet: call listen() first")
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    def listen(self) -> None:
        """Bind; starts no thread and no TLS. Raises UnreachableError naming the address when it cannot be had."""
        try:
            self._listener = open_listener(*self._place)
        except OSError as exc:
            raise UnreachableError(f"cannot listen at {self._place[0]}:{self._place[1]}: {exc}") from exc

    def start(self) -> None:
        """Start answering, in this process."""
        if self._listener is None:
            self.listen()
        assert self._listener is not None
        is_open = any(ANONYMOUS in row.kinds for row in SERVICES[self.service].values())
        self._contexts = ContextSource(self._identity, is_server=True, is_certificate_needed=not is_open)
        self._contexts.get()
        self._revoked = RevokedSerials(self._identity.certificate_file.parent)
        self._root = (self.service, self._identity.ca_file.read_text())
        self._slots = threading.BoundedSemaphore(self._settings.worker_threads)
        self._connections = Connections(self._settings.max_connections, self._settings.max_connections_per_address)
        self._door = Door(self._listener, self._connections, self._converse, f"wire-{self.service}")

    def close(self, grace_s: float = 5.0) -> None:
        """Stop accepting, let running calls answer for `grace_s`, end all connections, join all threads."""
        if self._door is not None:
            self._door.close(grace_s)
            self._door = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _converse(self, ticket: Ticket) -> None:
        """Hold one connection from handshake to end; runs in the connection's own thread."""
        is_lingering = False
        try:
            connection = ticket.wrap(self._contexts.get())
            peer, serial = self._shake_hands(connection, ticket)
            self._serve(connection, peer, serial)
        except EOFError:
            pass
        except (FrameError, TooLargeError, LabelloopError, OSError, ValueError) as exc:
            is_lingering = not isinstance(exc, TimeoutError | ConnectionError)
            logger.info("%s: closed the connection of %s: %s", self.service, ticket.address, exc)
        finally:
            ticket.close(is_lingering)

    def _shake_hands(self, connection: ssl.SSLSocket, ticket: Ticket) -> tuple[Peer, str]:
        """Return who calls and the serial number of its certificate, '' = none."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(self._settings.handshake_timeout_s)
        connection.do_handshake()
        peer = peer_of(connection, ticket.address)
        if peer.kind == ANONYMOUS:
            return peer, ""
        serial = str((connection.getpeercert() or {}).get("serialNumber", ""))
        with contextlib.suppress(UnauthenticatedError):  # who is refused below hears why, but holds no place
            if not self._revoked.has(serial):
                self._connections.know(ticket)
        return peer, serial

    def _serve(self, connection: ssl.SSLSocket, peer: Peer, serial: str) -> None:
        is_anonymous = peer.kind == ANONYMOUS
        limit = self._settings.max_frame_bytes
        channel = FrameChannel(connection, min(limit, ANONYMOUS_FRAME_BYTES) if is_anonymous else limit)
        channel.frame_timeout_s = self._settings.handshake_timeout_s if is_anonymous else self._settings.idle_timeout_s
        connection.settimeout(channel.frame_timeout_s)
        refused = functools.partial(self._refusals.note, peer)
        _Served(channel, self._root, lambda name, data: self._call(name, data, peer, serial), refused).serve_all()

    def _call(self, name: str, data: bytes | memoryview, peer: Peer, serial: str) -> bytes:
        """Return the encoded reply of one call. Raises LabelloopErrors only."""
        if serial and self._revoked.has(serial):
            raise UnauthenticatedError(f"the certificate of {peer.name} was revoked: enrol anew with a join token")
        service, _, method = name.partition(".")
        row = SERVICES[self.service].get(method) if service == self.service else None
        if row is None:
            raise NotFoundError(f"service {self.service} has no method {name[:80]!r}")
        _check_kind(row, self.service, peer)
        handler = self._handlers.get(method)
        if handler is None:
            raise NotFoundError(f"{name} is not offered by this process")
        request = decode(row.request, data)
        if not self._slots.acquire(timeout=self._settings.deadline_s):
            raise BusyError(f"all {self._settings.worker_threads} workers of {self.service} are taken: try again")
        try:
            reply = self._run(handler, request, peer, row)
        finally:
            self._slots.release()
        out = encode(reply)
        if len(out) + HEAD_BYTES > self._settings.max_frame_bytes:
            raise TooLargeError(f"the answer of {name} has {len(out)} bytes, over wire.max_frame_bytes: ask for less at a time")
        return out

    def _run(self, handler: Handler, request: Message, peer: Peer, row: Method) -> Message:
        try:
            reply = handler(request, peer)
        except LabelloopError:
            raise
        except Exception:
            logger.exception("%s.%s, called by %s %s, failed", self.service, row.name, peer.kind, peer.name)
            raise InternalError(f"{self.service}.{row.name} failed; the log of {self._place[0]} has the reason") from None
        if not isinstance(reply, row.reply):
            logger.error("%s.%s answered %s, not %s", self.service, row.name, type(reply).__name__, row.reply.__name__)
            raise InternalError(f"{self.service}.{row.name} gave an answer of the wrong type")
        return reply


def _check_kind(row: Method, service: str, peer: Peer) -> None:
    if peer.kind in row.kinds:
        return
    needed = " or ".join(sorted(row.kinds - {ANONYMOUS}))
    if peer.kind == ANONYMOUS:
        raise UnauthenticatedError(f"{service}.{row.name} needs a certificate of kind {needed}: enrol with a join token first")
    raise ForbiddenError(f"{service}.{row.name} is for {needed}; {peer.name} is a {peer.kind}")


# ---------------------------------------------------------------- client


class Client(PooledClient):
    """Calls one service at one address ('host:port'): see `PooledClient`. Thread-safe, to be kept and closed."""

    def __init__(self, address: str, service: str, identity: Identity | Anonymous, settings: WireSettings) -> None:
        super().__init__(address, service, identity, settings, _Calling)


def fetch_ca(address: str, settings: WireSettings) -> str:
    """Return the CA certificate (PEM) that the server at `address` claims; believe it only after comparing its hash.

    Raises UnreachableError.
    """
    try:
        channel = dial(address, unverified_context(), settings.handshake_timeout_s, ANONYMOUS_FRAME_BYTES)
        with contextlib.closing(_Calling(channel)) as line:
            root = line.root(settings.deadline_s)
    except (EOFError, FrameError, OSError) as exc:
        raise UnreachableError(f"the registry at {address} does not answer: {exc}") from exc
    if not isinstance(root, tuple) or len(root) != 2 or root[0] != "registry":
        raise UnauthenticatedError(f"{address} is not a registry")
    return str(root[1])
