"""Frames on a TLS socket, in rpyc's format: `!LB` (length, is compressed), body, newline; bodies in rpyc's brine.

Owns every limit on what a peer may make us read, inflate or build: a length is judged from the header alone, memory is touched
only as bytes arrive, inflating stops at the same limit, and a body may hold at most MAX_NODES values. Payloads are neither
copied nor compressed here. Must never import rpyc and never interpret a request. Called by `labelloop.wire` alone.
"""

from __future__ import annotations

import contextlib
import mmap
import socket
import ssl
import struct
import time
import zlib
from typing import Any

from labelloop.errors import TooLargeError

HEADER = struct.Struct("!LB")
END = b"\n"
JOINED_BYTES = 16 * 1024  # up to this a frame leaves as one TLS record
MAPPED_BYTES = 1 << 20  # above this a body gets pages of its own, committed only as data arrives
VIEWED_BYTES = 64 * 1024  # a byte string of a body is copied out below this and viewed in place above it
MAX_NODES = 64
MAX_DEPTH = 12


class FrameError(Exception):
    """Bytes that are no frame of ours; the connection that sent them is closed."""


class FrameChannel:
    """One TLS socket as a sequence of frames; takes the place of rpyc's Channel and Stream.

    One thread reads and writes at a time (a server's connection thread, or the client call that holds the connection).
    """

    def __init__(self, connection: ssl.SSLSocket, max_frame_bytes: int) -> None:
        self.connection = connection
        self.max_frame_bytes = max_frame_bytes
        self.frame_timeout_s: float | None = None

    @property
    def closed(self) -> bool:
        return self.connection.fileno() < 0

    def fileno(self) -> int:
        return self.connection.fileno()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            # SSLSocket.shutdown would drop the TLS layer under a reader in another thread
            socket.socket.shutdown(self.connection, socket.SHUT_RDWR)
        self.connection.close()

    def send(self, head: bytes, payload: bytes | memoryview = b"") -> None:
        """Send one frame made of `head` and `payload`. Raises TooLargeError before any byte leaves, OSError."""
        size = len(head) + len(payload)
        if size > self.max_frame_bytes:
            raise TooLargeError(
                f"a message of {size} bytes is over wire.max_frame_bytes ({self.max_frame_bytes}): send it in smaller batches"
            )
        limit_s = self._limit_s()
        if size <= JOINED_BYTES:
            self._push(b"".join((HEADER.pack(size, 0), head, payload, END)), limit_s)
            return
        self._push(HEADER.pack(size, 0) + head, limit_s)
        self._push(payload, limit_s)
        self._push(END, limit_s)

    def recv(self) -> memoryview:
        """Return the next frame's body. Raises EOFError at a clean end, FrameError, TooLargeError, OSError (TimeoutError)."""
        header = bytearray(HEADER.size)
        self._fill(memoryview(header), is_start=True)
        size, is_compressed = HEADER.unpack(header)
        if size > self.max_frame_bytes:
            raise TooLargeError(f"a frame of {size} bytes is over wire.max_frame_bytes ({self.max_frame_bytes})")
        if size == 0 or is_compressed > 1:
            raise FrameError(f"not a frame: length {size}, flag {is_compressed}")
        body = memoryview(mmap.mmap(-1, size + 1)) if size >= MAPPED_BYTES else memoryview(bytearray(size + 1))
        self._fill(body)
        if body[size] != END[0]:
            raise FrameError("a frame does not end with a newline")
        return self._inflate(body[:size]) if is_compressed else body[:size]

    def _limit_s(self) -> float:
        return time.monotonic() + self.frame_timeout_s if self.frame_timeout_s is not None else float("inf")

    def _push(self, data: bytes | memoryview, limit_s: float) -> None:
        view, at = memoryview(data), 0
        while at < len(view):
            at += self.connection.send(view[at:])
            if at < len(view) and time.monotonic() > limit_s:
                raise TimeoutError("the peer took too long to take one frame")

    def _fill(self, view: memoryview, is_start: bool = False) -> None:
        size, at = len(view), 0
        limit_s = float("inf") if is_start else self._limit_s()
        while at < size:
            n = self.connection.recv_into(view[at:])
            if n == 0:
                if is_start and at == 0:
                    raise EOFError("closed by the peer")
                raise FrameError("closed in the middle of a frame")
            at += n
            if at < size and time.monotonic() > limit_s:
                raise TimeoutError("the peer took too long over one frame")

    def _inflate(self, data: memoryview) -> memoryview:
        inflater = zlib.decompressobj()
        try:
            out = inflater.decompress(data, self.max_frame_bytes + 1)
        except zlib.error as exc:
            raise FrameError(f"not a zlib stream: {exc}") from exc
        if len(out) > self.max_frame_bytes:
            raise TooLargeError(f"a frame of {len(data)} bytes inflates over wire.max_frame_bytes ({self.max_frame_bytes})")
        if not inflater.eof or inflater.unused_data:
            raise FrameError("a compressed frame is cut short or has more behind it")
        return memoryview(out)


