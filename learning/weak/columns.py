"""The items that rules look at, column by column, and what models, crowds and knowledge bases say of them.

Owns the kinds of columns and what is derived from one once for all rules. Must never read a file: values come in. Called by
`conditions` and `application`.

| bad input | answer |
|---|---|
| columns of different lengths, no column | InvalidInputError naming them |
| a column of numbers and texts | InvalidInputError naming a row of each |
| a rule that names no column, or one of the other kind | InvalidInputError naming the columns there are |
| None, NaN | missing: no test on it is true or false |
| probabilities that are not (n, k), or a row that does not sum to 1 | InvalidInputError naming source and row |
| a row of NaN or of zeros among probabilities | this source says nothing of that item |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.weak.knowledge import Knowledge
from learning.weak.words import WordIndex, index_words

Kind = Literal["number", "text", "empty"]
_SUM_TOLERANCE = 1e-2


class Items:
    """What rules are applied to. Not thread-safe: what is derived from a column is made when first asked for."""

    def __init__(
        self,
        columns: Mapping[str, Sequence[Any] | NDArray[Any]],
        *,
        models: Mapping[str, NDArray[Any]] | None = None,
        crowds: Mapping[str, NDArray[Any]] | None = None,
        knowledge: Mapping[str, Knowledge] | None = None,
    ) -> None:
        """Take columns of equal length: sequences of str, numbers, booleans and None, or arrays of numbers.

        models and crowds: (n, k) probabilities by name; a row of NaN or zeros = no opinion. knowledge: bases by name.
        Raises InvalidInputError: see the module's table.
        """
        sizes = {name: len(column) for name, column in columns.items()}
        if not sizes or len(set(sizes.values())) > 1:
            raise InvalidInputError(f"items need at least one column, all of one length, got {sizes}")
        self.n_items = next(iter(sizes.values()))
        self._columns = {name: _read(name, column) for name, column in columns.items()}
        self.models = {name: _opinions(f"model {name!r}", value, self.n_items) for name, value in (models or {}).items()}
        self.crowds = {name: _opinions(f"crowd {name!r}", value, self.n_items) for name, value in (crowds or {}).items()}
        self.knowledge = dict(knowledge or {})
        self.folded, self.encoded, self.words = cache(self._fold), cache(self._encode), cache(self._index)

    def kind(self, field: str) -> Kind:
        """Return what a column holds. Raises InvalidInputError naming the columns there are."""
        return self._column(field)[0]

    def numbers(self, field: str) -> NDArray[np.float64]:
        """Return a column of numbers, (n,), NaN = missing. Raises InvalidInputError where it is none."""
        kind, values = self._column(field)
        if kind == "text":
            raise InvalidInputError(f"column {field!r} holds texts: compare it with a text, or ask for its length or words")
        return np.full(self.n_items, np.nan) if kind == "empty" else values

    def texts(self, field: str) -> NDArray[np.object_]:
        """Return a column of texts, (n,) of str, None = missing. Raises InvalidInputError where it is none."""
        kind, values = self._column(field)
        if kind == "number":
            raise InvalidInputError(f"column {field!r} holds numbers: compare it with a number")
        return np.full(self.n_items, None, dtype=object) if kind == "empty" else values

    def is_known(self, field: str) -> NDArray[np.bool_]:
        """Return where a column is not missing, (n,)."""
        kind, values = self._column(field)
        if kind == "empty":
            return np.zeros(self.n_items, dtype=np.bool_)
        if kind == "number":
            return ~np.isnan(values)
        return np.fromiter((value is not None for value in values), dtype=np.bool_, count=self.n_items)

    def _column(self, field: str) -> tuple[Kind, Any]:
        try:
            return self._columns[field]
        except KeyError:
            known = ", ".join(repr(name) for name in list(self._columns)[:20])
            raise InvalidInputError(f"there is no column {field!r}: use one of {known}") from None

    def _fold(self, field: str) -> list[str]:
        """The texts of a column without their case, "" = missing."""
        return [(value or "").casefold() for value in self.texts(field)]

    def _encode(self, field: str) -> list[bytes]:
        """The texts of a column as UTF-8, b"" = missing; a lone surrogate becomes a question mark."""
        return [(value or "").encode("utf-8", "replace") for value in self.texts(field)]

    def _index(self, field: str) -> WordIndex:
        """The words of a column."""
        return index_words(self.texts(field).tolist())


def _read(name: str, column: Sequence[Any] | NDArray[Any]) -> tuple[Kind, Any]:
    if isinstance(column, np.ndarray) and column.dtype.kind in "biuf":
        if column.ndim != 1:
            raise InvalidInputError(f"column {name!r} must be one value an item, got shape {column.shape}")
        return "number", column.astype(np.float64)
    first: dict[type, int] = {}
    values = list(column)
    for row, value in enumerate(values):
        if value is None or (isinstance(value, float) and value != value):
            values[row] = None
        elif isinstance(value, (str, int, float, np.number, np.bool_)):
            first.setdefault(str if isinstance(value, str) else float, row)
        else:
            raise InvalidInputError(f"row {row} of column {name!r} is {type(value).__name__}: give texts, numbers or None")
    if len(first) > 1:
        raise InvalidInputError(
            f"column {name!r} holds a text in row {first[str]} and a number in row {first[float]}: make it one kind"
        )
    if float in first:
        return "number", np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    texts = np.empty(len(values), dtype=object)
    texts[:] = [None if value is None else str(value) for value in values]
    return ("text" if first else "empty"), texts


def _opinions(source: str, value: NDArray[Any], n_items: int) -> NDArray[np.float32]:
    proba = np.asarray(value)
    if proba.ndim != 2 or len(proba) != n_items or proba.shape[1] == 0 or proba.dtype.kind != "f":
        raise InvalidInputError(f"{source} must give ({n_items}, k) probabilities, got shape {proba.shape}, {proba.dtype}")
    proba = np.where(np.isnan(proba).all(axis=1, keepdims=True), 0, proba).astype(np.float32)
    sums = proba.sum(axis=1)
    is_wrong = ~((np.abs(sums - 1) <= _SUM_TOLERANCE) | (sums == 0)) | (proba < -1e-6).any(axis=1)
    if is_wrong.any():
        row = int(is_wrong.argmax())
        raise InvalidInputError(f"row {row} of {source} is no distribution (sum {sums[row]:.4g}): give NaN where it has no opinion")
    return proba
