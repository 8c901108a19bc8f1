"""Files as items: a zip of them, an uploaded folder, a folder on the server; labels by folder on wish.

Owns how a file becomes an item. Must never use a file's name as a path to write to. Called by `read_rows`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from labelloop.errors import InvalidInputError
from webapp.kinds.catalogue import data_of
from webapp.transfer import contents, rows
from webapp.transfer.pictures import told_size
from webapp.transfer.readers.archive import Archive, is_wanted
from webapp.transfer.readers.base import Found, Read, Source, attempt


def read_zip(source: Source) -> Iterator[Read]:
    """Yield a zip's items; the offset counts items: files, or pairs of files."""
    job = source.job
    with Archive(Path(job.path), job.name, source.max_item_bytes) as archive:
        found = contents.items_in(source.project, [entry.filename for entry in archive.entries])

        def read(number: int) -> bytes:
            return archive.read(archive.entries[number])

        for at, files in enumerate(found[job.offset_bytes :], job.offset_bytes):
            yield attempt(at + 1, files.name, at + 1, _files_item, source, files, read)._replace(total=len(found))


def read_folder(source: Source) -> Iterator[Read]:
    """Yield the single files of one upload, kept under their numbers."""
    folder = Path(source.job.path)
    names = msgspec.json.decode((folder / "names.json").read_bytes(), type=list[str])
    found = contents.items_in(source.project, names)

    def read(number: int) -> bytes:
        return read_bounded(folder / str(number), source.max_item_bytes)

    for at, files in enumerate(found[source.job.offset_bytes :], source.job.offset_bytes):
        yield attempt(at + 1, files.name, at + 1, _files_item, source, files, read)._replace(total=len(found))


def read_server_folder(source: Source) -> Iterator[Read]:
    """Yield the files below a folder on the server, by name; a link to elsewhere is told and left out. Raises InvalidInputError."""
    top = check_folder(Path(str(source.job.options.get("folder"))), source.reach.allowed_folders)
    for at, path in enumerate(_walk(top)):
        if at >= source.job.offset_bytes:
            yield attempt(at + 1, path, at + 1, _server_item, source, top, path)


def check_folder(folder: Path, allowed: tuple[str, ...]) -> Path:
    """Return a folder, resolved, that lies in one of those an operator allowed. Raises InvalidInputError."""
    if not allowed:
        raise InvalidInputError("folders on the server are closed: an operator names some in web.allowed_import_folders")
    try:
        found = folder.resolve()
        is_open = folder.is_absolute() and any(found.is_relative_to(Path(one).resolve()) for one in allowed) and found.is_dir()
    except OSError:  # a name that no file system takes
        is_open = False
    if not is_open:
        raise InvalidInputError(f"folder {str(folder)[:200]!r}: name a folder below those of web.allowed_import_folders")
    return found


def _walk(top: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(top):
        folders.sort()
        for name in sorted(names):
            path = (Path(folder) / name).relative_to(top).as_posix()
            if is_wanted(path):
                yield path


def _server_item(source: Source, top: Path, name: str) -> Found:
    path = top / name
    if not path.resolve().is_relative_to(top):
        raise InvalidInputError("it is a link to a place outside the folder: copy the file itself")
    try:
        return file_item(source, name.encode("utf-8", "replace").decode(), read_bounded(path, source.max_item_bytes))
    except OSError as exc:
        raise InvalidInputError(f"it cannot be read: {exc.strerror}") from exc


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """Return a file's bytes. Raises InvalidInputError for what is no plain file, or too large; OSError."""
    if not path.is_file():
        raise InvalidInputError("it is no plain file: leave it out")
    with path.open("rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise InvalidInputError(f"more than {most_bytes} bytes: make it smaller")
    return data


def _files_item(source: Source, files: contents.Files, read: Callable[[int], bytes]) -> Found:
    if len(files.numbers) == 1:
        return file_item(source, files.name, read(files.numbers[0] or 0))
    return Found(contents.item_of_files(source.project, source.media, files, read, _folder_label(source, files.name)))


def file_item(source: Source, name: str, data: bytes) -> Found:
    """Return a file as an item, with a picture's size. Raises InvalidInputError, UnreadableItemError."""
    item = contents.item_of_file(source.project, source.media, name, data, _folder_label(source, name))
    return Found(item, told_size(data) if data_of(source.project.category) == "image" else None)


def _folder_label(source: Source, name: str) -> tuple[str, ...] | None:
    if not source.job.options.get("labels_by_folder"):
        return None
    parts = name.split("/")
    if len(parts) < 2:
        raise InvalidInputError("it lies in no folder, so it has no label: put it into a folder named like its label")
    return rows.labels_of(source.project, parts[-2])
