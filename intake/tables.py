"""One table row: JSON bytes to named cells, and the columns that a task declared.

Owns parsing of rows and the declaration of columns. Must never scale: statistics of a batch would make a row's features depend
on its neighbours. Called by `intake.decode` and the table encoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from labelloop.errors import InvalidInputError, UnreadableItemError

VERSION = 1
MAX_COLUMNS = 4096
_MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "?"})

Cell = float | str | None
Kind = Literal["number", "category"]


class Row(msgspec.Struct, frozen=True):
    """The cells of one row by column name; rows given as arrays have the columns '0', '1', ..."""

    cells: dict[str, Cell]


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One declared column: its name and whether its cells are numbers or names."""

    name: str
    kind: Kind


Columns = tuple[Column, ...]


def decode_row(data: bytes) -> Row:
    """Return the row in `data`: a JSON object {"column": value} or array, of numbers, strings, booleans and null.

    Raises UnreadableItemError naming the cell at fault.
    """
    try:
        raw = msgspec.json.decode(data)
    except msgspec.DecodeError as exc:
        raise UnreadableItemError(f"not a JSON row: {exc}") from exc
    if isinstance(raw, list):
        raw = {str(i): value for i, value in enumerate(raw)}
    if not isinstance(raw, dict) or not raw:
        raise UnreadableItemError('a row must be a JSON object {"column": value} or an array, and not empty')
    if len(raw) > MAX_COLUMNS:
        raise UnreadableItemError(f"a row of {len(raw)} columns is over {MAX_COLUMNS}")
    return Row({name: _cell(name, value) for name, value in raw.items()})


def _cell(name: str, value: Any) -> Cell:
    if value is None or isinstance(value, str):
        return None if value is None or value.strip().lower() in _MISSING else value.strip()
    if isinstance(value, bool | int | float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf if value > 0 else -math.inf
        return None if math.isnan(number) else number
    raise UnreadableItemError(f"column {name!r} holds {type(value).__name__}; use a number, a string or null")


def as_number(cell: Cell) -> float | None:
    """Return `cell` as a number, or None when it is missing or no number."""
    if not isinstance(cell, str):
        return cell
    try:
        number = float(cell)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def columns_of(rows: Sequence[Row]) -> Columns:
    """Declare the columns by `rows` (the first batch of a task): sorted by name, arrays by position; a column is a number when
    none of its cells is anything else. A column without any value counts as a number."""
    names = {name for row in rows for name in row.cells}
    in_order = sorted(names, key=lambda n: (0, int(n), n) if n.isdecimal() else (1, 0, n))
    return tuple(Column(name, _kind([row.cells.get(name) for row in rows])) for name in in_order)


def _kind(cells: Sequence[Cell]) -> Kind:
    return "category" if any(c is not None and as_number(c) is None for c in cells) else "number"


def declared_columns(parameters: Mapping[str, Any]) -> Columns | None:
    """Return the columns of `spec.extra.parameters['columns']`, [{"name": ..., "kind": "number"|"category"}, ...], or None.

    Raises InvalidInputError naming the entry at fault.
    """
    if "columns" not in parameters:
        return None
    try:
        return msgspec.convert(parameters["columns"], Columns)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"parameters.columns is malformed: {exc}") from exc
