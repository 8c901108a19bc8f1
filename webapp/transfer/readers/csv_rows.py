"""CSV and TSV with a header: which column is what, and one item a row.

Owns the usual names of columns. Must never hold the file. Called by `read_rows`; `parquet` and `sql` share the choice of columns.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from labelloop.errors import InvalidInputError
from webapp.db.imports import ImportJob, RowError
from webapp.db.items import NewItem
from webapp.db.projects import Project
from webapp.kinds.catalogue import data_of
from webapp.transfer import rows, said
from webapp.transfer.readers.base import Lines, Read, Source, attempt

csv.field_size_limit(2**20)
_TEXT_COLUMNS = ("text", "content", "sentence", "tweet", "message")
_LINK_COLUMNS = ("link", "url", "image", "path", "href")
_ID_COLUMNS = ("id", "item_id")
_LABEL_COLUMNS = ("label", "labels")


class Columns(NamedTuple):
    """Which column is what, by number; `row` are the columns of a table row, `pair` those of the two sides; `value` has the JSON of
    what is said beside the labels, as an export writes it; `gold` says whether the row's answer is known."""

    names: tuple[str, ...]
    id: int | None
    label: int | None
    text: int | None
    link: int | None
    row: tuple[int, ...]
    pair: tuple[int, ...] = ()
    value: int | None = None
    gold: int | None = None


def choose_columns(project: Project, header: list[str], options: dict[str, Any]) -> Columns:
    """Return which column is what: as chosen, or by the usual names. Raises InvalidInputError listing what there is."""
    names = [name.strip() for name in header]
    if len(set(names)) != len(names):
        raise InvalidInputError(f"the CSV names a column twice: {', '.join(names[:20])}")

    def find(option: str, usual: tuple[str, ...], is_needed: bool = False) -> int | None:
        wanted = options.get(option)
        if wanted and wanted not in names:
            raise InvalidInputError(f"the CSV has no column {wanted!r}: it has {', '.join(names[:20])}")
        found = wanted or next((name for name in names if name.lower() in usual), None)
        if found is None and is_needed:
            raise InvalidInputError(
                f"the CSV has no column {usual[0]!r}: it has {', '.join(names[:20])}; name the right one with {option}"
            )
        return names.index(found) if found is not None else None

    item_id, label = find("id_column", _ID_COLUMNS), find("label_column", _LABEL_COLUMNS)
    data = data_of(project.category)
    is_table, is_text = data == "row", data == "text"
    text = find("text_column", _TEXT_COLUMNS, is_needed=not options.get("link_column")) if is_text else None
    pair = tuple(found for side in rows.SIDES if (found := find("", (side,), is_needed=True)) is not None) if data == "pair" else ()
    link = find("link_column", _LINK_COLUMNS, is_needed=True) if text is None and data in ("text", "image", "audio") else None
    chosen = [name for name in str(options.get("row_columns") or "").split(",") if name]
    for name in chosen:
        if name not in names:
            raise InvalidInputError(f"the CSV has no column {name!r}: it has {', '.join(names[:20])}")
    gold = find("gold_column", ("is_gold",))
    row = tuple(i for i, name in enumerate(names) if (name in chosen if chosen else i not in (item_id, label, gold)))
    value = None if is_table else find("value_column", ("value",))
    return Columns(tuple(names), item_id, label, text, link, row if is_table else (), pair, value, gold)


def read_csv(source: Source) -> Iterator[Read]:
    job, project = source.job, source.project
    delimiter = str(job.options.get("delimiter") or ("\t" if job.name.endswith(".tsv") else ","))
    with Path(job.path).open("rb") as file:
        head = Lines(file, 0)
        try:
            header = next(csv.reader(head, delimiter=delimiter), None)
        except (csv.Error, TypeError, ValueError) as exc:
            raise InvalidInputError(f"the line that names the columns is no CSV with {delimiter!r} between them: {exc}") from exc
        if not header:
            raise InvalidInputError("the CSV is empty: its first line must name the columns")
        columns = choose_columns(project, header, job.options)
        is_new = not job.offset_bytes
        lines = Lines(file, head.offset if is_new else job.offset_bytes, head.n if is_new else job.line)
        yield from _csv_rows(project, columns, lines, delimiter, job)


def _csv_rows(project: Project, columns: Columns, lines: Lines, delimiter: str, job: ImportJob) -> Iterator[Read]:
    """Yield the rows; one is told by the line on which it begins, the header's being 1."""
    separator = str(job.options.get("label_separator") or "|")
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        line = lines.n + 1
        try:
            cells = next(reader, None)
        except csv.Error as exc:
            reader = csv.reader(lines, delimiter=delimiter)
            yield Read(RowError(line, "", f"not a CSV row: {exc}"), lines.offset, lines.n)
            continue
        if cells is None:
            return
        if cells:
            yield attempt(line, cells[0], lines.offset, _csv_item, project, columns, cells, separator)._replace(line=lines.n)


def _csv_item(project: Project, columns: Columns, cells: list[str], separator: str) -> NewItem:
    if len(cells) != len(columns.names):
        raise InvalidInputError(f"{len(cells)} cells where the header names {len(columns.names)} columns")
    item = _said_item(project, columns, cells, separator)
    return said.as_known(item) if columns.gold is not None and said.is_known(cells[columns.gold]) else item


def _said_item(project: Project, columns: Columns, cells: list[str], separator: str) -> NewItem:
    item_id = cells[columns.id] if columns.id is not None else None
    more = cells[columns.value] if columns.value is not None else ""
    cell = cells[columns.label] if columns.label is not None else ""
    if more or not said.is_plain(project):
        item = _bare_item(columns, cells, item_id, None)
        return said.with_said(project, item, said.value_in_cell(project, more or cell, separator, has_json=bool(more)))
    return _bare_item(columns, cells, item_id, rows.labels_of(project, cell, separator))


def _bare_item(columns: Columns, cells: list[str], item_id: str | None, labels: tuple[str, ...] | None) -> NewItem:
    if columns.pair:
        return rows.pair_item(dict(zip(rows.SIDES, (cells[i] for i in columns.pair), strict=True)), item_id, None, labels)
    if columns.text is not None:
        return rows.text_item(cells[columns.text], item_id, None, labels)
    if columns.link is not None:
        return rows.link_item(cells[columns.link], item_id, None, labels)
    return rows.row_item({columns.names[i]: rows.cell_value(cells[i]) for i in columns.row}, item_id, None, labels)
