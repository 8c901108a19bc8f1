"""Masks as PNG: a zip with one picture of class numbers an item, 0 = nothing, and the classes by number.

Owns the drawing. Must never draw a picture over the limits. Called by `webapp.transfer.exporter`. A pixel belongs to what its
middle lies in; where polygons or boxes overlap, the later one is on top. Up to 255 labels a mask is an 8-bit picture with a
palette, as Pascal VOC's are; above, one of 16 bits.
"""

from __future__ import annotations

import colorsys
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from PIL import Image, ImageDraw

from webapp.db.export_rows import Entry
from webapp.kinds.values import Mark
from webapp.transfer import places
from webapp.transfer.pictures import Size
from webapp.transfer.writers.base import about, size_of, stem_of
from webapp.transfer.writers.boxes import ZipWriter

MOST_PALETTE = 255
_ABOUT = "items.jsonl"
_encode = msgspec.json.Encoder().encode


class MasksWriter(ZipWriter):
    """masks/*.png, classes.txt, items.jsonl."""

    name = "masks"

    def add(self, entry: Entry) -> None:
        """Draw one mask."""
        stem, size = stem_of(entry), size_of(self.plan, entry)
        self.zip.add(f"masks/{stem}.png", self._drawn(entry.value.marks if entry.value else (), size), is_packed=False)
        told = {"mask": f"masks/{stem}.png", "id": entry.item_id, "name": entry.name, "link": entry.link}
        if (entry.link or "").startswith("data:"):
            told["link"] = None
        self.parts.append(_ABOUT, _encode({**told, **about(self.plan, entry)}) + b"\n")

    def _drawn(self, marks: tuple[Mark, ...], size: Size) -> bytes:
        is_small = len(self.labels) <= MOST_PALETTE
        mask = Image.new("P" if is_small else "I;16", size, 0)
        if is_small:
            mask.putpalette(_palette(len(self.labels)))
        draw = ImageDraw.Draw(mask)
        for mark in marks:
            number = self.labels[mark.label] + 1
            if mark.shape == "box":
                x, y, w, h = places.pixels(mark.where, size)
                inside = (_first(x), _first(y), max(_first(x + w) - 1, _first(x)), max(_first(y + h) - 1, _first(y)))
                draw.rectangle(inside, fill=number)
                continue
            for y, left, right in _rows_inside(places.pixels(mark.where, size), size):
                draw.line((left, y, right, y), fill=number)
        out = io.BytesIO()
        mask.save(out, "PNG", compress_level=1)
        return out.getvalue()

    def finish(self, out: Path) -> None:
        """Add the classes and the list of items."""
        classes = ["_background_", *self.labels]
        self.zip.add("classes.txt", "".join(f"{name}\n" for name in classes).encode())
        self.zip.add_path(_ABOUT, self.parts.path(_ABOUT))
        self.zip.finish(out)


def _first(edge: float) -> int:
    """Return the first pixel whose middle is not before an edge."""
    return math.ceil(edge - 0.5)


def _rows_inside(outline: Sequence[float], size: Size) -> Iterator[tuple[int, int, int]]:
    """Yield (row, first, last) of the pixels whose middle lies inside an outline of x, y, x, y, ... pixels (even-odd)."""
    points = list(zip(outline[::2], outline[1::2], strict=True))
    edges = [(a, b) if a[1] < b[1] else (b, a) for a, b in zip(points, points[1:] + points[:1], strict=True) if a[1] != b[1]]
    ys = [y for _, y in points]
    for row in range(max(0, _first(min(ys))), min(size[1], _first(max(ys)))):
        middle = row + 0.5
        crossed = sorted(x + (middle - y) * (to_x - x) / (to_y - y) for (x, y), (to_x, to_y) in edges if y <= middle < to_y)
        for left, right in zip(crossed[::2], crossed[1::2], strict=True):
            first, last = max(0, _first(left)), min(size[0], _first(right)) - 1
            if first <= last:
                yield row, first, last


def _palette(n: int) -> list[int]:
    """Return colours for background and `n` labels, far from each other in hue."""
    colours = [(0, 0, 0)]
    for at in range(n):
        red, green, blue = colorsys.hsv_to_rgb(at * 0.618034 % 1, 0.85, 0.95)
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    return [v for colour in colours for v in colour]
