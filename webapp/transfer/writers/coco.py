"""COCO: one JSON of pictures, annotations and categories; with the pictures, a zip.

Owns how a mark becomes an annotation. Must never hold the document: pictures and annotations grow in two files, joined at the end.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; https://cocodataset.org/#format-data. Points are gathered into
annotations of one category, whose `keypoints` are the project's labels: the k-th point of each label is in the k-th annotation.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from webapp.db.export_rows import Entry
from webapp.kinds.values import Mark
from webapp.transfer import places
from webapp.transfer.pictures import Size
from webapp.transfer.writers.base import (
    PAGE,
    PICTURE_PAGE,
    Writer,
    about,
    has_nothing,
    picture_ending,
    picture_of,
    size_of,
    stem_of,
)
from webapp.transfer.writers.parts import copy_into
from webapp.transfer.writers.zip_stream import ZipStream

IMAGES, ANNOTATIONS, JSON = "images", "annotations", "annotations.json"
_encode = msgspec.json.Encoder().encode


class CocoWriter(Writer):
    """One JSON."""

    name = "coco"
    page: ClassVar[int] = PAGE

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the number of annotations."""
        self._n: int = state.get("n", 0)

    def state(self) -> dict[str, Any]:
        """Return the number of annotations."""
        return {"n": self._n}

    def add(self, entry: Entry) -> None:
        """Write a picture and its annotations."""
        self._add(entry, entry.name or entry.item_id)

    def _add(self, entry: Entry, file_name: str) -> None:
        size, image_id = size_of(self.plan, entry), entry.position + 1
        picture = {"id": image_id, "file_name": file_name, "width": size.width, "height": size.height, "item_id": entry.item_id}
        if entry.link is not None and not entry.link.startswith("data:"):
            picture["coco_url"] = entry.link
        if has_nothing(entry):
            picture["is_none"] = True
        told = about(self.plan, entry)
        self._append(IMAGES, {**picture, **told})
        for one in self._annotations(entry.value.marks if entry.value else (), size):
            self._n += 1
            self._append(ANNOTATIONS, {"id": self._n, "image_id": image_id, **one})

    def _append(self, part: str, told: dict[str, Any]) -> None:
        self.parts.append(part, (b",\n" if self.parts.length(part) else b"") + _encode(told))

    def _annotations(self, marks: tuple[Mark, ...], size: Size) -> Iterator[dict[str, Any]]:
        if self.kind.shape == "point":
            yield from self._people(marks, size)
            return
        for mark in marks:
            yield {"category_id": self.labels[mark.label] + 1, **_shape(mark, size), "iscrowd": 0}

    def _people(self, marks: tuple[Mark, ...], size: Size) -> Iterator[dict[str, Any]]:
        groups: list[dict[str, Mark]] = []
        for mark in marks:
            group = next((group for group in groups if mark.label not in group), None)
            if group is None:
                groups.append(group := {})
            group[mark.label] = mark
        for group in groups:
            points: list[float] = []
            for label in self.labels:
                points += [*places.pixels(group[label].where, size), 2] if label in group else [0, 0, 0]
            around = places.bounds([v for mark in group.values() for v in mark.where])
            box = places.pixels(around, size)
            yield {
                "category_id": 1,
                "keypoints": points,
                "num_keypoints": len(group),
                "bbox": box,
                "area": round(box[2] * box[3], 4),
                "iscrowd": 0,
            }

    def _categories(self) -> list[dict[str, Any]]:
        if self.kind.shape == "point":
            return [{"id": 1, "name": self.plan.project.slug, "keypoints": list(self.labels), "skeleton": []}]
        return [{"id": at + 1, "name": label, "supercategory": ""} for label, at in self.labels.items()]

    def finish(self, out: Path) -> None:
        """Join the parts."""
        info = {"description": self.plan.project.title, "version": "1.0"}
        with out.open("wb") as file:
            file.write(b'{"info": ' + _encode(info) + b', "licenses": [],\n"categories": ' + _encode(self._categories()))
            for part in (IMAGES, ANNOTATIONS):
                file.write(b',\n"' + part.encode() + b'": [\n')
                copy_into(file, self.parts.path(part))
                file.write(b"\n]")
            file.write(b"}\n")


def _shape(mark: Mark, size: Size) -> dict[str, Any]:
    if mark.shape == "polygon":
        points = places.pixels(mark.where, size)
        return {"bbox": list(places.bounds(points)), "segmentation": [points], "area": round(places.area(points), 4)}
    box = places.pixels(mark.where, size)
    return {"bbox": box, "segmentation": [], "area": round(box[2] * box[3], 4)}


class CocoZipWriter(CocoWriter):
    """The JSON in a zip, with the pictures that lie here."""

    name = "coco-zip"
    page = PICTURE_PAGE

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the numbers of annotations and of files."""
        super().restore(state)
        self._zip = ZipStream(self.parts, state.get("files", 0))

    def state(self) -> dict[str, Any]:
        """Return the numbers of annotations and of files."""
        return {**super().state(), "files": self._zip.n}

    def add(self, entry: Entry) -> None:
        """Write a picture, its file and its annotations."""
        data = picture_of(self.plan, entry)
        if data is None:
            super().add(entry)
            return
        name = f"{stem_of(entry)}{picture_ending(data)}"
        self._add(entry, name)
        self._zip.add(f"images/{name}", data, is_packed=False)

    def finish(self, out: Path) -> None:
        """Add the JSON and close the zip; a second call begins from the checkpoint's entries."""
        beside = out.with_name(f"{out.name}.json")
        super().finish(beside)
        self._zip.add_path(JSON, beside)
        beside.unlink()
        self._zip.finish(out)
