"""Files that only grow, whose lengths are a checkpoint: what a killed export goes on from.

Owns one folder an export. Must never trust what lies behind the lengths it was given: it is cut off. Called by the writers.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from labelloop.errors import StorageFullError

COPY_BYTES = 2**20


class Parts:
    """The files of one export, by name."""

    def __init__(self, folder: Path, lengths: Mapping[str, int]) -> None:
        """Open the folder at a checkpoint; {} = from the beginning. Raises StorageFullError."""
        self.folder = folder
        self._open: dict[str, IO[bytes]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in folder.iterdir():
                if path.name not in lengths:
                    path.unlink()
            for name, length in lengths.items():
                os.truncate(folder / name, length)
        except OSError as exc:
            raise StorageFullError(f"cannot keep an export in {folder}: {exc.strerror}") from exc

    def append(self, name: str, data: bytes) -> int:
        """Write behind what is there; return where it begins. Raises StorageFullError."""
        file = self._file(name)
        begin = file.tell()
        try:
            file.write(data)
        except OSError as exc:
            raise StorageFullError(f"cannot keep an export in {self.folder}: {exc.strerror}") from exc
        return begin

    def length(self, name: str) -> int:
        """Return a file's length."""
        return self._file(name).tell()

    def path(self, name: str) -> Path:
        """Return where a file is, with all that was written in it."""
        self._file(name).flush()
        return self.folder / name

    def names(self) -> list[str]:
        """Return the names of all files."""
        return sorted(self._open)

    def checkpoint(self) -> dict[str, int]:
        """Return the lengths, once everything is with the operating system. Raises StorageFullError."""
        try:
            for file in self._open.values():
                file.flush()
        except OSError as exc:
            raise StorageFullError(f"cannot keep an export in {self.folder}: {exc.strerror}") from exc
        return {path.name: path.stat().st_size for path in self.folder.iterdir()}

    def close(self) -> None:
        """Close every file."""
        for file in self._open.values():
            file.close()
        self._open.clear()

    def drop(self) -> None:
        """Close and delete everything."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, name: str) -> IO[bytes]:
        if name not in self._open:
            try:
                self._open[name] = (self.folder / name).open("ab")
            except OSError as exc:
                raise StorageFullError(f"cannot keep an export in {self.folder}: {exc.strerror}") from exc
        return self._open[name]


def copy_into(out: IO[bytes], path: Path) -> None:
    """Copy a file to the end of another."""
    with path.open("rb") as file:
        shutil.copyfileobj(file, out, COPY_BYTES)
