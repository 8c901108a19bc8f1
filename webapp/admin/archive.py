"""One file that holds the app: its database as of one moment, and its settings without secrets; and the way back.

Owns the form of a backup: a tar with `manifest.json` first, `settings.toml`, and `web.sqlite` or `web.dump` (pg_dump's custom
format). Must never hold a password or a key, nor media, models or labels' logs, which have their own places (docs/admin.md).
Called by `webapp.admin.backup` and `labelloop backup` and `labelloop restore`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

import msgspec

from labelloop.decoding import decode_json
from labelloop.errors import ConflictError, IntegrityError, InvalidInputError, NotFoundError, SettingsError
from labelloop.settings import AREAS, Settings
from webapp.db.backups import check_sqlite, copy_sqlite
from webapp.db.engine import database_url, plain_postgres_url

SQLITE, DUMP = "web.sqlite", "web.dump"
_SECRET_OPTIONS = re.compile(r"password|secret|token", re.IGNORECASE)  # of a URL; its sslkey is a file's name
_SECRET_FIELDS = re.compile(r"password|secret|token|key", re.IGNORECASE)


class Manifest(msgspec.Struct, frozen=True):
    """What is in a backup; `sha256` of the database's file."""

    schema: int
    created: str
    database: str
    sha256: str
    size_bytes: int


