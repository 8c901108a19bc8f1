"""Marks in pixels ↔ marks in shares of the picture, and a shape told as another one.

Owns rounding and the cut at the picture's edge. Must never know a format. Called by the readers and writers of picture formats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from labelloop.errors import InvalidInputError
from webapp.kinds.values import Mark, Shape
from webapp.transfer.pictures import Size

OVER_PX = 2.0  # tools round, and count pixels from 0 or from 1: so far a mark may reach over the edge; it is cut there
PIXEL_DIGITS = 6


def numbers(given: Any, what: str) -> tuple[float, ...]:
    """Return a list of finite numbers. Raises InvalidInputError naming what it is."""
    if not isinstance(given, list | tuple):
        raise InvalidInputError(f"{what} {str(given)[:60]!r}: give a list of numbers")
    return tuple(_number(one, what) for one in given)


def _number(given: Any, what: str) -> float:
    try:
        number = float(given)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidInputError(f"{what}: {str(given)[:40]!r} is no number") from exc
    if isinstance(given, bool) or not math.isfinite(number):
        raise InvalidInputError(f"{what}: {str(given)[:40]!r} is no finite number")
    return number


def box_of_corners(left: float, top: float, right: float, bottom: float, size: Size) -> tuple[float, ...]:
    """Return a box of corners in pixels as shares (x, y, width, height), cut where it reaches over the edge by rounding alone."""
    x0, x1 = (_cut(v, size.width) / size.width for v in (left, right))
    y0, y1 = (_cut(v, size.height) / size.height for v in (top, bottom))
    return (x0, y0, x1 - x0, y1 - y0)


def points_of_pixels(points: Sequence[float], size: Size) -> tuple[float, ...]:
    """Return x1, y1, x2, y2, ... in pixels as shares."""
    return tuple(_cut(v, size[at % 2]) / size[at % 2] for at, v in enumerate(points))


def _cut(value: float, side: int) -> float:
    return min(max(value, 0.0), float(side)) if -OVER_PX <= value <= side + OVER_PX else value


def pixels(where: Sequence[float], size: Size) -> list[float]:
    """Return shares (x, y pairs) as pixels."""
    return [round(v * size[at % 2], PIXEL_DIGITS) for at, v in enumerate(where)]


def bounds(where: Sequence[float]) -> tuple[float, float, float, float]:
    """Return the box (x, y, width, height) around the points of a polygon."""
    xs, ys = where[::2], where[1::2]
    return (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))


def corners(box: Sequence[float]) -> tuple[float, ...]:
    """Return the four corners of a box (x, y, width, height) as a polygon."""
    x, y, w, h = box
    return (x, y, x + w, y, x + w, y + h, x, y + h)


def area(where: Sequence[float]) -> float:
    """Return the area of a polygon, in the square of its unit."""
    xs, ys = where[::2], where[1::2]
    turned = sum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs)))
    return abs(turned) / 2


def as_shape(shape: Shape | None, where: tuple[float, ...], given: Shape) -> tuple[float, ...]:
    """Return a box as a polygon or a polygon as its box, where the project wants the other one. Raises InvalidInputError."""
    if shape == given:
        return where
    if (shape, given) == ("box", "polygon"):
        return bounds(where)
    if (shape, given) == ("polygon", "box"):
        return corners(where)
    raise InvalidInputError(f"it has a {given}, and this project takes {shape or 'labels of whole items'}: choose another format")


def mark(number: int, label: str, shape: Shape, where: tuple[float, ...]) -> Mark:
    """Return the mark with this number in its item."""
    return Mark(f"m{number}", label, shape, where)
