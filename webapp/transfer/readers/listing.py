"""What a web address or an S3 bucket lists, through fsspec: an item a file, by its link or copied.

Owns which files are taken. Must never reach a private address that no operator allowed: `webapp.transfer.addresses` guards each
connection. Called by `read_rows`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from labelloop.errors import InvalidInputError, UnreachableError
from webapp.kinds.catalogue import data_of
from webapp.transfer import rows
from webapp.transfer.addresses import open_listing
from webapp.transfer.readers.base import Found, Read, Source, attempt
from webapp.transfer.readers.files import file_item

MOST_FILES = 10_000_000
_ENDINGS = {
    "image": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    "audio": (".wav", ".mp3", ".flac", ".ogg", ".m4a", ".opus"),
    "text": (".txt", ".md"),
    "row": (".json",),
}


def read_listing(source: Source) -> Iterator[Read]:
    """Yield the files of a listing in the order of their names; the offset counts files. Raises InvalidInputError."""
    options, kind = source.job.options, data_of(source.project.category)
    if kind not in _ENDINGS:
        raise InvalidInputError(f"a project of {source.project.category} takes no files: send JSON lines")
    with open_listing(str(options.get("url") or ""), source.reach, source.max_item_bytes, source.project.slug) as listing:
        at = 0
        for name in listing.names():
            if not name.lower().endswith(_ENDINGS[kind]):
                continue
            at += 1
            if at > MOST_FILES:
                raise InvalidInputError(f"more than {MOST_FILES} files: list a folder of them at a time")
            if at > source.job.offset_bytes:
                yield attempt(at, name, at, _item, source, listing, name)


def _item(source: Source, listing: Any, name: str) -> Found:
    link = listing.link_of(name)
    if link is not None and not source.job.options.get("copy") and data_of(source.project.category) in ("image", "audio"):
        return Found(rows.link_item(link, listing.short(name), listing.short(name), None))
    try:
        return file_item(source, listing.short(name), listing.read(name, source.max_item_bytes))
    except UnreachableError as exc:  # this file alone: the rest goes in
        raise InvalidInputError(str(exc)) from exc
