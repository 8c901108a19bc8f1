"""Imports as a stream of rows, each with the place where the next one begins: one format a module. `formats` names them all.

No reader may hold a whole file in memory, nor stop at a bad row: it becomes a RowError and the next one is read; each can start
again at any place it has named. Called by `webapp.transfer.importer` and, for totals, by `uploads`.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import cast

import msgspec

from webapp.transfer.formats import reader_of
from webapp.transfer.readers.archive import Archive
from webapp.transfer.readers.base import Reach, Read, Source

__all__ = ["Reach", "Read", "Source", "read_rows", "size_of"]


def read_rows(source: Source) -> Generator[Read, None, None]:
    """Return the rows of an import from where it stands. Raises InvalidInputError when the file as a whole cannot be read."""
    return cast(Generator[Read, None, None], reader_of(source.job.kind)(source))


def size_of(kind: str, path: Path, name: str = "upload") -> int:
    """Return what the places of a file run up to, 0 = only reading tells. Raises InvalidInputError for a broken file."""
    if kind in ("zip", "voc", "yolo"):
        with Archive(path, name, 0) as archive:
            return len(archive.entries) if kind == "zip" else 0
    if kind == "folder":
        return len(msgspec.json.decode((path / "names.json").read_bytes()))
    if kind == "matrix":
        from webapp.transfer.readers.matrix import count_rows as count_vectors

        return count_vectors(path)
    if kind == "parquet":
        from webapp.transfer.readers.parquet import count_rows

        return count_rows(path)
    return 0 if kind in ("coco", "label-studio") else path.stat().st_size
