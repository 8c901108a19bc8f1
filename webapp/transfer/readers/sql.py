"""Rows of a SQL table as items: read where they are along a key, a page in memory, never written.

Owns how a row of the table becomes an item. Must never tell the source's URL: `webapp.db.foreign` connects. Called by
`read_rows`.
"""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Iterator
from typing import Any

import msgspec

from labelloop.errors import InvalidInputError
from webapp.db import foreign
from webapp.transfer import rows, said
from webapp.transfer.readers.base import Found, Read, Source, attempt
from webapp.transfer.readers.csv_rows import Columns, choose_columns
from webapp.transfer.sources import read_source

PAGE = 2000


def read_sql(source: Source) -> Iterator[Read]:
    """Yield the rows of a table in the order of its key; the offset is how many rows came. Raises InvalidInputError."""
    options = source.job.options
    url = read_source(source.reach.sources_dir, str(options.get("source") or ""), source.project.slug).url
    key, done = str(options.get("key_column") or ""), source.job.offset_bytes
    with foreign.open_table(url, str(options.get("table") or ""), key) as table:
        columns = choose_columns(source.project, list(table.names), options)
        if columns.id is None:
            columns = columns._replace(id=table.names.index(table.key))
        total = table.count()
        at = done
        for row in table.rows_behind(table.key_at(done) if done else None, PAGE):
            at += 1
            yield attempt(at, str(row[columns.id or 0]), at, _item, source, columns, row)._replace(total=total)


def _item(source: Source, columns: Columns, row: tuple[Any, ...]) -> Found:
    cells = [_plain(cell) for cell in row]
    given: dict[str, Any] = {}
    for field, at in (("id", columns.id), ("labels", columns.label), ("text", columns.text), ("link", columns.link)):
        if at is not None and cells[at] is not None:
            given[field] = cells[at]
    given["id"] = str(given.get("id", ""))
    if "labels" in given:
        label, mark = str(given["labels"]), str(source.job.options.get("label_separator") or "|")
        given["labels"] = [part.strip() for part in label.split(mark)] if source.project.is_multilabel else [label]
    if columns.gold is not None:
        given |= said.gold_field(cells[columns.gold])
    if columns.row:
        given["row"] = {columns.names[at]: cells[at] for at in columns.row}
    return Found(rows.item_from_object(source.project, given))


def _plain(cell: Any) -> Any:
    if cell is None or isinstance(cell, str | int | float | bool):
        return cell
    if isinstance(cell, decimal.Decimal):
        return float(cell)
    if isinstance(cell, datetime.datetime | datetime.date | datetime.time):
        return cell.isoformat()
    if isinstance(cell, bytes | memoryview):
        raise InvalidInputError("a cell of bytes: leave the column out, or make it text")
    if isinstance(cell, dict | list):
        return msgspec.json.encode(cell).decode()
    return str(cell)
