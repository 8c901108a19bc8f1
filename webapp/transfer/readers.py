"""Uploaded files as a stream of rows, each with the place where the next one begins.

Owns the formats: CSV, JSONL, a list of links, a zip or folder of files. Must never hold a whole file in memory, and never stop at a
bad row: it becomes a RowError and the next one is read. Every reader can start again at any place it has named.
"""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec

from labelloop.errors import InvalidInputError, LabelloopError, UnreadableItemError
from webapp.db.imports import ImportJob, RowError
from webapp.db.items import NewItem
from webapp.db.projects import Project
from webapp.media import MediaStore, image_extension
from webapp.transfer import rows

csv.field_size_limit(2**20)
_TEXT_COLUMNS = ("text", "content", "sentence", "tweet", "message")
_LINK_COLUMNS = ("link", "url", "image", "path", "href")
_ID_COLUMNS = ("id", "item_id")
_LABEL_COLUMNS = ("label", "labels")
MOST_LINE_BYTES = 8 * 2**20


class Read(NamedTuple):
    """One row read: the item or why not, where the next row begins, and how many rows came so far."""

    row: NewItem | RowError
    offset: int
    line: int


class Source(NamedTuple):
    """What a reader reads from."""

    job: ImportJob
    project: Project
    media: MediaStore
    max_item_bytes: int


def read_rows(source: Source) -> Iterator[Read]:
    """Return the rows of an import from where it stands. Raises InvalidInputError when the file as a whole cannot be read."""
    readers: dict[str, Callable[[Source], Iterator[Read]]] = {
        "csv": _read_csv,
        "jsonl": _read_jsonl,
        "links": _read_links,
        "zip": _read_zip,
        "folder": _read_folder,
    }
    return readers[source.job.kind](source)


def _attempt(line: int, name: str, offset: int, make: Callable[..., NewItem], *given: Any) -> Read:
    try:
        return Read(make(*given), offset, line)
    except LabelloopError as exc:
        return Read(RowError(line, _shown(name), _shown(str(exc), 1000)), offset, line)


def _shown(text: str, most: int = 200) -> str:
    """Return text that any database stores: no broken characters, no NUL, not too long."""
    return text[:most].encode("utf-8", "replace").decode().replace("\0", "?")


# ---------------------------------------------------------------- lines


class _Lines:
    """Lines of a file as text, with the byte offset behind the last one handed out; a byte that is no UTF-8 becomes a surrogate."""

    def __init__(self, file: IO[bytes], offset: int) -> None:
        file.seek(offset)
        self._file = file
        self.offset = offset

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = self._file.readline(MOST_LINE_BYTES)
        if not raw:
            raise StopIteration
        text = raw.decode("utf-8", "surrogateescape")
        if not self.offset:
            text = text.removeprefix("\ufeff")
        self.offset += len(raw)
        return text


def _read_jsonl(source: Source) -> Iterator[Read]:
    job, project = source.job, source.project
    with Path(job.path).open("rb") as file:
        lines = _Lines(file, job.offset_bytes)
        for line, text in enumerate(lines, job.line + 1):
            if text.strip():
                yield _attempt(line, "", lines.offset, _object_item, project, text)


def _object_item(project: Project, text: str) -> NewItem:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as exc:
        raise InvalidInputError(f"not a JSON object: {exc}") from exc
    if not isinstance(value, dict):
        raise InvalidInputError("not a JSON object: write one object a line")
    return rows.item_from_object(project, value)


def _read_links(source: Source) -> Iterator[Read]:
    job = source.job
    with Path(job.path).open("rb") as file:
        lines = _Lines(file, job.offset_bytes)
        for line, text in enumerate(lines, job.line + 1):
            link = text.strip()
            if link and not link.startswith("#"):
                yield _attempt(line, link, lines.offset, rows.link_item, link, None, None, None)


# ---------------------------------------------------------------- CSV


class Columns(NamedTuple):
    """Which column is what, by number; `row` are the columns of a table row."""

    names: tuple[str, ...]
    id: int | None
    label: int | None
    text: int | None
    link: int | None
    row: tuple[int, ...]


def choose_columns(project: Project, header: list[str], options: dict[str, Any]) -> Columns:
    """Return which column is what: as chosen, or by the usual names. Raises InvalidInputError listing what there is."""
    names = [name.strip() for name in header]
    if len(set(names)) != len(names):
        raise InvalidInputError(f"the CSV names a column twice: {', '.join(names[:20])}")

    def find(option: str, usual: tuple[str, ...], is_needed: bool = False) -> int | None:
        wanted = options.get(option)
        if wanted and wanted not in names:
            raise InvalidInputError(f"the CSV has no column {wanted!r}: it has {', '.join(names[:20])}")
        found = wanted or next((name for name in names if name.lower() in usual), None)
        if found is None and is_needed:
            raise InvalidInputError(
                f"the CSV has no column {usual[0]!r}: it has {', '.join(names[:20])}; name the right one with {option}"
            )
        return names.index(found) if found is not None else None

    item_id, label = find("id_column", _ID_COLUMNS), find("label_column", _LABEL_COLUMNS)
    is_table, is_text = project.category == "tables", project.category == "text-classification"
    text = find("text_column", _TEXT_COLUMNS, is_needed=not options.get("link_column")) if is_text else None
    link = find("link_column", _LINK_COLUMNS, is_needed=True) if text is None and not is_table else None
    chosen = [name for name in str(options.get("row_columns") or "").split(",") if name]
    for name in chosen:
        if name not in names:
            raise InvalidInputError(f"the CSV has no column {name!r}: it has {', '.join(names[:20])}")
    row = tuple(i for i, name in enumerate(names) if (name in chosen if chosen else i not in (item_id, label)))
    return Columns(tuple(names), item_id, label, text, link, row if is_table else ())


