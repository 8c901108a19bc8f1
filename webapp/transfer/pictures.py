"""A picture's width and height, told from its header without decoding it, and the limits on both.

Owns the largest picture that is taken. Must never decode pixels. Called by the readers and writers of formats that speak in pixels.
"""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from pathlib import Path
from typing import IO, NamedTuple

from PIL import Image

from labelloop.errors import InvalidInputError, UnreadableItemError

MOST_PIXELS = 178_956_970  # twice Pillow's own limit, where it calls a picture a bomb
MOST_SIDE = 2**16


class Size(NamedTuple):
    """Width and height in pixels, both above 0."""

    width: int
    height: int


def checked_size(width: object, height: object) -> Size:
    """Return a size that a file tells. Raises InvalidInputError for what is no whole number above 0, or too large."""
    whole = [int(x) if isinstance(x, int | float | str) and _is_whole(x) else 0 for x in (width, height)]
    if min(whole) < 1 or max(whole) > MOST_SIDE or whole[0] * whole[1] > MOST_PIXELS:
        raise InvalidInputError(f"picture of {width!r} x {height!r} pixels: at most {MOST_SIDE} a side, {MOST_PIXELS} in all")
    return Size(*whole)


def _is_whole(x: int | float | str) -> bool:
    try:
        return float(x).is_integer()
    except (ValueError, OverflowError):
        return False


def size_in(data: bytes | Path) -> Size:
    """Return the size in a picture's header. Raises UnreadableItemError, InvalidInputError (too large)."""
    source: IO[bytes] | Path = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(source) as picture:
                width, height = picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as exc:
        raise UnreadableItemError(f"not a picture that can be read: {exc}") from exc
    return checked_size(width, height)


def told_size(data: bytes) -> Size | None:
    """Return the size in a picture's header, None where it has no header that can be read. Raises InvalidInputError (too large)."""
    try:
        return size_in(data)
    except UnreadableItemError:
        return None


def bytes_of_data_link(link: str) -> bytes:
    """Return what a data: link carries. Raises InvalidInputError."""
    head, _, body = link.partition(",")
    if not head.endswith(";base64"):
        raise InvalidInputError("a data: link that is not base64: write it as data:TYPE;base64,...")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidInputError(f"a data: link that is broken: {exc}") from exc
