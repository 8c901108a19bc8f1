"""COCO: boxes, polygons and keypoints of pictures, in one JSON or a zip of JSON files and pictures.

Owns how a COCO annotation becomes a mark. Must never hold the document: pictures and annotations come in any order, so both go
through a scratch file first. A picture with an annotation that cannot be taken is refused whole, for half of what is in a picture
would be a wrong label. Called by `read_rows`.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from labelloop.errors import InvalidInputError
from webapp.kinds.values import Mark, Value
from webapp.media import image_extension
from webapp.transfer import places, rows, said
from webapp.transfer.drops import INDEX_SUFFIX
from webapp.transfer.pictures import Size, checked_size, size_in
from webapp.transfer.readers.archive import Archive
from webapp.transfer.readers.base import Found, Read, Source, attempt, refused
from webapp.transfer.readers.json_stream import open_text, read_elements
from webapp.transfer.readers.scratch import Scratch, make_scratch

_LINKS = ("coco_url", "url", "link", "flickr_url")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def read_coco(source: Source) -> Iterator[Read]:
    """Yield a picture a row; the offset counts pictures, then annotations of pictures that are not there."""
    path = Path(source.job.path)
    with ExitStack() as stack:
        archive = None
        if _is_zip(path):
            archive = stack.enter_context(Archive(path, source.job.name, source.max_item_bytes))
        told = _told_by_zip(archive, source) if archive else _told(path, "")
        scratch = stack.enter_context(make_scratch(path.with_name(path.name + INDEX_SUFFIX), told))
        yield from _rows(source, scratch, archive)


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _told(path: Path, prefix: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    with open_text(path) as file:
        yield from _sorted_out(file, prefix)


def _told_by_zip(archive: Archive, source: Source) -> Iterator[tuple[str, tuple[Any, ...]]]:
    found = list(archive.named(".json"))
    if not found:
        raise InvalidInputError(f"{source.job.name!r} has no .json file: a COCO zip has its annotations in one")
    for at, entry in enumerate(found):
        with archive.stream(entry) as raw:
            yield from _sorted_out(io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape"), f"{at}/")


def _sorted_out(file: Any, prefix: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield what goes into which table of the scratch; ids are those of one JSON file, so each file has a prefix."""
    for key, index, line, value in read_elements(file):
        if key not in ("images", "annotations", "categories"):
            continue
        if index < 0 or not isinstance(value, dict):
            value = {"": str(value)[:80]}
        if key == "images":
            yield "pictures", (_key(prefix, value.get("id")), line, _safe({**value, "_of": prefix}))
        elif key == "annotations":
            yield "said", (_key(prefix, value.get("image_id")), line, _safe(value))
        else:
            yield "heads", (_key(prefix, value.get("id")), _safe(value))


def _key(prefix: str, given: object) -> str:
    """Return an id as a text that any database stores: a half character of it is written out."""
    return f"{prefix}{given}".encode("utf-8", "backslashreplace").decode()


def _safe(value: dict[str, Any]) -> bytes:
    """Return JSON that is UTF-8 for certain: half a character would refuse the whole file, not its row."""
    try:
        return _encode(value)
    except (UnicodeEncodeError, ValueError, OverflowError, TypeError):
        return _encode({"": "it is not UTF-8, or has a number without end"})


def _rows(source: Source, scratch: Scratch, archive: Archive | None) -> Iterator[Read]:
    n_pictures, n_said = scratch.counts()
    categories, twins, total = _Categories(scratch), scratch.twins(), n_pictures + n_said
    done = source.job.offset_bytes
    for n, line, body, marks in scratch.pictures(done):
        picture = _decode(body)
        name = str(picture.get("file_name") or picture.get("id") or "")
        if n in twins:
            read = refused(line, name, n, f"picture id {picture.get('id')!r} is that of another picture: give each its own")
        else:
            read = attempt(line, name, n, _item, source, picture, marks, categories, archive)
        yield read._replace(total=total)
    for n, line, body in scratch.strays(max(done - n_pictures, 0)):
        one = _decode(body)
        reason = f"image_id {one.get('image_id')!r} is the id of no picture" if "" not in one else f"no annotation: {one['']}"
        yield refused(line, f"annotation {one.get('id')}", n_pictures + n, reason)._replace(total=total)