def _read_csv(source: Source) -> Iterator[Read]:
    job, project = source.job, source.project
    delimiter = str(job.options.get("delimiter") or ("\t" if job.name.endswith(".tsv") else ","))
    with Path(job.path).open("rb") as file:
        head = _Lines(file, 0)
        header = next(csv.reader(head, delimiter=delimiter), None)
        if not header:
            raise InvalidInputError("the CSV is empty: its first line must name the columns")
        columns = choose_columns(project, header, job.options)
        lines = _Lines(file, job.offset_bytes or head.offset)
        yield from _csv_rows(project, columns, lines, delimiter, job)


def _csv_rows(project: Project, columns: Columns, lines: _Lines, delimiter: str, job: ImportJob) -> Iterator[Read]:
    line, separator = job.line, str(job.options.get("label_separator") or "|")
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        line += 1
        try:
            cells = next(reader, None)
        except csv.Error as exc:
            reader = csv.reader(lines, delimiter=delimiter)
            yield Read(RowError(line, "", f"not a CSV row: {exc}"), lines.offset, line)
            continue
        if cells is None:
            return
        if cells:
            yield _attempt(line, cells[0], lines.offset, _csv_item, project, columns, cells, separator)


def _csv_item(project: Project, columns: Columns, cells: list[str], separator: str) -> NewItem:
    if len(cells) != len(columns.names):
        raise InvalidInputError(f"{len(cells)} cells where the header names {len(columns.names)} columns")
    item_id = cells[columns.id] if columns.id is not None else None
    labels = rows.labels_of(project, cells[columns.label], separator) if columns.label is not None else None
    if columns.text is not None:
        return rows.text_item(cells[columns.text], item_id, None, labels)
    if columns.link is not None:
        return rows.link_item(cells[columns.link], item_id, None, labels)
    return rows.row_item({columns.names[i]: rows.cell_value(cells[i]) for i in columns.row}, item_id, None, labels)


# ---------------------------------------------------------------- files


def _read_zip(source: Source) -> Iterator[Read]:
    job = source.job
    try:
        archive = zipfile.ZipFile(job.path)
    except (zipfile.BadZipFile, OSError) as exc:
        raise InvalidInputError(f"{job.name!r} is not a zip archive: {exc}") from exc
    with archive:
        entries = [e for e in archive.infolist() if not e.is_dir() and _is_wanted(e.filename)]
        for at, entry in enumerate(entries[job.offset_bytes :], job.offset_bytes):
            yield _attempt(at + 1, entry.filename, at + 1, _zip_item, source, archive, entry)


def _zip_item(source: Source, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NewItem:
    if entry.file_size > source.max_item_bytes:
        raise InvalidInputError(f"{entry.file_size} bytes: at most {source.max_item_bytes} are taken")
    try:
        with archive.open(entry) as file:
            data = file.read(source.max_item_bytes + 1)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as exc:
        raise UnreadableItemError(f"cannot be unpacked: {exc}") from exc
    return _file_item(source, entry.filename, data)


def _read_folder(source: Source) -> Iterator[Read]:
    folder = Path(source.job.path)
    names = msgspec.json.decode((folder / "names.json").read_bytes(), type=list[str])
    for at, name in enumerate(names[source.job.offset_bytes :], source.job.offset_bytes):
        yield _attempt(at + 1, name, at + 1, _stored_item, source, name, folder / str(at))


def _stored_item(source: Source, name: str, path: Path) -> NewItem:
    return _file_item(source, name, path.read_bytes())


def _file_item(source: Source, name: str, data: bytes) -> NewItem:
    project = source.project
    if len(data) > source.max_item_bytes:
        raise InvalidInputError(f"more than {source.max_item_bytes} bytes: make it smaller")
    labels = None
    if source.job.options.get("labels_by_folder"):
        parts = name.split("/")
        if len(parts) < 2:
            raise InvalidInputError("it lies in no folder, so it has no label: put it into a folder named like its label")
        labels = rows.labels_of(project, parts[-2])
    if project.category == "image-classification":
        return rows.link_item(source.media.save(project.slug, data, image_extension(data)), name, name, labels)
    text = data.decode("utf-8", "surrogateescape")
    if project.category == "text-classification":
        return rows.text_item(text, name, name, labels)
    try:
        return rows.row_item(json.loads(text), name, name, labels)
    except ValueError as exc:
        raise InvalidInputError(f"not a JSON object: {exc}") from exc


def _is_wanted(name: str) -> bool:
    return not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def size_of(kind: str, path: Path) -> int:
    """Return the `total` that the places of a file of this kind run up to. Raises InvalidInputError for a broken archive."""
    if kind == "zip":
        try:
            with zipfile.ZipFile(path) as archive:
                return sum(not e.is_dir() and _is_wanted(e.filename) for e in archive.infolist())
        except zipfile.BadZipFile as exc:
            raise InvalidInputError(f"this is not a zip archive: {exc}") from exc
    if kind == "folder":
        return len(msgspec.json.decode((path / "names.json").read_bytes()))
    return path.stat().st_size
