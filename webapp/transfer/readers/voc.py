"""Pascal VOC: a zip of XML files, one a picture, with the pictures or their links.

Owns how an <object> becomes a box. Must never let XML reach for anything: entities and document types are refused. Called by
`read_rows`.

Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010: corners are pixels counted from 1, both inside.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from labelloop.errors import InvalidInputError
from webapp.kinds.values import Value
from webapp.media import image_extension
from webapp.transfer import places, rows, said
from webapp.transfer.pictures import Size, checked_size, size_in
from webapp.transfer.readers.archive import Archive
from webapp.transfer.readers.base import Found, Read, Source, attempt

ENDINGS = (".xml",)
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def read_voc(source: Source) -> Iterator[Read]:
    """Yield an XML file a row; the offset counts XML files."""
    with Archive(Path(source.job.path), source.job.name, source.max_item_bytes) as archive:
        entries = list(archive.named(*ENDINGS))
        if not entries:
            raise InvalidInputError(f"{source.job.name!r} has no .xml file: a Pascal VOC zip has one a picture, in Annotations")
        for at, entry in enumerate(entries[source.job.offset_bytes :], source.job.offset_bytes):
            yield attempt(at + 1, entry.filename, at + 1, _item, source, archive, entry)._replace(total=len(entries))


def _item(source: Source, archive: Archive, entry: zipfile.ZipInfo) -> Found:
    root = _parsed(archive.read(entry))
    name = _text(root, "filename") or f"{PurePosixPath(entry.filename).stem}.jpg"
    link, header = _picture(source, archive, root, name, PurePosixPath(entry.filename).stem)
    size = header or checked_size(_text(root, "size/width"), _text(root, "size/height"))
    item_id = _text(root, "source/item_id") or (f"{folder}/{name}" if (folder := _text(root, "folder")) else name)
    item = rows.link_item(link, item_id, name, None)
    boxes = [_box(at, one, size, source) for at, one in enumerate(root.iterfind("object"), 1)]
    if boxes:
        value: Value | None = Value(marks=tuple(boxes))
    else:
        is_none = _text(root, "is_none") == "1" or source.job.options.get("empty_is_none")
        value = Value(is_none=True) if is_none else None
    return Found(said.with_said(source.project, item, value), size)


def _parsed(data: bytes) -> Element:
    try:
        root: Element = fromstring(data, forbid_dtd=True)
    except DefusedXmlException as exc:
        raise InvalidInputError(f"XML with a document type or entities, which may be a bomb: {type(exc).__name__}") from exc
    except (ParseError, ValueError, LookupError) as exc:
        raise InvalidInputError(f"not XML: {exc}") from exc
    if root.tag != "annotation":
        raise InvalidInputError(f"its root is <{root.tag}>: Pascal VOC has <annotation>")
    return root


def _text(root: Element, path: str) -> str:
    return (root.findtext(path) or "").strip()


def _picture(source: Source, archive: Archive, root: Element, name: str, stem: str) -> tuple[str, Size | None]:
    for candidate in (name, *(f"{stem}{ending}" for ending in PICTURES)):
        entry = archive.find_file(candidate)
        if entry is not None:
            data = archive.read(entry)
            return source.media.save(source.project.slug, data, image_extension(data)), size_in(data)
    given = next((text for path in ("source/url", "path", "filename") if "://" in (text := _text(root, path))), "")
    base = str(source.job.options.get("base_link") or "")
    if not given and not base:
        raise InvalidInputError(f"no picture {name!r} comes with it: pack the pictures into the zip, or give a base link")
    return given or f"{base.rstrip('/')}/{name}", None


def _box(at: int, one: Element, size: Size, source: Source) -> Any:
    sides = [_text(one, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    left, top, right, bottom = places.numbers(sides, f"object {at}: bndbox")
    where = places.box_of_corners(left - 1, top - 1, right, bottom, size)
    shape = source.project.kind_rules.shape
    return places.mark(at, _text(one, "name"), shape or "box", places.as_shape(shape, where, "box"))
