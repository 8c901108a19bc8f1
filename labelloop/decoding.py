"""Decoders of structs, each made once and by one thread.

msgspec looks into a struct type when it is first decoded, and two threads that do so at the same moment crash the process (seen:
segmentation faults of a server whose first two calls came together). So no thread decodes a type that was not prepared here, under
one lock. Must never hold that lock while decoding. Called by `labelloop.messages` and by whoever reads structs in threads.
"""

from __future__ import annotations

import threading
from typing import TypeVar, cast

import msgspec

T = TypeVar("T")

_lock = threading.Lock()
_json: dict[object, msgspec.json.Decoder[object]] = {}
_msgpack: dict[object, msgspec.msgpack.Decoder[object]] = {}


def decode_json(kind: type[T], data: bytes | str) -> T:
    """Return the `kind` in `data`. Raises msgspec.MsgspecError."""
    decoder = _json.get(kind)
    if decoder is None:
        with _lock:
            decoder = _json.setdefault(kind, msgspec.json.Decoder(kind))
    return cast(T, decoder.decode(data))


def decode_msgpack(kind: type[T], data: bytes | bytearray | memoryview) -> T:
    """Return the `kind` in `data`. Raises msgspec.MsgspecError."""
    decoder = _msgpack.get(kind)
    if decoder is None:
        with _lock:
            decoder = _msgpack.setdefault(kind, msgspec.msgpack.Decoder(kind))
    return cast(T, decoder.decode(data))
