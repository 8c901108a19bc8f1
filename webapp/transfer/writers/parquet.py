"""Parquet: a column a field, a row group a page.

Owns the columns. Must never hold more than a page: each page is a Parquet file of its own until the end. Called by
`webapp.transfer.exporter`, and extended by `hugging_face`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from webapp.db.export_rows import Entry
from webapp.kinds.catalogue import data_of
from webapp.transfer.writers.base import Writer, about
from webapp.transfer.writers.lines import content_fields, value_fields

_TEXT, _NUMBER = pa.string(), pa.float64()
_MARK = pa.struct([("id", _TEXT), ("label", _TEXT), ("shape", _TEXT), ("where", pa.list_(_NUMBER)), ("confidence", _NUMBER)])
_RELATION = pa.struct([("label", _TEXT), ("source", _TEXT), ("target", _TEXT)])
_ABOUT = {"seconds": _NUMBER, "revision": pa.int64()}


NOBODY = Entry(0, "", None, None, None, 0, None, None, None, None, None, None, None, None, 0, 0)


class ParquetWriter(Writer):
    """One Parquet file, a row group a page."""

    name = "parquet"

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the number of pages."""
        self.pages: int = state.get("pages", 0)
        self.schema = self.make_schema()

    def state(self) -> dict[str, Any]:
        """Return the number of pages."""
        return {"pages": self.pages}

    def add(self, entry: Entry) -> None:
        """Write a page of one."""
        self.write([entry])

    def write(self, entries: Sequence[Entry]) -> None:
        """Write a page as a file of its own."""
        table = pa.Table.from_pylist([self.row(entry) for entry in entries], self.schema)
        self.keep(table)

    def keep(self, table: pa.Table) -> None:
        """Keep a page until the end."""
        self.parts.append(f"page-{self.pages:07d}", packed(table))
        self.pages += 1

    def make_schema(self) -> pa.Schema:
        """Return the columns that this project's items have."""
        data = data_of(self.plan.project.category)
        fields: dict[str, pa.DataType] = {"id": _TEXT, "name": _TEXT, "link": _TEXT}
        if data in ("text", "row", "pair"):
            fields[data] = _TEXT
        if self.kind.least_labels:
            fields |= {"labels": pa.list_(_TEXT), "is_none": pa.bool_()}
        if self.kind.shape:
            fields["marks"] = pa.list_(_MARK)
        if self.kind.has_relations:
            fields["relations"] = pa.list_(_RELATION)
        if self.kind.has_number:
            fields["number"] = _NUMBER
        if self.kind.has_text:
            fields["value"] = pa.struct([("text", _TEXT)])
        fields |= {name: _ABOUT.get(name, _TEXT) for name in about(self.plan, NOBODY)}
        return pa.schema(list(fields.items()))

    def row(self, entry: Entry) -> dict[str, Any]:
        """Return an item as its columns. Raises LabelloopError."""
        told = {**value_fields(entry.value), **content_fields(self.plan, entry), **about(self.plan, entry)}
        told |= {"id": entry.item_id, "name": entry.name}
        if isinstance(told.get("draft"), dict):
            told["draft"] = msgspec.json.encode(told["draft"]).decode()
        for mark in told.get("marks", ()):
            mark.setdefault("confidence", 1.0)
        return {key: bytes(v).decode() if isinstance(v, msgspec.Raw) else v for key, v in told.items()}

    def finish(self, out: Path) -> None:
        """Make one file of the pages, a page at a time."""
        with pq.ParquetWriter(out, self.schema, compression="zstd") as file:
            for page in range(self.pages):
                file.write_table(pq.read_table(self.parts.path(f"page-{page:07d}"), schema=self.schema))


def packed(table: pa.Table) -> bytes:
    """Return a table as the bytes of a Parquet file."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    return bytes(buffer.getvalue())