# ---------------------------------------------------------------- brine, the part of it that we speak

_EMPTY = 0x01
_LONG_BYTES = b"\x0f"
_TUPLES = {0x02: 0, 0x10: 1, 0x11: 2, 0x12: 3, 0x13: 4}
_CONSTANTS: dict[int, Any] = {0x00: None, 0x03: True, 0x04: False, 0x05: NotImplemented, 0x06: ..., _EMPTY: b""}
_SHORT_BYTES = {0x0A: 1, 0x0B: 2, 0x0C: 3, 0x0D: 4}
_COUNT = struct.Struct("!L")


def long_tail(head_with_empty_tail: bytes, size: int) -> bytes:
    """Return a brine head whose last value, empty bytes, is replaced by the announcement of `size` bytes to follow."""
    if head_with_empty_tail[-1] != _EMPTY:
        raise FrameError("the head does not end in empty bytes")
    return b"".join((head_with_empty_tail[:-1], _LONG_BYTES, _COUNT.pack(size)))


class BrineReader:
    """Reads one brine value of at most MAX_NODES nodes and MAX_DEPTH levels; long byte strings are views, not copies."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0
        self._nodes = 0

    def read(self) -> Any:
        """Return the value. Raises FrameError when it is malformed, too big a structure, or not alone in the frame."""
        try:
            value = self._value(0)
        except (IndexError, struct.error, UnicodeDecodeError, ValueError) as exc:
            raise FrameError(f"malformed body: {exc}") from exc
        if self._at != len(self._data):
            raise FrameError("bytes behind the body's value")
        return value

    def _take(self, n: int) -> memoryview:
        end = self._at + n
        if end > len(self._data):
            raise FrameError("a body is cut short")
        view = self._data[self._at : end]
        self._at = end
        return view

    def _value(self, depth: int) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            raise FrameError("a body holds more values than any request of ours")
        tag = self._take(1)[0]
        if 0x20 <= tag <= 0xEF:
            return tag - 0x50
        if tag in _CONSTANTS:
            return _CONSTANTS[tag]
        if tag in _TUPLES:
            return self._tuple(_TUPLES[tag], depth)
        if tag == 0x14:
            return self._tuple(self._take(1)[0], depth)
        if tag == 0x08:
            return self._text(self._value(depth + 1))
        if tag == 0x16:
            return int(bytes(self._take(self._take(1)[0])))
        return self._bytes(tag)

    def _tuple(self, n: int, depth: int) -> tuple[Any, ...]:
        return tuple(self._value(depth + 1) for _ in range(n))

    def _text(self, value: object) -> str:
        if not isinstance(value, bytes):
            raise FrameError("a text of a body is not made of bytes, or is too long")
        return value.decode("utf-8")

    def _bytes(self, tag: int) -> bytes | memoryview:
        if tag in _SHORT_BYTES:
            size = _SHORT_BYTES[tag]
        elif tag == 0x0E:
            size = self._take(1)[0]
        elif tag == _LONG_BYTES[0]:
            size = _COUNT.unpack(self._take(4))[0]
        else:
            raise FrameError(f"a body holds a value of tag {tag:#04x}, which no request of ours has")
        view = self._take(size)
        return bytes(view) if size < VIEWED_BYTES else view
