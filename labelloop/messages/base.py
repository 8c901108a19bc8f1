"""The base of all messages: schema number, encoding, arrays.

Must never import numpy: arrays travel as raw buffers with dtype and shape. Called by the other message modules.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

from labelloop.decoding import decode_msgpack
from labelloop.errors import IntegrityError, InvalidInputError

SCHEMA = 1

Category = Literal["image-classification", "text-classification", "tables", "object-detection", "token-classification"]
Medium = Literal["image", "text", "row"]
MEDIUM_OF: dict[str, Medium] = {
    "image-classification": "image",
    "text-classification": "text",
    "tables": "row",
    "object-detection": "image",
    "token-classification": "text",
}
CATEGORIES: tuple[str, ...] = tuple(MEDIUM_OF)
REGION_CATEGORIES: tuple[str, ...] = ("object-detection", "token-classification")  # boxes and spans: `TaskExtraInfo.kind` 'regions'


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all messages; a reader refuses a `schema` it does not know."""

    schema: int = SCHEMA


M = TypeVar("M", bound=Message)


def encode(message: Message) -> bytes:
    """Return the MessagePack bytes of `message`."""
    return msgspec.msgpack.encode(message)


def decode(kind: type[M], data: bytes | bytearray | memoryview) -> M:
    """Return the validated message of type `kind` in `data`.

    Raises InvalidInputError naming the field at fault; IntegrityError on a schema number this build does not know.
    """
    try:
        message = decode_msgpack(kind, data)
    except msgspec.MsgspecError as exc:  # validation and malformed bytes both derive from it
        raise InvalidInputError(f"not a valid {kind.__name__}: {exc}") from exc
    if message.schema != SCHEMA:
        raise IntegrityError(f"{kind.__name__} has schema {message.schema}, this build reads {SCHEMA}: upgrade the older side")
    return message


class Empty(Message, frozen=True, kw_only=True):
    """A request or reply without content."""


class Array(Message, frozen=True, kw_only=True):
    """A dense array as a raw little-endian C-order buffer; `dtype` is numpy's name, e.g. 'float32'."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes
