"""Lines of JSON objects, and lists of links a line.

Owns the two forms. Must never stop at a bad line. Called by `read_rows`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from labelloop.errors import InvalidInputError
from webapp.db.items import NewItem
from webapp.db.projects import Project
from webapp.transfer import rows
from webapp.transfer.readers.base import Lines, Read, Source, attempt


def read_jsonl(source: Source) -> Iterator[Read]:
    job, project = source.job, source.project
    with Path(job.path).open("rb") as file:
        lines = Lines(file, job.offset_bytes)
        for line, text in enumerate(lines, job.line + 1):
            if text.strip():
                yield attempt(line, "", lines.offset, _object_item, project, text)


def _object_item(project: Project, text: str) -> NewItem:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as exc:
        raise InvalidInputError(f"not a JSON object: {exc}") from exc
    if not isinstance(value, dict):
        raise InvalidInputError("not a JSON object: write one object a line")
    return rows.item_from_object(project, value)


def read_links(source: Source) -> Iterator[Read]:
    job = source.job
    with Path(job.path).open("rb") as file:
        lines = Lines(file, job.offset_bytes)
        for line, text in enumerate(lines, job.line + 1):
            link = text.strip()
            if link and not link.startswith("#"):
                yield attempt(line, link, lines.offset, rows.link_item, link, None, None, None)
