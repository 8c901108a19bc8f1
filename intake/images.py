"""Image bytes to a picture in mode L (gray) or RGB, within the pixel limit.

Owns decoding of images: formats, pixel limit from the header, orientation, colour modes. Must never fetch or resize. Called by
`intake.decode`, from several threads.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps

from labelloop.errors import TooLargeError, UnreadableItemError

warnings.filterwarnings("ignore", module=r"PIL\.")  # about metadata that is not read here
# Pillow's own guard warns at one size and raises at another; ours judges the header of each image by the settings.
Image.MAX_IMAGE_PIXELS = None

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
VERSION = 1
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, struct.error, zlib.error, UserWarning)
_WIDE_GRAY = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")


def decode_image(data: bytes, max_pixels: int, wanted_px: int = 0) -> Image.Image:
    """Return the first frame of `data`, upright, in mode L or RGB; transparent parts lie on white.

    `wanted_px`: the side that the caller will shrink it to; a larger JPEG is then decoded at a half, quarter or eighth of its
    size but at least twice that side (0 = full size). Raises TooLargeError before decoding when the header names more than
    `max_pixels`; UnreadableItemError for anything that is not a whole image.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except _BROKEN as exc:
        raise UnreadableItemError(f"not an image of {', '.join(FORMATS)}: {_reason(exc)}") from exc
    width, height = image.size
    if width * height > max_pixels:
        raise TooLargeError(
            f"image of {width} x {height} pixels is over {max_pixels} pixels; shrink it or raise intake.max_image_pixels"
        )
    try:
        if wanted_px and image.format == "JPEG":
            image.draft(image.mode, (2 * wanted_px, 2 * wanted_px))
        image.load()
        return to_gray_or_rgb(ImageOps.exif_transpose(image))
    except _BROKEN as exc:
        raise UnreadableItemError(f"image of {width} x {height} is broken or cut off: {_reason(exc)}") from exc


def _reason(exc: BaseException) -> str:
    return str(exc) if not isinstance(exc, Image.UnidentifiedImageError) else "no known format"


def to_gray_or_rgb(image: Image.Image) -> Image.Image:
    """Return `image` in mode L or RGB: 16-bit gray keeps its upper byte, palettes and alpha are resolved on white."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode in _WIDE_GRAY:
        return _narrow(image)
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        return _on_white(image)
    return image.convert("RGB")


def _narrow(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "F":
        top = 1.0 if float(np.nanmax(values, initial=0.0)) <= 1.0 else 255.0
        narrow = np.clip(np.nan_to_num(values) * (255.0 / top), 0, 255)
    else:
        narrow = np.clip(values, 0, 65535).astype(np.uint16) >> 8
    return Image.fromarray(np.ascontiguousarray(narrow.astype(np.uint8)), "L")


def _on_white(image: Image.Image) -> Image.Image:
    is_gray = image.mode in ("LA", "La", "L")
    full = image.convert("RGBA")
    ground = Image.new("RGBA", full.size, (255, 255, 255, 255))
    ground.alpha_composite(full)
    return ground.convert("L" if is_gray else "RGB")
