"""`table-columns`: the cells of a row side by side, by columns that the task declared once.

Owns the layout of a row: two numbers for a number (value, is missing), 32 for a category (two hashed marks, or none when it is
missing). Must never standardise: that is the algorithm's, whose training set is the same for all. Called through
`intake.encoders` and `intake.pipeline`, which brings the columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from intake.encoders.base import Encoder, Features
from intake.tables import Cell, Columns, Row, as_number
from labelloop.errors import NotReadyError

BUCKETS = 32
_LARGEST = 1e30


class TableColumns(Encoder):
    """Numbers as they are (a missing or unreadable one is 0 and marked), categories as hashed marks."""

    name = "table-columns"
    category = "tables"

    def __init__(self, columns: Columns = ()) -> None:
        self.columns = columns
        self.dim = sum(2 if column.kind == "number" else BUCKETS for column in columns)

    def embed(self, prepared: Sequence[Any]) -> Features:
        """Return (n, dim) rows; cells of undeclared columns are left out. Raises NotReadyError without columns."""
        if not self.columns:
            raise NotReadyError(
                "table-columns knows no columns yet: process a row of the task first, or declare parameters.columns"
            )
        out = np.zeros((len(prepared), self.dim), np.float32)
        for target, row in zip(out, prepared, strict=True):
            self._fill(target, row)
        return out

    def _fill(self, target: Features, row: Row) -> None:
        at = 0
        for column in self.columns:
            cell = row.cells.get(column.name)
            if column.kind == "number":
                number = as_number(cell)
                target[at], target[at + 1] = _bounded(number), number is None
                at += 2
            else:
                if cell is not None:
                    target[at + _marks(column.name, cell)] = 1.0
                at += BUCKETS

    def record(self) -> dict[str, Any]:
        """Return name, width and the declared columns."""
        return {**super().record(), "columns": [{"name": c.name, "kind": c.kind} for c in self.columns]}


def _bounded(number: float | None) -> float:
    return 0.0 if number is None else max(-_LARGEST, min(_LARGEST, number))


def _marks(column: str, cell: Cell) -> Any:
    text = cell if isinstance(cell, str) else f"{cell:g}"
    digest = hashlib.blake2b(f"{column}\0{text}".encode("utf-8", "surrogatepass"), digest_size=2).digest()
    return np.array([digest[0] % BUCKETS, digest[1] % BUCKETS])