class _Categories:
    """Categories by id, looked up once each."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._known: dict[str, dict[str, Any]] = {}

    def find(self, key: str) -> dict[str, Any]:
        if key not in self._known:
            body = self._scratch.head(key)
            if body is None:
                raise InvalidInputError(f"category_id {key.rpartition('/')[2]!r} is the id of no category")
            self._known[key] = _decode(body)
        return self._known[key]


def _item(
    source: Source, picture: dict[str, Any], told: list[tuple[int, bytes]], categories: _Categories, archive: Archive | None
) -> Found:
    if "" in picture:
        raise InvalidInputError(f"no picture: {picture['']}")
    name = str(picture.get("file_name") or picture.get("id"))
    link, header = _link(source, picture, name, archive)
    size = header or checked_size(picture.get("width"), picture.get("height"))
    marks: list[Mark] = []
    for line, body in told:
        try:
            marks += _marks(source, _decode(body), size, len(marks), categories, str(picture["_of"]))
        except InvalidInputError as exc:
            raise InvalidInputError(f"annotation in line {line}: {exc}") from exc
    item = rows.link_item(link, picture.get("item_id") or name, name, None)
    return Found(said.with_said(source.project, item, _value(source, picture, marks)), size)


def _value(source: Source, picture: dict[str, Any], marks: list[Mark]) -> Value | None:
    if marks:
        return Value(marks=tuple(marks))
    is_none = picture.get("is_none") is True or source.job.options.get("empty_is_none")
    return Value(is_none=True) if is_none else None


def _link(source: Source, picture: dict[str, Any], name: str, archive: Archive | None) -> tuple[str, Size | None]:
    entry = archive.find_file(name) if archive else None
    if archive and entry:
        data = archive.read(entry)
        return source.media.save(source.project.slug, data, image_extension(data)), size_in(data)
    given = next((str(picture[key]) for key in _LINKS if picture.get(key)), "")
    base = str(source.job.options.get("base_link") or "")
    if not given and (base or name.startswith(("http://", "https://"))):
        given = name if name.startswith(("http://", "https://")) else f"{base.rstrip('/')}/{PurePosixPath(name)}"
    if not given:
        raise InvalidInputError("no picture comes with it, and no coco_url: pack pictures and JSON into a zip, or give a base link")
    return given, None


def _marks(source: Source, one: dict[str, Any], size: Size, before: int, categories: _Categories, prefix: str) -> list[Mark]:
    if "" in one:
        raise InvalidInputError(f"no annotation: {one['']}")
    category, shape = categories.find(_key(prefix, one.get("category_id"))), source.project.kind_rules.shape
    if shape == "point":
        return _points(one, category, size, before)
    label, found = str(category.get("name")), []
    if shape == "polygon" and one.get("segmentation"):
        if not isinstance(one["segmentation"], list):
            raise InvalidInputError("a run-length mask, which is no polygon: export polygons")
        found = [places.points_of_pixels(places.numbers(part, "segmentation"), size) for part in one["segmentation"]]
    else:
        x, y, w, h = _bbox(one)
        found = [places.as_shape(shape, places.box_of_corners(x, y, x + w, y + h, size), "box")]
    return [places.mark(before + at, label, shape or "box", where) for at, where in enumerate(found, 1)]


def _bbox(one: dict[str, Any]) -> tuple[float, ...]:
    box = places.numbers(one.get("bbox"), "bbox")
    if len(box) != 4:
        raise InvalidInputError(f"bbox {list(box)[:8]}: give x, y, width and height in pixels")
    return box


def _points(one: dict[str, Any], category: dict[str, Any], size: Size, before: int) -> list[Mark]:
    """Return the keypoints that are labelled (visibility above 0) under the names that the category gives them."""
    names, given = category.get("keypoints") or [], places.numbers(one.get("keypoints"), "keypoints")
    if not isinstance(names, list):
        raise InvalidInputError(f"keypoints {str(names)[:60]!r} of its category: give the list of their names")
    if len(given) != 3 * len(names):
        raise InvalidInputError(f"{len(given)} numbers in keypoints, and its category names {len(names)} points: three each")
    marks: list[Mark] = []
    for at, name in enumerate(names):
        x, y, seen = given[3 * at : 3 * at + 3]
        if seen > 0:
            marks.append(places.mark(before + len(marks) + 1, str(name), "point", places.points_of_pixels((x, y), size)))
    return marks
