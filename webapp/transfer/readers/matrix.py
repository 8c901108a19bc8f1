"""A matrix of features as a data set: .npy, .npz, CSV of numbers or Parquet → table rows with columns f0, f1, ...

Owns what such a file may be: told by its first bytes, never by its name; arrays of numbers without pickle; read row by row from
disk, so that memory does not grow with it. In .npz, `x` (or the only matrix) holds the features, `y` the labels and `ids` the names
of rows; CSV and Parquet may have columns label and id. Must never load an object array. Called by `webapp.transfer.readers`.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import math
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from labelloop.errors import InvalidInputError
from webapp.db.imports import RowError
from webapp.db.items import NewItem
from webapp.db.projects import Project
from webapp.kinds.catalogue import data_of
from webapp.transfer import rows
from webapp.transfer.readers.base import Read, Source

MOST_COLUMNS = 4096
MOST_ROWS = 10_000_000
MOST_MEMBER_BYTES = 16 * 2**30
ROWS_AT_ONCE = 1000
_FEATURES, _LABELS, _IDS = ("x", "X", "features", "data"), ("y", "labels", "label"), ("ids", "id", "item_id")
_NPY, _ZIP, _PARQUET = b"\x93NUMPY", b"PK\x03\x04", b"PAR1"


class Row(NamedTuple):
    """One row of the file: its numbers, its label and its id where the file brings them."""

    values: Sequence[Any]
    label: Any = None
    item_id: Any = None


def count_rows(path: Path) -> int:
    """Return how many rows a matrix has. Raises InvalidInputError for a file that is none."""
    with _opened(path) as (n, _rows):
        return n


def read_vectors(source: Source) -> Iterator[Read]:
    """Yield the rows from where the import stands. Raises InvalidInputError for a file that is no matrix."""
    job, project = source.job, source.project
    if data_of(project.category) != "row":
        raise InvalidInputError(
            f"a matrix of features becomes table rows, and project {project.slug!r} has none: use category tables"
        )
    with _opened(Path(job.path)) as (_n, found):
        for line, row in enumerate(itertools.islice(found, job.offset_bytes, None), job.offset_bytes + 1):
            yield Read(_item(line, row, project), line, line)


def _item(line: int, row: Row, project: Project) -> NewItem | RowError:
    try:
        values = {f"f{at}": _number(at, value) for at, value in enumerate(row.values)}
        return rows.row_item(values, row.item_id, None, rows.labels_of(project, _label(project, row.label)))
    except InvalidInputError as exc:
        return RowError(line, str(row.item_id if row.item_id is not None else "")[:200], str(exc))


def _number(at: int, value: Any) -> int | float | bool:
    try:
        number = float(value)
    except (TypeError, ValueError) as exc:
        raise InvalidInputError(f"f{at} is {str(value)[:40]!r}: a matrix holds numbers") from exc
    if not math.isfinite(number):
        raise InvalidInputError(f"f{at} is {number}: replace it with a finite number")
    return value if isinstance(value, int | float) else number


def _label(project: Project, given: Any) -> str | None:
    """Return the label that a file means: by name, or by its place among the project's labels."""
    if given is None or given == "":
        return None
    name = str(given)
    place = name.removesuffix(".0")
    if name in project.labels or not place.isdigit():
        return name
    if place in project.labels:
        return place
    if int(place) >= len(project.labels):
        raise InvalidInputError(f"label number {place}: the project has {len(project.labels)} labels, 0 is the first")
    return project.labels[int(place)]


# ---------------------------------------------------------------- files


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[int, Iterator[Row]]]:
    """Yield how many rows there are, and the rows. Raises InvalidInputError."""
    with path.open("rb") as file:
        head = file.read(6)
    try:
        if head == _NPY:
            x = _mapped(path, "the matrix")
            yield len(x), _rows_of(x, None, None)
        elif head.startswith(_ZIP):
            with _npz(path) as arrays:
                yield len(arrays[0]), _rows_of(*arrays)
        elif head.startswith(_PARQUET):
            yield _parquet(path)
        else:
            yield _csv(path)
    except (ValueError, OSError, zipfile.BadZipFile, EOFError, csv.Error, UnicodeDecodeError, SyntaxError) as exc:
        raise InvalidInputError(f"not a matrix of numbers that can be read: {exc}") from exc


def _mapped(path: Path, name: str, dimensions: int = 2) -> np.ndarray:
    """Return an array that stays on disk. Raises InvalidInputError for objects, too many rows or columns."""
    x = np.load(path, mmap_mode="r", allow_pickle=False)
    if dimensions == 2 and x.ndim == 1:
        x = x.reshape(-1, 1)
    if x.ndim != dimensions:
        raise InvalidInputError(f"{name} has {x.ndim} dimensions: give one row an item, as (rows, columns)")
    if dimensions == 2 and x.dtype.kind not in "fiub":
        raise InvalidInputError(f"{name} holds {x.dtype}: give numbers")
    _check_size(*((*x.shape, 1)[:2]))
    return x


