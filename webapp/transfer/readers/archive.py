"""Zip archives of strangers, read entry by entry: no path out of them, no link, no bomb.

Owns the limits of an archive. Must never write an entry under its own name. Called by the readers whose format is a zip.
"""

from __future__ import annotations

import contextlib
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Self

from labelloop.errors import InvalidInputError, UnreadableItemError

MOST_ENTRIES = 2_000_000
MOST_DIRECTORY_BYTES = 192 * 2**20  # of an honest list of so many; all of it is read before one entry is looked at
MOST_RATIO = 400  # of a large entry: text compresses to a hundredth, nothing that people label to less
SMALL_BYTES = 2**20
MOST_STREAM_BYTES = 64 * 2**30
ZIP_ERRORS = (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError, zlib.error, ValueError)


class Archive:
    """A zip, open. `entries` are its files in its order, without folders and hidden ones."""

    def __init__(self, path: Path, name: str, max_item_bytes: int) -> None:
        """Open it. Raises InvalidInputError for what is no zip, or has too many entries."""
        self._max_item_bytes = max_item_bytes
        try:
            if (size := _directory_bytes(path)) > MOST_DIRECTORY_BYTES:
                raise InvalidInputError(f"{name!r} lists its files in {size} bytes: at most {MOST_ENTRIES} files are taken, cut it")
            self._zip = zipfile.ZipFile(path)
        except ZIP_ERRORS as exc:
            raise InvalidInputError(f"{name!r} is not a zip archive: {exc}") from exc
        self.entries = [entry for entry in self._zip.infolist() if not entry.is_dir() and is_wanted(entry.filename)]
        if len(self.entries) > MOST_ENTRIES:
            self._zip.close()
            raise InvalidInputError(f"{name!r} has {len(self.entries)} files: at most {MOST_ENTRIES} are taken, cut it")
        self._by_name: dict[str, zipfile.ZipInfo] | None = None
        self._by_end: dict[str, zipfile.ZipInfo] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def named(self, *suffixes: str) -> Iterator[zipfile.ZipInfo]:
        """Yield the entries whose names end so, in the archive's order."""
        return (entry for entry in self.entries if entry.filename.lower().endswith(suffixes))

    def find(self, name: str) -> zipfile.ZipInfo | None:
        """Return the entry of this name."""
        if self._by_name is None:
            self._by_name = {entry.filename: entry for entry in self.entries}
        return self._by_name.get(name)

    def find_file(self, name: str) -> zipfile.ZipInfo | None:
        """Return the entry whose path ends with `name`: the shortest path where there are several."""
        if self._by_end is None:
            self._by_end = {}
            for entry in sorted(self.entries, key=lambda entry: -len(entry.filename)):
                self._by_end[PurePosixPath(entry.filename).name] = entry
        found = self.find(name) or self.find(f"images/{name}") or self._by_end.get(PurePosixPath(name).name)
        return found if found is not None and f"/{found.filename}".endswith(f"/{PurePosixPath(name)}") else None

    @contextlib.contextmanager
    def stream(self, entry: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
        """Yield a large entry as a stream. Raises InvalidInputError, UnreadableItemError (broken)."""
        check_entry(entry, MOST_STREAM_BYTES)
        try:
            with self._zip.open(entry) as file:
                yield file
        except ZIP_ERRORS as exc:
            raise UnreadableItemError(f"{entry.filename!r} cannot be unpacked: {exc}") from exc

    def read(self, entry: zipfile.ZipInfo) -> bytes:
        """Return an entry's bytes. Raises InvalidInputError (its name, size or ratio), UnreadableItemError (broken)."""
        check_entry(entry, self._max_item_bytes)
        try:
            with self._zip.open(entry) as file:
                data = file.read(self._max_item_bytes + 1)
        except ZIP_ERRORS as exc:
            raise UnreadableItemError(f"cannot be unpacked: {exc}") from exc
        if len(data) > self._max_item_bytes:
            raise InvalidInputError(f"more than {self._max_item_bytes} bytes: make it smaller")
        return data

    def text(self, entry: zipfile.ZipInfo) -> str:
        """Return an entry as UTF-8 text. Raises InvalidInputError, UnreadableItemError."""
        try:
            return self.read(entry).decode("utf-8-sig")
        except UnicodeDecodeError as exc:
            raise InvalidInputError("it is not UTF-8: save the file as UTF-8") from exc


def _directory_bytes(path: Path) -> int:
    """Return how many bytes the list of an archive's files says to have, which is how many `zipfile` reads at once."""
    with path.open("rb") as file:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # what ZipFile itself goes by; there is no public way
    return int(end[5]) if end else 0


def check_entry(entry: zipfile.ZipInfo, max_item_bytes: int) -> None:
    """Raise InvalidInputError for an entry that points out of the archive, is a link, or is a bomb."""
    parts = PurePosixPath(entry.filename.replace("\\", "/")).parts
    if ".." in parts or entry.filename.startswith(("/", "\\")) or (parts and parts[0].endswith(":")):
        raise InvalidInputError("its name points out of the archive: pack it again without '..' and leading '/'")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise InvalidInputError("it is a symbolic link: pack the file itself")
    if entry.file_size > max_item_bytes:
        raise InvalidInputError(f"{entry.file_size} bytes: at most {max_item_bytes} are taken")
    if entry.file_size > SMALL_BYTES and entry.file_size > MOST_RATIO * max(entry.compress_size, 1):
        raise InvalidInputError(f"{entry.compress_size} bytes unpack to {entry.file_size}: that is a zip bomb")


def is_wanted(name: str) -> bool:
    """Return whether a file is no hidden one."""
    return not any((part.startswith(".") and part != "..") or part.startswith("__MACOSX") for part in name.split("/"))
