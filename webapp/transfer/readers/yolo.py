"""YOLO: a zip of pictures and of one text file a picture, with the classes in data.yaml, classes.txt or obj.names.

Owns how a line of numbers becomes a box or a polygon. Called by `read_rows`.

Form: https://docs.ultralytics.com/datasets/detect/ and /segment/; all numbers are shares of the picture, a box is told by its
centre. A picture without a text file is not labelled; an empty text file says that nothing is in it.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from labelloop.errors import InvalidInputError
from webapp.kinds.values import Mark, Shape, Value
from webapp.media import image_extension
from webapp.transfer import places, rows, said
from webapp.transfer.pictures import Size, checked_size, size_in
from webapp.transfer.readers.archive import Archive
from webapp.transfer.readers.base import Found, Read, Source, attempt

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
ENDINGS = PICTURES
LINKS = "items.csv"  # which our own exports carry: pictures by name, with id, link and size
_NUMBER = re.compile(r"[0-9]{1,6}")
_CLASS_FILES = ("classes.txt", "obj.names", "names.txt")


class Row(NamedTuple):
    """A picture of the archive, or one known by its link only."""

    name: str
    picture: zipfile.ZipInfo | None
    labels: zipfile.ZipInfo | None
    about: dict[str, str]


def read_yolo(source: Source) -> Iterator[Read]:
    """Yield a picture a row; the offset counts pictures."""
    with Archive(Path(source.job.path), source.job.name, source.max_item_bytes) as archive:
        classes = _classes(archive)
        found = list(_rows(archive))
        if not found:
            raise InvalidInputError(f"{source.job.name!r} has no pictures: a YOLO zip has them in images, and labels beside")
        for at, row in enumerate(found[source.job.offset_bytes :], source.job.offset_bytes):
            yield attempt(at + 1, row.name, at + 1, _item, source, archive, classes, row)._replace(total=len(found))


def _rows(archive: Archive) -> Iterator[Row]:
    about = _about(archive)
    for entry in archive.named(*PICTURES):
        name = entry.filename
        stem = PurePosixPath(name).stem
        yield Row(name, entry, _labels_of(archive, name), about.pop(stem, {}))
    for stem, told in about.items():  # pictures that an export knows by their links
        yield Row(told.get("item_id") or stem, None, archive.find(f"labels/{stem}.txt"), told)


def _about(archive: Archive) -> dict[str, dict[str, str]]:
    entry = archive.find(LINKS)
    if entry is None:
        return {}
    with archive.stream(entry) as file:
        lines = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline=""))
        try:
            return {str(line.get("name")): {key: value for key, value in line.items() if key and value} for line in lines}
        except csv.Error as exc:
            raise InvalidInputError(f"{LINKS}: not CSV: {exc}") from exc


def _labels_of(archive: Archive, name: str) -> zipfile.ZipInfo | None:
    path = PurePosixPath(name)
    parts = list(path.with_suffix(".txt").parts)
    places_of = [at for at, part in enumerate(parts[:-1]) if part == "images"]
    if places_of:
        parts[places_of[-1]] = "labels"
    return archive.find("/".join(parts)) or archive.find(f"labels/{path.stem}.txt") or archive.find(str(path.with_suffix(".txt")))


def _classes(archive: Archive) -> tuple[str, ...]:
    """Return the classes by number. Raises InvalidInputError when none are told."""
    for entry in archive.entries:
        if PurePosixPath(entry.filename).name in _CLASS_FILES:
            return tuple(line.strip() for line in archive.text(entry).splitlines() if line.strip())
    for entry in archive.named(".yaml", ".yml"):
        names = _names_in(archive.text(entry), entry.filename)
        if names is not None:
            return names
    raise InvalidInputError("no classes: pack data.yaml with 'names', or classes.txt with one a line")


def _names_in(text: str, name: str) -> tuple[str, ...] | None:
    if len(text) > 2**20 or "&" in text:
        raise InvalidInputError(f"{name}: a plain data.yaml without anchors, below 1 MiB, is read")
    try:
        given = yaml.load(text, yaml.BaseLoader)  # texts, lists and mappings alone: a class may be called no, or 2020-13-45
    except (yaml.YAMLError, RecursionError) as exc:
        raise InvalidInputError(f"{name}: not YAML: {exc}") from exc
    names = given.get("names") if isinstance(given, Mapping) else None
    if isinstance(names, Mapping) and names and all(_NUMBER.fullmatch(str(key)) for key in names):
        by_number = {int(key): str(name) for key, name in names.items()}
        return tuple(by_number.get(at, "") for at in range(max(by_number) + 1)) if max(by_number) < 100_000 else None
    return tuple(map(str, names)) if isinstance(names, list) else None


def _item(source: Source, archive: Archive, classes: tuple[str, ...], row: Row) -> Found:
    link, size = _picture(source, archive, row)
    name = row.about.get("item_id") or row.name
    item = rows.link_item(link, name, row.about.get("item_name") or name, None)
    return Found(said.with_said(source.project, item, _value(source, archive, classes, row)), size)


def _picture(source: Source, archive: Archive, row: Row) -> tuple[str, Size | None]:
    if row.picture is not None:
        data = archive.read(row.picture)
        return source.media.save(source.project.slug, data, image_extension(data)), size_in(data)
    width, height = row.about.get("width"), row.about.get("height")
    return row.about.get("link", ""), checked_size(width, height) if width and height else None


def _value(source: Source, archive: Archive, classes: tuple[str, ...], row: Row) -> Value | None:
    if row.labels is None:
        return None
    marks: list[Mark] = []
    for line, text in enumerate(archive.text(row.labels).splitlines(), 1):
        if not text.strip():
            continue
        try:
            marks.append(_mark(len(marks) + 1, text.split(), classes, source))
        except InvalidInputError as exc:
            raise InvalidInputError(f"{row.labels.filename}, line {line}: {exc}") from exc
    return Value(marks=tuple(marks)) if marks else Value(is_none=True)


def _mark(number: int, cells: list[str], classes: tuple[str, ...], source: Source) -> Any:
    at = int(cells[0]) if _NUMBER.fullmatch(cells[0]) else -1
    if not 0 <= at < len(classes):
        raise InvalidInputError(f"class {cells[0][:20]!r}: there are {len(classes)} classes, numbered from 0")
    given, shape = places.numbers(cells[1:], "shares"), source.project.kind_rules.shape
    if len(given) in (4, 5):  # a fifth number is a detector's confidence
        x, y, w, h = given[:4]
        where: tuple[float, ...] = (x - w / 2, y - h / 2, w, h)
        told: Shape = "box"
    elif len(given) >= 6 and len(given) % 2 == 0:
        where, told = given, "polygon"
    else:
        raise InvalidInputError(f"{len(cells)} numbers: a box has 5, a polygon its class and at least three points")
    return places.mark(number, classes[at], shape or "box", places.as_shape(shape, where, told))
