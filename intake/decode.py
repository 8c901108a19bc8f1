"""Fetched bytes to what an encoder reads: a picture, a clean string or a table row.

Owns the choice by category and the record of how it is done. Must never fetch. Called by `intake.pipeline`.
"""

from __future__ import annotations

from typing import TypeAlias

from PIL import Image

from intake import images, tables, text
from intake.limits import Fetched
from labelloop.errors import InvalidInputError
from labelloop.settings import IntakeSettings

Decoded: TypeAlias = Image.Image | str | tables.Row


def decode(category: str, fetched: Fetched, settings: IntakeSettings, wanted_px: int = 0) -> Decoded:
    """Return the item in `fetched` as `category` needs it.

    `wanted_px`: see `images.decode_image`. Raises UnreadableItemError, TooLargeError; InvalidInputError on an unknown category.
    """
    if category == "image-classification":
        return images.decode_image(fetched.data, settings.max_image_pixels, wanted_px)
    if category == "text-classification":
        return text.clean_text(text.decode_text(fetched.data, fetched.media_type), settings.max_text_chars)
    if category == "tables":
        return tables.decode_row(fetched.data)
    raise InvalidInputError(f"category {category!r} has no decoder; use one of image-classification, text-classification, tables")


def decoding_record(category: str) -> dict[str, object]:
    """Return what a manifest keeps about decoding: name and version of the steps."""
    return {
        "image-classification": {"decoder": "image", "version": images.VERSION, "alpha": "on white", "modes": ["L", "RGB"]},
        "text-classification": {"decoder": "text", "version": text.VERSION, "steps": list(text.STEPS)},
        "tables": {"decoder": "row", "version": tables.VERSION},
    }.get(category, {})