def backup_dir(settings: Settings) -> Path:
    """Return the folder of backups, for this machine's own eyes."""
    folder = Path(settings.state_dir).absolute() / "backups"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def make_archive(settings: Settings, folder: Path, progress: Callable[[float], None]) -> Path:
    """Write a backup into `folder`, 0600, and return it; what is unfinished is never left under a backup's name.

    Raises StorageFullError, SettingsError (pg_dump is missing), IntegrityError.
    """
    now = time.time()
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    target = folder / f"labelloop-{stamp}-{secrets.token_hex(3)}.tar"
    with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as work:
        inside = _copy_database(settings, Path(work), lambda share: progress(0.9 * share))
        digest = _sha256(inside)
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        manifest = Manifest(1, created, inside.name, digest, inside.stat().st_size)
        packed = Path(work) / "packed"
        with os.fdopen(os.open(packed, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            _pack(file, manifest, settings, inside)
        packed.replace(target)
    progress(1.0)
    return target


def _copy_database(settings: Settings, work: Path, progress: Callable[[float], None]) -> Path:
    url = database_url(settings)
    if url.startswith("sqlite"):
        copy_sqlite(Path(url.removeprefix("sqlite:///")), work / SQLITE, progress)
        return work / SQLITE
    _run_postgres(url, "pg_dump", "--format=custom", f"--file={work / DUMP}")
    return work / DUMP


def _run_postgres(url: str, program: str, *argv: str) -> None:
    """Run one of PostgreSQL's own tools; the password goes in a file that only we may read."""
    plain = plain_postgres_url(url)
    password = _password_in(plain)
    if shutil.which(program) is None:
        raise SettingsError(f"{program} is not on this machine: apt-get install postgresql-client, or use your own backup")
    with tempfile.NamedTemporaryFile("w") as file:  # made with mode 0600
        file.write("*:*:*:*:" + re.sub(r"([:\\])", r"\\\1", password) + "\n")
        file.flush()
        argv = (program, *argv, f"--dbname={_without_password(plain)}")
        environment = os.environ | ({"PGPASSFILE": file.name} if password else {})
        done = subprocess.run(argv, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise IntegrityError(f"{program} ended with status {done.returncode}: {done.stderr.strip()[-300:]}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pack(file: Any, manifest: Manifest, settings: Settings, inside: Path) -> None:
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in (("manifest.json", msgspec.json.encode(manifest)), ("settings.toml", safe_settings(settings).encode())):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o600
            tar.addfile(info, io.BytesIO(data))
        tar.add(inside, inside.name)
    file.flush()
    os.fsync(file.fileno())


def safe_settings(settings: Settings) -> str:
    """Return the settings as TOML, without passwords: those in URLs are left out, fields of secrets are emptied."""
    lines = [f"state_dir = {json.dumps(settings.state_dir)}"]
    for area in AREAS:
        values = getattr(settings, area)
        lines += ["", f"[{area}]"]
        lines += [f"{f.name} = {_toml(f.name, getattr(values, f.name))}" for f in msgspec.structs.fields(values)]
    return "\n".join(lines) + "\n"


def _toml(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return json.dumps([_without_password(one) if isinstance(one, str) else one for one in value], ensure_ascii=False)
    if isinstance(value, str):
        is_secret = _SECRET_FIELDS.search(name) is not None and not name.endswith(("_file", "_dir"))
        return json.dumps("" if is_secret else _without_password(value), ensure_ascii=False)
    return repr(value)


def _without_password(text: str) -> str:
    parts = urlsplit(text) if "://" in text else None
    if parts is None or ("@" not in parts.netloc and not parts.query):
        return text
    options = [one for one in parts.query.split("&") if not _SECRET_OPTIONS.search(one.partition("=")[0])]
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}{at}{host}", query="&".join(options)))


def _password_in(url: str) -> str:
    parts = urlsplit(url)
    return unquote(parts.password or "") or parse_qs(parts.query).get("password", [""])[0]


def read_manifest(archive: Path) -> Manifest:
    """Return what a backup says of itself. Raises NotFoundError, InvalidInputError for a file that is none."""
    try:
        with tarfile.open(archive) as tar:
            member = tar.next()
            stream = tar.extractfile(member) if member is not None and member.name == "manifest.json" else None
            if stream is None:
                raise InvalidInputError(f"{archive.name} is no backup of this app: its first entry is no manifest.json")
            return decode_json(Manifest, stream.read(2**20))
    except FileNotFoundError as exc:
        raise NotFoundError(f"there is no file {archive}") from exc
    except tarfile.TarError as exc:
        raise InvalidInputError(f"{archive.name} is no backup of this app: {exc}") from exc


def restore_archive(archive: Path, settings: Settings) -> str:
    """Put a backup's database where the settings say; return what was done. The app must not run meanwhile.

    Raises ConflictError (there is a database already), IntegrityError (the file is damaged), InvalidInputError (the backup is
    of the other kind of database).
    """
    manifest = read_manifest(archive)
    url = database_url(settings)
    if (manifest.database == SQLITE) != url.startswith("sqlite"):
        raise InvalidInputError(f"{archive.name} holds {manifest.database}: set web.database_url to a database of that kind")
    if url.startswith("sqlite"):
        return _restore_sqlite(archive, manifest, Path(url.removeprefix("sqlite:///")))
    with tempfile.TemporaryDirectory() as work:
        dump = _extract(archive, manifest, Path(work) / DUMP)
        _run_postgres(url, "pg_restore", "--exit-on-error", "--single-transaction", "--no-owner", str(dump))
    return f"the database of {manifest.created} is back"


def _restore_sqlite(archive: Path, manifest: Manifest, target: Path) -> str:
    if target.exists():
        raise ConflictError(f"{target} exists: move it away first, nothing was changed")
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = _extract(archive, manifest, target.with_name(f"{target.name}.{secrets.token_hex(4)}"))
    try:
        with closing(sqlite3.connect(beside)) as connection:
            check_sqlite(connection, beside)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    return f"the database of {manifest.created} is back in {target}"


def _extract(archive: Path, manifest: Manifest, target: Path) -> Path:
    """Write the database's file to `target`, 0600. Raises IntegrityError when it is not what the manifest says."""
    with tarfile.open(archive) as tar:
        member = next((one for one in tar if one.name == manifest.database and one.isreg()), None)
        stream = tar.extractfile(member) if member is not None else None
        if stream is None:
            raise IntegrityError(f"{archive.name} has no {manifest.database}: take another backup")
        new = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(new, "wb") as file, contextlib.suppress(tarfile.ReadError):  # cut off: the hash below tells
            shutil.copyfileobj(stream, file)
    if _sha256(target) != manifest.sha256:
        target.unlink()
        raise IntegrityError(f"{archive.name} is damaged: {manifest.database} is not what its manifest says; take another backup")
    return target
