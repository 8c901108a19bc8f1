"""Pascal VOC and YOLO: a zip with one small file a picture, and the pictures that lie here.

Owns the two forms. Must never hold a page of pictures. Called by `webapp.transfer.exporter`.

VOC: Everingham et al., IJCV 2010; corners are whole pixels counted from 1, both inside, so a box moves by up to half a pixel. YOLO:
https://docs.ultralytics.com/datasets/.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, ClassVar
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import msgspec

from webapp.db.export_rows import Entry
from webapp.kinds.values import Mark
from webapp.transfer import places
from webapp.transfer.pictures import Size, size_in
from webapp.transfer.writers.base import PICTURE_PAGE, Writer, about, has_nothing, picture_ending, picture_of, size_of, stem_of
from webapp.transfer.writers.zip_stream import ZipStream

LINKS = "items.csv"
_DIGITS = 6


class ZipWriter(Writer):
    """A zip that grows."""

    page: ClassVar[int] = PICTURE_PAGE

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the number of files."""
        self.zip = ZipStream(self.parts, state.get("files", 0))

    def state(self) -> dict[str, Any]:
        """Return the number of files."""
        return {"files": self.zip.n}

    def finish(self, out: Path) -> None:
        """Close the zip."""
        self.zip.finish(out)


class VocWriter(ZipWriter):
    """Annotations/*.xml and JPEGImages/*."""

    name = "voc"

    def add(self, entry: Entry) -> None:
        """Write one XML, and the picture where it lies here."""
        data, stem = picture_of(self.plan, entry), stem_of(entry)
        size = size_of(self.plan, entry) if data is None else size_in(data)
        name = f"{stem}{picture_ending(data) if data else '.jpg'}"
        self.zip.add(f"Annotations/{stem}.xml", self._xml(entry, name, size))
        if data is not None:
            self.zip.add(f"JPEGImages/{name}", data, is_packed=False)

    def _xml(self, entry: Entry, name: str, size: Size) -> bytes:
        root = Element("annotation")
        _put(root, "filename", name)
        source = SubElement(root, "source")
        _put(source, "database", self.plan.project.slug)
        _put(source, "item_id", entry.item_id)
        if entry.link and not entry.link.startswith("data:"):
            _put(source, "url", entry.link)
        for key, told in about(self.plan, entry).items():
            if told is not None:
                _put(source, key, msgspec.json.encode(told).decode() if isinstance(told, dict) else str(told))
        shape = SubElement(root, "size")
        for key, number in zip(("width", "height", "depth"), (*size, 3), strict=True):
            _put(shape, key, str(number))
        if has_nothing(entry):
            _put(root, "is_none", "1")
        for mark in entry.value.marks if entry.value else ():
            _put_object(root, mark, size)
        indent(root)
        return bytes(tostring(root, encoding="utf-8"))


def _put(parent: Element, name: str, text: str) -> None:
    SubElement(parent, name).text = "".join(c if c >= " " else " " for c in text)


def _put_object(root: Element, mark: Mark, size: Size) -> None:
    where = places.bounds(mark.where) if mark.shape == "polygon" else mark.where
    left, top, width, height = places.pixels(where, size)
    one = SubElement(root, "object")
    for key, text in (("name", mark.label), ("pose", "Unspecified"), ("truncated", "0"), ("difficult", "0")):
        _put(one, key, text)
    box = SubElement(one, "bndbox")
    x0, y0 = min(round(left) + 1, size.width), min(round(top) + 1, size.height)
    for key, side in zip(
        ("xmin", "ymin", "xmax", "ymax"), (x0, y0, max(round(left + width), x0), max(round(top + height), y0)), strict=True
    ):
        _put(box, key, str(side))


class YoloWriter(ZipWriter):
    """images/*, labels/*.txt, data.yaml, classes.txt; items.csv says ids, links and sizes."""

    name = "yolo"

    def add(self, entry: Entry) -> None:
        """Write one text file, and the picture where it lies here."""
        data, stem = picture_of(self.plan, entry), stem_of(entry)
        if data is not None:
            self.zip.add(f"images/{stem}{picture_ending(data)}", data, is_packed=False)
        if entry.value is not None:
            lines = [self._line(mark) for mark in entry.value.marks]
            self.zip.add(f"labels/{stem}.txt", "".join(lines).encode())
        told: dict[str, Any] = {"name": stem, "item_id": entry.item_id, "item_name": entry.name, "link": "" if data else entry.link}
        told |= {"width": entry.width or None, "height": entry.height or None}
        told |= {k: msgspec.json.encode(v).decode() if isinstance(v, dict) else v for k, v in about(self.plan, entry).items()}
        out = io.StringIO()
        rows = csv.DictWriter(out, list(told), lineterminator="\n")
        if not self.parts.length(LINKS):
            rows.writeheader()
        rows.writerow(told)
        self.parts.append(LINKS, out.getvalue().encode())

    def _line(self, mark: Mark) -> str:
        where: tuple[float, ...] = mark.where
        if mark.shape == "box":
            x, y, w, h = where
            where = (x + w / 2, y + h / 2, w, h)
        return f"{self.labels[mark.label]} {' '.join(f'{v:.{_DIGITS + 1}f}' for v in where)}\n"

    def finish(self, out: Path) -> None:
        """Add classes and the list of items."""
        names = "".join(f"  {at}: {msgspec.json.encode(label).decode()}\n" for label, at in self.labels.items())
        self.zip.add("data.yaml", f"path: .\ntrain: images\nval: images\nnames:\n{names}".encode())
        self.zip.add("classes.txt", "".join(f"{label}\n" for label in self.labels).encode())  # what labelling tools read
        self.zip.add_path(LINKS, self.parts.path(LINKS))
        self.zip.finish(out)
