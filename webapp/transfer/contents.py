"""Files as items: a picture, a sound, a text, a row, or the two sides of a pair.

Owns what the bytes of a file become for each kind of data, and which two files are a pair. Must never use a file's name as a path.
Called by the readers of archives and folders.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from labelloop.errors import InvalidInputError, UnreadableItemError
from webapp.db.items import NewItem
from webapp.db.projects import Project
from webapp.kinds.catalogue import data_of
from webapp.media import MediaStore, audio_extension, image_extension
from webapp.transfer import rows

_SIDE = re.compile(r"(?:(?P<pair>.+)[._/ -])?(?P<side>[abAB])")


class Files(NamedTuple):
    """Which files of an upload make one item, by their numbers: one file, or side a and side b (None = it lacks)."""

    name: str
    numbers: tuple[int | None, ...]


def item_of_file(project: Project, media: MediaStore, name: str, data: bytes, labels: tuple[str, ...] | None) -> NewItem:
    """Return a file as an item. Raises InvalidInputError, UnreadableItemError (no picture, no sound)."""
    kind = data_of(project.category)
    if kind in ("image", "audio"):
        extension = image_extension(data) if kind == "image" else audio_extension(data)
        return rows.link_item(media.save(project.slug, data, extension), name, name, labels)
    text = data.decode("utf-8", "surrogateescape")
    if kind == "text":
        return rows.text_item(text, name, name, labels)
    if kind == "pair":
        return rows.pair_item(_json_object(text), name, name, labels)
    return rows.row_item(_json_object(text), name, name, labels)


def _json_object(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidInputError(f"not a JSON object: {exc}") from exc


def items_in(project: Project, names: Sequence[str]) -> list[Files]:
    """Return which files make which item: one each, but for pairs NAME.a.png with NAME.b.png, or NAME/a.txt with NAME/b.txt."""
    if data_of(project.category) != "pair":
        return [Files(name, (number,)) for number, name in enumerate(names)]
    found: dict[str, dict[str, int]] = {}
    for number, name in enumerate(names):
        path = PurePosixPath(name)
        side = _SIDE.fullmatch(str(path.with_suffix("")))
        if path.suffix.lower() == ".json" or side is None:
            found[name] = {"": number}
        else:
            found.setdefault(side["pair"] or "pair", {})[side["side"].lower()] = number
    return [_files(name, numbers) for name, numbers in found.items()]


def _files(name: str, numbers: dict[str, int]) -> Files:
    return Files(name, (numbers[""],) if "" in numbers else tuple(numbers.get(side) for side in rows.SIDES))


def item_of_files(
    project: Project, media: MediaStore, files: Files, read: Callable[[int], bytes], labels: tuple[str, ...] | None = None
) -> NewItem:
    """Return the item in one file, or in the two files of a pair; `read` gives a file's bytes by its number.

    Raises InvalidInputError naming the side that lacks, UnreadableItemError.
    """
    if len(files.numbers) == 1:
        return item_of_file(project, media, files.name, read(files.numbers[0] or 0), labels)
    sides = {}
    for side, number in zip(rows.SIDES, files.numbers, strict=True):
        if number is None:
            raise InvalidInputError(f"pair {files.name!r} has no side {side!r}: name its files like NAME.a.png and NAME.b.png")
        sides[side] = _side(project, media, read(number))
    return rows.pair_item(sides, files.name, files.name, labels)


def _side(project: Project, media: MediaStore, data: bytes) -> dict[str, str]:
    for extension_of in (image_extension, audio_extension):
        try:
            return {"link": media.save(project.slug, data, extension_of(data))}
        except UnreadableItemError:
            continue
    return {"text": data.decode("utf-8", "surrogateescape")}
