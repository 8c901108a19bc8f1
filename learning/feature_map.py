"""The layout of a row that is a spatial feature map: levels of channels by height by width, one behind the other.

Owns the layout, on which the encoders that write such rows and the algorithms that read them agree. Must never look at a picture.
Called by `intake.encoders.efficientnet_map` and by box-head.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError

EFFICIENTNET = "32x16x16+128x8x8"
_LEVEL = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,3})x([1-9][0-9]{0,3})")


class Level(NamedTuple):
    """One map of the picture, channels first; it covers the whole picture, whatever the picture's shape."""

    channels: int
    height: int
    width: int

    @property
    def size(self) -> int:
        """Return how many numbers of a row the level takes."""
        return self.channels * self.height * self.width


def parse_layout(text: str) -> tuple[Level, ...]:
    """Return the levels that e.g. '32x16x16+128x8x8' (channels x height x width) names, the finest first.

    Raises InvalidInputError naming what is wrong.
    """
    found = [_LEVEL.fullmatch(part) for part in text.split("+")]
    levels = tuple(Level(int(match[1]), int(match[2]), int(match[3])) for match in found if match)
    if len(levels) != len(found):
        raise InvalidInputError(f"layout {text!r} is no map: write channels x height x width of each level, like {EFFICIENTNET}")
    if any(level.height > levels[0].height or level.width > levels[0].width for level in levels):
        raise InvalidInputError(f"layout {text!r} must name its finest level first")
    return levels


def row_size(levels: tuple[Level, ...]) -> int:
    """Return the numbers of one row."""
    return sum(level.size for level in levels)


def split_levels(x: NDArray[Any], levels: tuple[Level, ...]) -> list[NDArray[Any]]:
    """Return the maps (n, channels, height, width) of rows (n, d), views where they can be.

    Raises InvalidInputError when a row has another width.
    """
    if x.ndim != 2 or x.shape[1] != row_size(levels):
        layout = "+".join("x".join(map(str, level)) for level in levels)
        raise InvalidInputError(
            f"rows of shape {x.shape} are no feature map {layout} of {row_size(levels)} numbers: "
            f"use encoder efficientnet-map, or give the layout of yours"
        )
    ends = np.cumsum([level.size for level in levels])
    parts = np.split(x, ends[:-1], axis=1)
    return [part.reshape(len(x), *level) for part, level in zip(parts, levels, strict=True)]
