"""Identifiers and the one place that says which strings may be one.

Owns the types of every id and their patterns. Must never touch a file or socket. Called by all rooms.
"""

from __future__ import annotations

import re
from typing import NewType

from labelloop.errors import InvalidInputError

TaskName = NewType("TaskName", str)
ItemId = NewType("ItemId", str)
BatchId = NewType("BatchId", str)
JobId = NewType("JobId", str)
VersionId = NewType("VersionId", str)
NodeName = NewType("NodeName", str)

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
MAX_ITEM_ID_BYTES = 256


def parse_task(value: str) -> TaskName:
    """Return `value` as a task name: lower-case letters, digits and dashes, at most 63, no leading dash.

    Raises InvalidInputError naming the value.
    """
    if not _NAME.fullmatch(value):
        raise InvalidInputError(f"task {value!r} is not a name: use 1 to 63 of a-z, 0-9 and '-', not starting with '-'")
    return TaskName(value)


def parse_node(value: str) -> NodeName:
    """Return `value` as a host name matching `[a-z0-9][a-z0-9-]{0,62}`; raises InvalidInputError naming it."""
    if not _NAME.fullmatch(value):
        raise InvalidInputError(f"hostname {value!r} is not allowed: use 1 to 63 of a-z, 0-9 and '-'")
    return NodeName(value)


def parse_token(value: str, what: str) -> str:
    """Return `value` as a file-safe token (batch, job, version, encoder); raises InvalidInputError naming it."""
    if not _TOKEN.fullmatch(value) or ".." in value:
        raise InvalidInputError(f"{what} {value!r} is not allowed: use 1 to 128 of A-Z, a-z, 0-9, '.', '_' and '-'")
    return value


def parse_item(value: str) -> ItemId:
    """Return `value` as an item id: 1 to 256 bytes of UTF-8 without control or half characters; raises InvalidInputError."""
    if (
        not value
        or len(value.encode("utf-8", "replace")) > MAX_ITEM_ID_BYTES
        or any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in value)
    ):
        raise InvalidInputError(f"item id {value[:80]!r} is not allowed: use 1 to 256 bytes without control characters")
    return ItemId(value)
