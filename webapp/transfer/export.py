"""Labels out: CSV or JSONL, as a stream of pieces whose size does not depend on the project's.

Owns the form of the rows. Called by the export endpoint.
"""

from __future__ import annotations

import csv
import datetime
import functools
import io
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from labelloop.errors import InvalidInputError
from webapp.db.engine import Database
from webapp.db.exports import labelled_pages, names_of_users
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
    pages, names = labelled_pages(database, project.id, states), names_of_users(database)
    return _csv(pages, names) if form == "csv" else _jsonl(pages, names, project.category)


def _csv(pages: Iterator[list[Any]], names: Mapping[int, str]) -> Iterator[bytes]:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for page in pages:
        writer.writerows(
            (item_id, _joined(labels), names.get(user), _time(at), revision, seconds, _joined(draft), version, name, link, content)
            for _, item_id, name, link, content, revision, labels, user, seconds, draft, version, at in page
        )
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode()


class Line(msgspec.Struct, omit_defaults=True):
    """One line of a JSONL export."""

    id: str
    labels: msgspec.Raw
    annotator: str | None
    labelled_at: str | None
    revision: int
    seconds: float | None
    draft: msgspec.Raw | None
    draft_version: str | None
    name: str | None
    link: str | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET
    row: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_NO_LABELS = msgspec.Raw(b"[]")


def _jsonl(pages: Iterator[list[Any]], names: Mapping[int, str], category: str) -> Iterator[bytes]:
    encoder, is_table, unset = msgspec.json.Encoder(), category == "tables", msgspec.UNSET
    for page in pages:
        yield encoder.encode_lines(
            Line(
                item_id,
                _raw(labels) if labels is not None else _NO_LABELS,
                names.get(user),
                _time(at),
                revision,
                seconds,
                _raw(draft) if draft is not None else None,
                version,
                name,
                unset if link is None else link,
                unset if is_table or link is not None else content,
                msgspec.Raw(content.encode()) if is_table and link is None else unset,
            )
            for _, item_id, name, link, content, revision, labels, user, seconds, draft, version, at in page
        )


@functools.lru_cache(4096)
def _raw(labels: str) -> msgspec.Raw:
    return msgspec.Raw(labels.encode())


@functools.lru_cache(4096)
def _decoded(labels: str) -> str:
    return "|".join(msgspec.json.decode(labels, type=list[str]))


def _joined(labels: str | None) -> str | None:
    return None if labels is None else _decoded(labels)


@functools.lru_cache(256)
def _second(at_s: int) -> str:
    return datetime.datetime.fromtimestamp(at_s, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _time(at: float | None) -> str | None:
    if at is None:
        return None
    whole = int(at)
    return f"{_second(whole)}.{int((at - whole) * 1000):03d}Z"
