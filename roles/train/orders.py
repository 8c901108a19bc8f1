"""What runner and spare say to each other over two pipes: orders in, reports out, each a length and one message.

Owns the frames. A report is smaller than PIPE_BUF, so that processes may share the pipe without mixing their words.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Literal

from labelloop.messages import Message, decode, encode
from roles.hints import RankHint, RunHint

_LENGTH = struct.Struct("<I")
MOST_SAID = 2000


class Order(Message, frozen=True, kw_only=True):
    """Train this attempt, or with `rank` take a rank of it; `algorithm` is kept warm from then on. `slot` is the lowest number
    that no other order at work here has."""

    hint: RunHint
    algorithm: str
    rank: RankHint | None = None
    slot: int = 0


class Report(Message, frozen=True, kw_only=True):
    """What became of an order: `ready` (the spare is warm, no order), `began` as process `pid`, `said` its last sentence, `at` what
    it does now, `calls` for `node` to take `rank`, or `ended` with `status` as from `Popen.returncode`."""

    kind: Literal["ready", "began", "said", "at", "calls", "ended"]
    pid: int = 0
    status: int = 0
    text: str = ""
    hint: RunHint | None = None
    rank: RankHint | None = None
    node: str = ""


def frame(message: Message) -> bytes:
    """Return the bytes of one message on the pipe."""
    data = encode(message)
    return _LENGTH.pack(len(data)) + data


def write_report(stream: int, report: Report) -> None:
    """Write one report at once."""
    os.write(stream, frame(report))


class Frames:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take in bytes; yield each complete message."""
        self._data += data
        while len(self._data) >= _LENGTH.size:
            size = _LENGTH.unpack_from(self._data)[0]
            if len(self._data) < _LENGTH.size + size:
                return
            message = bytes(self._data[_LENGTH.size : _LENGTH.size + size])
            del self._data[: _LENGTH.size + size]
            yield message

    def orders(self, data: bytes) -> list[Order]:
        """Take in bytes; return the orders they complete."""
        return [decode(Order, message) for message in self.feed(data)]

    def reports(self, data: bytes) -> list[Report]:
        """Take in bytes; return the reports they complete."""
        return [decode(Report, message) for message in self.feed(data)]
