"""Uploads on their way to disk: streamed beside the database, then queued as imports.

Owns the folder `uploads` of the state folder. Must never hold a large upload in memory, nor use a person's file name as a path.
Called by the imports endpoint.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

import flask
import msgspec
from werkzeug.datastructures import FileStorage

from labelloop.errors import InvalidInputError, StorageFullError
from webapp.db import imports
from webapp.db.engine import Database
from webapp.db.imports import ImportJob
from webapp.db.projects import Project
from webapp.rooms import rooms, upload_dir
from webapp.transfer.drops import drop_upload
from webapp.transfer.formats import IMPORTS, check_import
from webapp.transfer.readers import Reach, size_of
from webapp.transfer.readers.files import check_folder
from webapp.transfer.sources import read_source

_KINDS = {ending: form.name for form in IMPORTS.values() for ending in form.endings}
_DOCUMENTS = (*_KINDS, ".json")  # go straight to the upload folder, whatever they are
_SPOOLED_BYTES = 256 * 1024
SOURCE_OPTIONS = {"server-folder": "folder", "listing": "url", "sql": "source"}


class UploadRequest(flask.Request):
    """A request whose large files go straight to the upload folder, so that accepting one is a rename."""

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        folder = upload_dir(rooms().settings)
        if PurePosixPath(filename or "").suffix.lower() in _DOCUMENTS:
            return tempfile.NamedTemporaryFile(dir=folder, prefix="part-")  # type: ignore[return-value]
        return tempfile.SpooledTemporaryFile(_SPOOLED_BYTES, dir=str(folder))


def kind_of(name: str) -> str | None:
    """Return what kind of import a file of this name is, None = one item by itself (an image, a text)."""
    return _KINDS.get(PurePosixPath(name).suffix.lower())


def queue_uploads(
    database: Database, folder: Path, project: Project, user_id: int, files: Sequence[FileStorage], options: Mapping[str, Any]
) -> list[ImportJob]:
    """Queue every uploaded table or archive as an import of its own, and all single files together as one.

    Raises InvalidInputError when there is nothing in it, StorageFullError.
    """
    given = [file for file in files if file.filename]
    if not given:
        raise InvalidInputError("no file came: send at least one in the field 'file'")
    forced = options.get("kind")
    singles = [file for file in given if (forced or kind_of(file.filename or "")) is None]
    jobs = []
    for file in given:
        kind = forced or kind_of(file.filename or "")
        if kind is not None:
            path = _keep(folder, file)
            jobs.append(_queue(database, project, user_id, kind, file.filename or "upload", path, options))
    if singles:
        path = _keep_folder(folder, singles)
        name = singles[0].filename or "upload"
        name = name if len(singles) == 1 else f"{name} and {len(singles) - 1} more"
        jobs.append(_queue(database, project, user_id, "folder", name, path, options))
    return jobs


def queue_source(
    database: Database, reach: Reach, project: Project, user_id: int, kind: str, options: Mapping[str, Any]
) -> ImportJob:
    """Queue an import of what lies elsewhere: a folder on the server, an address, a SQL table. Raises InvalidInputError."""
    check_import(project, kind, is_source=True)
    name = str(options.get(SOURCE_OPTIONS[kind]) or "")
    if not name:
        raise InvalidInputError(f"a {kind} import needs {SOURCE_OPTIONS[kind]!r}")
    if kind == "server-folder":
        check_folder(Path(name), reach.allowed_folders)
    if kind == "sql":
        read_source(reach.sources_dir, name, project.slug)
    with database.write() as tx:
        return imports.add_job(tx, project.id, user_id, kind, name[:200], "", options, 0, time.time())


def _queue(
    database: Database, project: Project, user_id: int, kind: str, name: str, path: Path, options: Mapping[str, Any]
) -> ImportJob:
    try:
        check_import(project, kind, is_source=False)
        total = size_of(kind, path, name)
    except InvalidInputError as exc:
        drop_upload(path)
        raise exc if name in str(exc) else InvalidInputError(f"{name!r}: {exc}") from exc
    with database.write() as tx:
        return imports.add_job(tx, project.id, user_id, kind, name[:200], str(path), options, total, time.time())


def _keep(folder: Path, file: FileStorage) -> Path:
    path = folder / f"upload-{secrets.token_hex(12)}"
    try:
        file.stream.flush()
        source = getattr(file.stream, "name", None)
        if isinstance(source, str) and Path(source).parent == folder:
            os.link(source, path)
        else:
            file.save(path)
    except OSError as exc:
        raise StorageFullError(f"cannot keep the upload: {exc.strerror}") from exc
    return path


def _keep_folder(folder: Path, files: Sequence[FileStorage]) -> Path:
    path = folder / f"upload-{secrets.token_hex(12)}"
    try:
        path.mkdir()
        for at, file in enumerate(files):
            file.save(path / str(at))
        (path / "names.json").write_bytes(msgspec.json.encode([file.filename for file in files]))
    except OSError as exc:
        raise StorageFullError(f"cannot keep the upload: {exc.strerror}") from exc
    return path
