"""Labels out: CSV or JSONL, as a stream of pieces whose size does not depend on the project's.

Owns the form of the rows. Called by the export endpoint.
"""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Iterator
from typing import Any

import msgspec

from labelloop.errors import InvalidInputError
from webapp.db.engine import Database
from webapp.db.exports import labelled_pages
from webapp.db.items import LABELLED, OPEN
from webapp.db.projects import Project

FORMATS = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}
CSV_COLUMNS = (
    *("id", "labels", "annotator", "labelled_at", "revision", "seconds", "draft", "draft_version"),
    *("name", "link", "content"),
)


def export(database: Database, project: Project, form: str, which: str) -> Iterator[bytes]:
    """Return the pieces of an export: `form` csv or jsonl, `which` labelled or all. Raises InvalidInputError."""
    if form not in FORMATS:
        raise InvalidInputError(f"format {form!r}: use {' or '.join(FORMATS)}")
    if which not in ("labelled", "all"):
        raise InvalidInputError(f"which {which!r}: use labelled or all")
    states = (LABELLED, OPEN) if which == "all" else (LABELLED,)
    pages = labelled_pages(database, project.id, states)
    return _csv(pages) if form == "csv" else _jsonl(pages, project.category)


def _csv(pages: Iterator[list[Any]]) -> Iterator[bytes]:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for page in pages:
        writer.writerows(
            (item_id, _joined(labels), annotator, _time(at), revision, seconds, _joined(draft), version, name, link, content)
            for item_id, name, link, content, revision, labels, annotator, seconds, draft, version, at in page
        )
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode()


def _jsonl(pages: Iterator[list[Any]], category: str) -> Iterator[bytes]:
    encoder, raw = msgspec.json.Encoder(), msgspec.Raw
    key = "row" if category == "tables" else "text"
    for page in pages:
        lines = []
        for item_id, name, link, content, revision, labels, annotator, seconds, draft, version, at in page:
            row = {
                "id": item_id,
                "labels": raw(labels.encode()) if labels is not None else [],
                "annotator": annotator,
                "labelled_at": _time(at),
                "revision": revision,
                "seconds": seconds,
                "draft": raw(draft.encode()) if draft is not None else None,
                "draft_version": version,
                "name": name,
            }
            if link is not None:
                row["link"] = link
            else:
                row[key] = raw(content.encode()) if category == "tables" else content
            lines.append(row)
        yield encoder.encode_lines(lines)


_joiner = msgspec.json.Decoder(list[str])


def _joined(labels: str | None) -> str | None:
    return None if labels is None else "|".join(_joiner.decode(labels))


def _time(at: float | None) -> str | None:
    return None if at is None else datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="milliseconds")
