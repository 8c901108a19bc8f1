"""Columns that Hugging Face datasets keep as numbers of classes, read as the names that the file itself tells.

Owns the form of the features in a Parquet file's metadata; numbers in a column without features, and names, stay as they are. Must
never know a project. Called by `parquet`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pyarrow as pa

from labelloop.errors import InvalidInputError

NOBODY = -1  # what datasets write for "no label"


def class_names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Return the names of the classes of each column that is a ClassLabel, or a list of them."""
    told = (schema.metadata or {}).get(b"huggingface")
    try:
        features = msgspec.json.decode(told, type=dict[str, Any])["info"]["features"] if told else {}
    except (msgspec.DecodeError, KeyError, TypeError):
        return {}
    if not isinstance(features, Mapping):
        return {}
    return {column: names for column, feature in features.items() if (names := _names_in(feature))}


def _names_in(feature: Any) -> tuple[str, ...]:
    """Return the names in a feature: of ClassLabel, of List and Sequence of it, or of the older form, a list of one feature."""
    if isinstance(feature, list) and len(feature) == 1:
        feature = feature[0]
    if isinstance(feature, Mapping) and "feature" in feature:
        feature = feature["feature"]
    if not isinstance(feature, Mapping) or feature.get("_type") != "ClassLabel" or not isinstance(feature.get("names"), list):
        return ()
    return tuple(map(str, feature["names"]))


def with_names(row: Mapping[str, Any], classes: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return a row with names in place of the numbers of classes. Raises InvalidInputError for a number that has none."""
    return {**row, **{column: _named(row[column], column, names) for column, names in classes.items() if column in row}}


def _named(cell: Any, column: str, names: tuple[str, ...]) -> Any:
    if isinstance(cell, list):
        return [_named(one, column, names) for one in cell]
    if not isinstance(cell, int) or isinstance(cell, bool):
        return cell
    if cell == NOBODY:
        return None
    if not 0 <= cell < len(names):
        raise InvalidInputError(f"column {column!r} says class {cell}: the file names {len(names)} classes, numbered from 0")
    return names[cell]
