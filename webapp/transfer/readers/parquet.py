"""Parquet, row group by row group: columns as in CSV, or the columns of our own exports and of Hugging Face datasets.

Owns how a row of Parquet becomes the object of a JSON line. Must never decode more than a batch at once. Called by `read_rows`.
"""

from __future__ import annotations

import datetime
import decimal
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from labelloop.errors import InvalidInputError, UnreadableItemError
from webapp.kinds.catalogue import data_of
from webapp.media import image_extension
from webapp.transfer import rows, said
from webapp.transfer.pictures import size_in
from webapp.transfer.readers.base import Found, Read, Source, attempt
from webapp.transfer.readers.class_labels import class_names, with_names
from webapp.transfer.readers.csv_rows import Columns, choose_columns

BATCH_ROWS = 500
MOST_GROUP_BYTES = 4 * 2**30
_OURS = frozenset({"marks", "relations", "number", "value", "draft", "is_none", "row", "pair", "name"})


class Layout(NamedTuple):
    """What the columns are: as in CSV (None = the fields of a JSON line), the one of pictures, those of classes and their names."""

    columns: Columns | None
    picture: str | None
    classes: dict[str, tuple[str, ...]]


def count_rows(path: Path) -> int:
    """Return how many rows a file has. Raises InvalidInputError."""
    with _opened(path) as file:
        return int(file.metadata.num_rows)


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as exc:
        raise InvalidInputError(f"this is not a Parquet file: {exc}") from exc


def read_parquet(source: Source) -> Iterator[Read]:
    """Yield the rows from where the import stands; the offset counts rows."""
    with _opened(Path(source.job.path)) as file:
        names = [str(name) for name in file.schema_arrow.names]
        picture, classes = _picture_column(file.schema_arrow), class_names(file.schema_arrow)
        is_object = picture is not None or bool(_OURS & set(names)) or data_of(source.project.category) == "pair"
        columns = None if is_object else choose_columns(source.project, names, source.job.options)
        for at, row in _rows(file, source.job.offset_bytes):
            if isinstance(row, str):
                yield attempt(at, "", at, _broken, row)
                continue
            name = str(row.get("id") or "")
            yield attempt(at, name, at, _item, source, row, Layout(columns, picture, classes))


def _broken(reason: str) -> Found:
    raise InvalidInputError(reason)


def _rows(file: pq.ParquetFile, done: int) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield (rows so far, row, or why its group cannot be read) behind the first `done` rows."""
    begin = 0
    for group in range(file.metadata.num_row_groups):
        about = file.metadata.row_group(group)
        end = begin + about.num_rows
        if end > done:
            yield from _group_rows(file, group, begin, end, done, about.total_byte_size)
        begin = end


def _group_rows(
    file: pq.ParquetFile, group: int, begin: int, end: int, done: int, size_bytes: int
) -> Iterator[tuple[int, dict[str, Any] | str]]:
    at = begin
    try:
        if size_bytes > MOST_GROUP_BYTES:
            raise pa.ArrowInvalid(f"{size_bytes} bytes in one row group: at most {MOST_GROUP_BYTES} are taken")
        for batch in file.iter_batches(BATCH_ROWS, row_groups=[group]):
            skipped = min(max(done - at, 0), batch.num_rows)
            at += skipped
            for row in batch.slice(skipped).to_pylist():
                at += 1
                yield at, row
    except (pa.ArrowException, OSError, ValueError, OverflowError) as exc:
        yield end, f"rows {at + 1} to {end} of the file cannot be read: {exc}"


def _picture_column(schema: pa.Schema) -> str | None:
    """Return the column of pictures kept in the file, as datasets keep them: a struct of bytes and path."""
    for field in schema:
        if pa.types.is_struct(field.type) and {child.name for child in field.type} >= {"bytes", "path"}:
            return str(field.name)
    return None


def _item(source: Source, row: dict[str, Any], layout: Layout) -> Found:
    row, columns, picture = with_names(row, layout.classes), layout.columns, layout.picture
    if columns is not None:
        return Found(rows.item_from_object(source.project, _by_columns(source, row, columns)))
    given, size = {key: _plain(value) for key, value in row.items() if value is not None and key != picture}, None
    kept = row.get(picture) if picture else None
    if isinstance(kept, Mapping) and kept.get("bytes"):
        data = bytes(kept["bytes"])
        if len(data) > source.max_item_bytes:
            raise InvalidInputError(f"a picture of {len(data)} bytes: at most {source.max_item_bytes} are taken")
        size = size_in(data)
        given["link"] = source.media.save(source.project.slug, data, image_extension(data))
        given.setdefault("id", kept.get("path"))
    if data_of(source.project.category) == "row" and isinstance(given.get("row"), str):
        given["row"] = _object(given["row"])
    return Found(rows.item_from_object(source.project, given), size)


def _object(text: str) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise UnreadableItemError(f"column 'row' is not JSON: {exc}") from exc


def _by_columns(source: Source, row: dict[str, Any], columns: Columns) -> dict[str, Any]:
    cells = [_plain(row[name]) for name in columns.names]
    given: dict[str, Any] = {}
    for field, at in (("id", columns.id), ("labels", columns.label), ("text", columns.text), ("link", columns.link)):
        if at is not None and cells[at] is not None:
            given[field] = cells[at]
    label = given.get("labels")
    if isinstance(label, str) and source.project.is_multilabel:
        given["labels"] = [part.strip() for part in label.split(str(source.job.options.get("label_separator") or "|"))]
    elif label is not None and not isinstance(label, list):
        given["labels"] = [str(label)]
    if columns.gold is not None:
        given |= said.gold_field(cells[columns.gold])
    if columns.row:
        given["row"] = {columns.names[at]: cells[at] for at in columns.row}
    return given


def _plain(value: Any) -> Any:
    """Return a cell as JSON would have it. Raises InvalidInputError for bytes and what has no form in JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    raise InvalidInputError(f"a cell of type {type(value).__name__}: convert the column to text or numbers")
