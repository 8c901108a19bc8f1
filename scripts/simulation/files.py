"""A person's own labelled data: CSV, JSONL, Parquet, npz, or a folder with one folder a class.

Owns what may lie in such a file and the sentences for what may not. Must never split or encode. Called by
`scripts.simulation.datasets`.

| given | answer |
| --- | --- |
| no such file, another suffix, an empty file or folder | refused, with what there is to give |
| no such label or text column | refused, with the columns there are |
| a row without a label | refused, the row named |
| a text column, or one column beside label and id | texts |
| several columns beside label and id | table rows; empty cells count as missing |
| npz | arrays x (n, ...) and y (n,), and test_x with test_y where the split is given |
"""

from __future__ import annotations

import csv
import mimetypes
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError, NotFoundError, NotReadyError
from scripts.simulation.features import Content

SUFFIXES = (".csv", ".jsonl", ".parquet", ".npz")
_ID = "id"


class Labelled(NamedTuple):
    """Items of one category with a label each."""

    category: str
    items: list[Content]
    labels: list[str]


class Arrays(NamedTuple):
    """Items that are numbers already; `test_x` and `test_y` None = not split yet."""

    x: NDArray[Any]
    y: NDArray[Any]
    test_x: NDArray[Any] | None
    test_y: NDArray[Any] | None


def read_file(path: Path, label: str, text: str) -> Labelled | Arrays:
    """Return what lies at `path`. `label` and `text` ('' = guess) name columns. Raises what the table above says."""
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise NotFoundError(f"no data at {path}: give a file ({', '.join(SUFFIXES)}), a folder of class folders or a built-in name")
    if path.suffix == ".npz":
        return _arrays(path)
    readers = {".csv": _csv, ".jsonl": _jsonl, ".ndjson": _jsonl, ".parquet": _parquet}
    if path.suffix not in readers:
        raise InvalidInputError(f"{path.name} is no data that can be read: use {', '.join(SUFFIXES)} or a folder of class folders")
    return _rows(list(readers[path.suffix](path)), path.name, label, text)


def _folder(path: Path) -> Labelled:
    found = [(one, inner) for one in sorted(path.iterdir()) if one.is_dir() for inner in sorted(one.iterdir()) if inner.is_file()]
    if not found:
        raise InvalidInputError(f"{path} has no folders with files in them: give one folder a class, named like the class")
    items = [Content(str(file.relative_to(path)), file.read_bytes(), mimetypes.guess_type(file.name)[0] or "") for _, file in found]
    n_pictures = sum(item.media_type.startswith("image/") for item in items)
    category = "image-classification" if 2 * n_pictures >= len(items) else "text-classification"
    return Labelled(category, items, [one.name for one, _ in found])


def _arrays(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as stored:
            given = {name: stored[name] for name in stored.files if name in ("x", "y", "test_x", "test_y")}
    except (ValueError, OSError, EOFError) as exc:
        raise InvalidInputError(f"{path.name} is no npz of plain arrays: {exc}") from exc
    if not {"x", "y"} <= given.keys() or ("test_x" in given) != ("test_y" in given):
        raise InvalidInputError(f"{path.name} must hold x and y (and test_x with test_y), it holds {', '.join(given) or 'none'}")
    y = given["y"]
    if y.ndim != 1 or given["x"].dtype.kind not in "biuf" or given["x"].ndim < 2:
        raise InvalidInputError(f"{path.name}: x must be numbers (n, ...) and y labels (n,), got {given['x'].shape} and {y.shape}")
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise InvalidInputError(f"{path.name}: row {int((~np.isfinite(y)).argmax())} has no label (y is {y[~np.isfinite(y)][0]})")
    return Arrays(given["x"], y, given.get("test_x"), given.get("test_y"))


def _csv(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            yield from csv.DictReader(file, restkey="", strict=True)
        except (csv.Error, UnicodeDecodeError) as exc:
            raise InvalidInputError(f"{path.name} cannot be read as CSV: {exc}") from exc


def _jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError as exc:
            raise InvalidInputError(f"line {number} of {path.name} is no JSON object: {exc}") from exc


def _parquet(path: Path) -> Iterable[Mapping[str, Any]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as exc:
        raise NotReadyError("reading Parquet needs pyarrow: pip install pyarrow, or give CSV or JSONL") from exc
    try:
        rows: list[Mapping[str, Any]] = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as exc:
        raise InvalidInputError(f"{path.name} cannot be read as Parquet: {exc}") from exc
    return rows


def _rows(rows: list[Mapping[str, Any]], name: str, label: str, text: str) -> Labelled:
    if not rows:
        raise InvalidInputError(f"{name} has no rows")
    columns = [str(column) for column in dict.fromkeys(column for row in rows for column in row) if column]
    for what, wanted in (("label", label), ("text", text)):
        if wanted and wanted not in columns:
            raise InvalidInputError(f"{name} has no column {wanted!r} for --{what}: there are {', '.join(columns)}")
    others = [column for column in columns if column not in (label, _ID)]
    if not others:
        raise InvalidInputError(f"{name} has nothing to learn from beside {', '.join(columns)}")
    is_prose = [not _is_number(row.get(others[0])) for row in rows if row.get(others[0]) not in (None, "")]
    words = text or ("text" if "text" in others else others[0] if len(others) == 1 and any(is_prose) else "")
    labels = [_label(row.get(label), number, name, label) for number, row in enumerate(rows, 1)]
    if words:
        texts = [str(row.get(words) or "").encode() for row in rows]
        items = [Content(f"row {number}", data, "text/plain;charset=utf-8") for number, data in enumerate(texts, 1)]
        return Labelled("text-classification", items, labels)
    cells = ({column: _cell(row.get(column)) for column in others} for row in rows)
    items = [Content(f"row {number}", msgspec.json.encode(row), "application/json") for number, row in enumerate(cells, 1)]
    return Labelled("tables", items, labels)


def _label(value: Any, number: int, name: str, column: str) -> str:
    if value is None or str(value).strip() in ("", "nan", "NaN"):
        raise InvalidInputError(f"row {number} of {name} has no label in column {column!r}: a simulation needs all labels")
    return str(value).strip()


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _cell(value: Any) -> Any:
    return float(value) if isinstance(value, str) and _is_number(value) else value if _is_plain(value) else str(value)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
