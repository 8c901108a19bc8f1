"""What every kind of download shares: the fetched bytes, the size limit, how a link is shown.

Owns these three. Must never open anything. Called by `intake.fetch`, `intake.web` and `intake.decode`.
"""

from __future__ import annotations

from typing import NamedTuple

from labelloop.errors import TooLargeError


class Fetched(NamedTuple):
    """The bytes behind a link and the media type its source claimed ('' = none), with parameters."""

    data: bytes
    media_type: str


def shown(link: str) -> str:
    """Return `link` short enough for a sentence."""
    return link if len(link) <= 120 else f"{link[:100]}...({len(link)} characters)"


def check_size(size_bytes: int, limit_bytes: int, link: str) -> None:
    """Raise TooLargeError, naming link and way out, when `size_bytes` is over the limit."""
    if size_bytes > limit_bytes:
        raise TooLargeError(f"item {shown(link)!r} is larger than {limit_bytes} bytes; shrink it or raise intake.max_item_bytes")
