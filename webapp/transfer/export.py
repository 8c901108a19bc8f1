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
import numpy as np

from labelloop.errors import InvalidInputError
from webapp.db.engine import Database
from webapp.db.exports import labelled_pages, names_of_users
from webapp.db.items import BEGUN, LABELLED, OPEN, RULED
from webapp.db.projects import Project
from webapp.db.revisions import NOBODY, PERSON
from webapp.kinds.catalogue import data_of

FORMATS = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}
CSV_COLUMNS = (
    *("id", "labels", "annotator", "labelled_at", "revision", "seconds", "draft", "draft_version"),
    *("name", "link", "content"),
    *("source", "confidence", "value", "draft_value"),
)
STATES = {"labelled": (LABELLED,), "rules": (RULED,), "all": (LABELLED, RULED, BEGUN, OPEN)}


def export(database: Database, project: Project, form: str, which: str) -> Iterator[bytes]:
    """Return the pieces of an export: `form` csv or jsonl, `which` labelled (by people), rules (by rules alone) or all.

    Raises InvalidInputError.
    """
    if form not in FORMATS:
        raise InvalidInputError(f"format {form!r}: use {' or '.join(FORMATS)}")
    if which not in STATES:
        raise InvalidInputError(f"which {which!r}: use {', '.join(STATES)}")
    states = STATES[which]
    pages, names = labelled_pages(database, project.id, states), names_of_users(database)
    return _csv(pages, names) if form == "csv" else _jsonl(pages, names, project)


def _csv(pages: Iterator[list[Any]], names: Mapping[int, str]) -> Iterator[bytes]:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for page in pages:
        writer.writerows(
            (
                *(item_id, _joined(labels), _by(source, names.get(user)), _time(at), revision, seconds, _joined(draft), version),
                *(name, link, content, source, _confidence(proba), value, draft_value),
            )
            for (_, item_id, name, link, content, revision, labels, user, seconds, draft, version, at, source, proba, *more) in page
            for value, draft_value in (more,)
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
    source: str | msgspec.UnsetType = msgspec.UNSET
    confidence: float | msgspec.UnsetType = msgspec.UNSET
    pair: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    draft_value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_NO_LABELS, _NO_MARKS = msgspec.Raw(b"[]"), msgspec.Raw(b"{}")


def _jsonl(pages: Iterator[list[Any]], names: Mapping[int, str], project: Project) -> Iterator[bytes]:
    encoder, unset, data = msgspec.json.Encoder(), msgspec.UNSET, data_of(project.category)
    is_plain = project.kind_rules.shape is None
    for page in pages:
        yield encoder.encode_lines(
            Line(
                item_id,
                _raw(labels) if labels is not None else _NO_LABELS,
                _by(source, names.get(user)),
                _time(at),
                revision,
                seconds,
                _raw(draft) if draft is not None else None,
                version,
                name,
                unset if link is None else link,
                content if link is None and data not in ("row", "pair") else unset,
                msgspec.Raw(content.encode()) if link is None and data == "row" else unset,
                source if source not in (None, PERSON) else unset,
                unset if (sure := _confidence(proba)) is None else sure,
                msgspec.Raw(content.encode()) if link is None and data == "pair" else unset,
                _more(value, labels is None or is_plain),
                _more(draft_value, draft is None or is_plain),
            )
            for (_, item_id, name, link, content, revision, labels, user, seconds, draft, version, at, source, proba, *more) in page
            for value, draft_value in (more,)
        )


def _more(stored: str | None, is_nothing: bool) -> msgspec.Raw | msgspec.UnsetType:
    """Return what is said beside the labels; an item of marks that is labelled without any has an empty object, so that it differs
    from one that is not labelled."""
    if stored is None:
        return msgspec.UNSET if is_nothing else _NO_MARKS
    return msgspec.Raw(stored.encode())


def _by(source: str | None, name: str | None) -> str | None:
    """Return who gave a label: the rules or bulk acceptance, whoever set them off; several people; or one person."""
    return source if source in NOBODY else name


def _confidence(proba: bytes | None) -> float | None:
    return round(float(np.frombuffer(proba, "<f4").max()), 4) if proba else None


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
