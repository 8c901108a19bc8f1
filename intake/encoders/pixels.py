"""Pictures as they are: `raw-pixels-<side>[g]` in [0, 1] for ordinary algorithms, `pixels-<side>[g]` in 0..255 for deep ones.

Owns the resizing to a square (area average, the aspect ratio is given up) and the gray or RGB choice. Must never augment: the
training does. Called through `intake.encoders`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from intake.decode import Decoded
from intake.encoders.base import Encoder, Features

NAME = re.compile(r"(raw-)?pixels-([1-9][0-9]{0,2})(g?)")
MAX_SIDE = 256
SIDES = (8, 16, 28, 32)


class Pixels(Encoder):
    """A square picture, row by row, channels last: RGB, or gray for names that end in 'g'."""

    category = "image-classification"

    def __init__(self, name: str, side: int, is_gray: bool, is_raw: bool) -> None:
        self.name = name
        self.wanted_px = self.side = side
        self.is_gray = is_gray
        self.dim = side * side * (1 if is_gray else 3)
        self._scale = np.float32(1 / 255 if is_raw else 1)

    def prepare(self, decoded: Decoded) -> npt.NDArray[np.uint8]:
        """Return the picture as (dim,) uint8."""
        return to_square(decoded, self.side, self.is_gray).reshape(-1)

    def embed(self, prepared: Sequence[Any]) -> Features:
        """Return the pictures in [0, 1] (raw-pixels) or 0 to 255 (pixels)."""
        if not prepared:
            return np.empty((0, self.dim), np.float32)
        return np.stack(prepared) * self._scale


class DeepPixels(Pixels):
    """Pictures of 0 to 255 for algorithms that read pixels; exact in float32, so `astype(uint8)` loses nothing."""

    is_pixels = True


def to_square(picture: Image.Image, side: int, is_gray: bool) -> npt.NDArray[np.uint8]:
    """Return a picture in mode L or RGB as (side, side, 1 or 3) uint8: area average down, bilinear up."""
    mode = "L" if is_gray else "RGB"
    if picture.mode != mode:
        picture = picture.convert(mode)
    if picture.size != (side, side):
        is_smaller = picture.width < side or picture.height < side
        picture = picture.resize((side, side), Image.Resampling.BILINEAR if is_smaller else Image.Resampling.BOX)
    return np.asarray(picture).reshape(side, side, -1)


def make_pixels(name: str) -> Pixels | None:
    """Return the encoder that `name` describes, or None when it is none of this family's."""
    match = NAME.fullmatch(name)
    if not match or int(match[2]) > MAX_SIDE:
        return None
    kind = Pixels if match[1] else DeepPixels
    return kind(name, int(match[2]), bool(match[3]), bool(match[1]))


def name_for(pictures: Sequence[Image.Image]) -> str:
    """Return the raw-pixels name that fits small `pictures`: the next side up, gray when all are gray."""
    longest = max(max(p.size) for p in pictures)
    side = next((s for s in SIDES if s >= longest), SIDES[-1])
    return f"raw-pixels-{side}{'g' if all(p.mode == 'L' for p in pictures) else ''}"
