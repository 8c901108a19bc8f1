"""JSON lines and CSV: every kind of project, and each line can be imported again.

Owns the two forms in the background; `webapp.transfer.export` streams the same ones at once. Called by `webapp.transfer.exporter`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from webapp.db.export_rows import Entry
from webapp.kinds.catalogue import data_of
from webapp.kinds.values import Value
from webapp.transfer.writers.base import Plan, Writer, about, flat

BODY = "body"
_encode = msgspec.json.Encoder().encode


def content_fields(plan: Plan, entry: Entry) -> dict[str, Any]:
    """Return an item itself as the fields of a JSON line: link, text, row or pair."""
    if entry.link is not None:
        return {"link": entry.link}
    data = data_of(plan.project.category)
    return {data: msgspec.Raw((entry.content or "null").encode())} if data in ("row", "pair") else {"text": entry.content}


def value_fields(value: Value | None) -> dict[str, Any]:
    """Return a value as the fields of a JSON line; a text that was written stands in `value`, since `text` is the
    item; nothing marked is an empty `value`, which differs from not labelled."""
    if value is None:
        return {"labels": None}
    told = flat(value)
    written = told.pop("text", None)
    if written is not None:
        return {**told, "value": {"text": written}}
    return {"value": {}, **told} if not value.labels and value.is_plain else told


class _Lines(Writer):
    def finish(self, out: Path) -> None:
        """Move the body to where it is asked for."""
        body = self.parts.path(BODY)
        out.unlink(missing_ok=True)
        out.hardlink_to(body)


class JsonLinesWriter(_Lines):
    """One JSON object a line."""

    name = "jsonl"

    def add(self, entry: Entry) -> None:
        """Write a line."""
        head = {"id": entry.item_id, **value_fields(entry.value), **about(self.plan, entry)}
        if entry.name is not None:
            head["name"] = entry.name
        self.parts.append(BODY, _encode({**head, **content_fields(self.plan, entry)}) + b"\n")


class CsvWriter(_Lines):
    """One row an item: its labels joined by '|', and the whole value as JSON where labels are not all."""

    name = "csv"

    def write(self, entries: Sequence[Entry]) -> None:
        """Write a page."""
        out = io.StringIO()
        rows = csv.writer(out, lineterminator="\n")
        if not self.parts.length(BODY):
            rows.writerow(self._columns())
        rows.writerows(self._cells(entry) for entry in entries)
        self.parts.append(BODY, out.getvalue().encode())

    def add(self, entry: Entry) -> None:
        """Write one row."""
        self.write([entry])

    def _columns(self) -> list[str]:
        return ["id", "label", *about(self.plan, _NOBODY), "name", "link", data_of(self.plan.project.category)]

    def _cells(self, entry: Entry) -> list[Any]:
        told = [_encode(v).decode() if isinstance(v, dict) else v for v in about(self.plan, entry).values()]
        return [entry.item_id, _cell(entry.value), *told, entry.name, entry.link, entry.content]


def _cell(value: Value | None) -> str | float | None:
    if value is None:
        return None
    if value.number is not None:
        return value.number
    if value.text is not None:
        return value.text
    return "|".join(value.labels) if value.is_plain else _encode(value).decode()


_NOBODY = Entry(0, "", None, None, None, 0, None, None, None, None, None, None, None, None, 0, 0)
