"""One line of header with a checksum before every record: how a flipped byte is found.

Owns the form `labelloop/1 <kind> <json|msgpack> <SHA-256, first 16 bytes, hex>` + newline + payload. Records that people
read are JSON, bulk is MessagePack. Must never touch a file. Called by the other modules of this room.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeVar

import msgspec

from datastore_layout.files import Buffer
from labelloop.errors import IntegrityError
from labelloop.messages import SCHEMA, Message

_MAGIC = b"labelloop/1"
_MOST_HEADER_BYTES = 128
M = TypeVar("M", bound=Message)


def _digest(kind: bytes, form: bytes, payload: Buffer) -> bytes:
    checksum = hashlib.sha256(b"%b %b\n" % (kind, form))
    checksum.update(payload)
    return checksum.hexdigest()[:32].encode()


def seal(kind: str, record: Message, is_text: bool = False) -> tuple[bytes, bytes]:
    """Return header and payload of `record`; `kind` is one word that `unseal` must ask for again."""
    payload = msgspec.json.encode(record) if is_text else msgspec.msgpack.encode(record)
    form = b"json" if is_text else b"msgpack"
    return b"%b %b %b %b\n" % (_MAGIC, kind.encode(), form, _digest(kind.encode(), form, payload)), payload


def unseal(kind: str, data: bytes, record: type[M], path: Path) -> M:
    """Return the record in `data`, read from `path`.

    Raises IntegrityError naming `path` when header, kind, checksum, shape or schema number do not match.
    """
    head, _, _ = data[:_MOST_HEADER_BYTES].partition(b"\n")
    words = head.split(b" ")
    if len(words) != 4 or words[0] != _MAGIC or words[1] != kind.encode() or words[2] not in (b"json", b"msgpack"):
        raise IntegrityError(f"{path} is no {kind} file of labelloop/1: it is damaged or comes from another build")
    content = memoryview(data)[len(head) + 1 :]
    if _digest(words[1], words[2], content) != words[3]:
        raise IntegrityError(f"{path} does not match its checksum: restore it from a copy, or remove it")
    decode = msgspec.json.decode if words[2] == b"json" else msgspec.msgpack.decode
    try:
        found = decode(content, type=record)
    except msgspec.MsgspecError as exc:
        raise IntegrityError(f"{path} is no valid {kind}: {exc}") from exc
    if found.schema != SCHEMA:
        raise IntegrityError(f"{path} has schema {found.schema}, this build reads {SCHEMA}: upgrade this node")
    return found