def _check_size(n: int, columns: int) -> None:
    if n > MOST_ROWS:
        raise InvalidInputError(f"{n} rows: at most {MOST_ROWS} are taken, cut the matrix into several files")
    if not 1 <= columns <= MOST_COLUMNS:
        raise InvalidInputError(f"{columns} columns: use 1 to {MOST_COLUMNS}")


@contextlib.contextmanager
def _npz(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray | None, np.ndarray | None]]:
    """Unpack the arrays beside the upload, so that they can stay on disk, and yield features, labels and ids."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="matrix-") as folder, zipfile.ZipFile(path) as archive:
        members = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
        x = next((name for name in _FEATURES if name in members), None)
        if x is None:
            others = [name for name in members if name not in (*_LABELS, *_IDS)]
            if len(others) != 1:
                raise InvalidInputError(f"arrays {sorted(members)}: call the matrix of features x")
            x = others[0]
        found = [_unpacked(archive, members[x], Path(folder))]
        y, ids = (next((name for name in names if name in members), None) for names in (_LABELS, _IDS))
        more = [None if name is None else _unpacked(archive, members[name], Path(folder), 1) for name in (y, ids)]
        for name, array in zip((y, ids), more, strict=True):
            if array is not None and len(array) != len(found[0]):
                raise InvalidInputError(f"{name} has {len(array)} entries for {len(found[0])} rows: give one a row")
        yield found[0], more[0], more[1]


def _unpacked(archive: zipfile.ZipFile, member: str, folder: Path, dimensions: int = 2) -> np.ndarray:
    size = archive.getinfo(member).file_size
    if size > MOST_MEMBER_BYTES:
        raise InvalidInputError(f"{member} has {size} bytes: at most {MOST_MEMBER_BYTES} are taken")
    target = folder / f"{len(list(folder.iterdir()))}.npy"
    with archive.open(member) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 2**20)
    return _mapped(target, member, dimensions)


def _rows_of(x: np.ndarray, y: np.ndarray | None, ids: np.ndarray | None) -> Iterator[Row]:
    for start in range(0, len(x), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        nothing = itertools.repeat(None)
        labels, names = (nothing if one is None else one[part].tolist() for one in (y, ids))
        for values, label, name in zip(x[part].tolist(), labels, names, strict=False):
            yield Row(values, label, name)


def _parquet(path: Path) -> tuple[int, Iterator[Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as exc:
        raise InvalidInputError(f"not a Parquet file that can be read: {exc}") from exc
    names = file.schema_arrow.names
    label, item_id = (next((name for name in some if name in names), None) for some in (_LABELS, _IDS))
    features = [name for name in names if name not in (label, item_id)]
    _check_size(file.metadata.num_rows, len(features))
    for name in features:
        kind = file.schema_arrow.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise InvalidInputError(f"column {name!r} holds {kind}: a matrix holds numbers; leave it out, or import it as a table")

    def found() -> Iterator[Row]:
        for batch in file.iter_batches(ROWS_AT_ONCE):
            columns = {name: batch.column(name).to_pylist() for name in names}
            for at in range(batch.num_rows):
                yield Row(
                    [columns[name][at] for name in features], *(columns[one][at] if one else None for one in (label, item_id))
                )

    return file.metadata.num_rows, found()


def _csv(path: Path) -> tuple[int, Iterator[Row]]:
    """Read numbers with commas, semicolons or tabs between them; a first line that is no numbers names the columns."""
    with path.open("rb") as file:
        first = file.readline(2**20).decode("utf-8-sig")
        n = 1 + sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(2**20), b""))
    delimiter = max(",;\t", key=first.count)
    cells = next(csv.reader([first], delimiter=delimiter), [])
    names = [] if all(_is_number(cell) for cell in cells) else cells
    label, item_id = (next((names.index(name) for name in some if name in names), None) for some in (_LABELS, _IDS))
    features = [at for at in range(len(cells)) if at not in (label, item_id)]
    _check_size(n, len(features))

    def found() -> Iterator[Row]:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter)
            if names:
                next(reader)
            for row in filter(None, reader):
                if len(row) != len(cells):
                    yield Row([f"{len(row)} cells where {len(cells)} are"])
                    continue
                more = (row[at] if at is not None else None for at in (label, item_id))
                yield Row([rows.cell_value(row[at]) for at in features], *more)

    return n - bool(names), found()


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
