"""Fetched bytes to what an encoder reads: a picture, a clean string or a table row.

Owns the choice by category and the record of how it is done. Must never fetch. Called by `intake.pipeline`.
"""

from __future__ import annotations

from typing import TypeAlias

from PIL import Image

from intake import images, tables, text
from intake.limits import Fetched
from labelloop.errors import InvalidInputError
from labelloop.messages import CATEGORIES, MEDIUM_OF
from labelloop.settings import IntakeSettings

Decoded: TypeAlias = Image.Image | str | tables.Row


def decode(category: str, fetched: Fetched, settings: IntakeSettings, wanted_px: int = 0) -> Decoded:
    """Return the item in `fetched` as `category` needs it.

    `wanted_px`: see `images.decode_image`. Raises UnreadableItemError, TooLargeError; InvalidInputError on an unknown category.
    """
    medium = MEDIUM_OF.get(category)
    if medium == "image":
        return images.decode_image(fetched.data, settings.max_image_pixels, wanted_px)
    if medium == "text":
        clean = text.clean_in_place if category == "token-classification" else text.clean_text
        return clean(text.decode_text(fetched.data, fetched.media_type), settings.max_text_chars)
    if medium == "row":
        return tables.decode_row(fetched.data)
    raise InvalidInputError(f"category {category!r} has no decoder; use one of {', '.join(CATEGORIES)}")


def decoding_record(category: str) -> dict[str, object]:
    """Return what a manifest keeps about decoding: name and version of the steps."""
    image = {"decoder": "image", "version": images.VERSION, "alpha": "on white", "modes": ["L", "RGB"]}
    return {
        "image-classification": image,
        "object-detection": image,
        "text-classification": {"decoder": "text", "version": text.VERSION, "steps": list(text.STEPS)},
        "token-classification": {"decoder": "text", "version": text.VERSION, "steps": list(text.STEPS_IN_PLACE)},
        "tables": {"decoder": "row", "version": tables.VERSION},
    }.get(category, {})
