"""Backups of the app: of one moment while people write, without secrets, and back again; on both databases."""

from __future__ import annotations

import sqlite3
import tarfile
import threading
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from labelloop.errors import ConflictError, IntegrityError, InvalidInputError
from labelloop.settings import Settings, WebSettings
from tests.contract.web_world import World, make_settings
from webapp.admin import archive, backup
from webapp.db import backups
from webapp.db.engine import open_database


def test_a_backup_is_one_moment_while_people_write_and_comes_back(world: World, tmp_path: Path, request: Any) -> None:
    slug = world.project(texts=40)
    stop = threading.Event()

    def label() -> None:
        while not stop.is_set():
            items = world.admin.call("POST", f"/projects/{slug}/next", {"n": 1})["items"]
            if items:
                world.admin.answer(slug, items[0], "owl")

    asked = world.admin.call("POST", "/admin/backups", {}, 202)
    world.admin.call("POST", "/admin/backups", {}, 409)
    world.admin.call("GET", f"/admin/backups/{asked['id']}/file", None, 404)
    writer = threading.Thread(target=label)
    writer.start()
    try:
        assert backup.make_next(world.database, world.settings)
    finally:
        stop.set()
        writer.join()
    assert not backup.make_next(world.database, world.settings)
    made = world.admin.call("GET", "/admin/backups")["backups"][0]
    assert (made["state"], made["reason"], made["share"]) == ("done", "", 1.0)
    path = tmp_path / "got.tar"
    with world.admin.raw("GET", f"/admin/backups/{asked['id']}/file") as answer:
        path.write_bytes(answer.get_data())
    elsewhere = make_settings(tmp_path / "elsewhere", _new_url(world.settings, request), "redis://127.0.0.1:1/0")
    assert "is back" in archive.restore_archive(path, elsewhere)
    restored = open_database(elsewhere)
    with restored.read() as tx:
        names = ("annotations", "outbox", "items")
        count = {name: tx.execute(sa.text(f"SELECT count(*) FROM {name}")).scalar_one() for name in names}
        assert count["annotations"] == count["outbox"], "of one moment"
        assert count["items"] == 40
    restored.close()
    world.admin.call("DELETE", f"/admin/backups/{asked['id']}", None, 204)
    world.admin.call("GET", f"/admin/backups/{asked['id']}/file", None, 404)


def _new_url(settings: Settings, request: Any) -> str:
    if not settings.web.database_url:
        return ""
    url: str = request.getfixturevalue("postgres").new_database()
    return url


def test_the_copy_of_a_sqlite_database_goes_on_while_others_write(tmp_path: Path) -> None:
    source = tmp_path / "web.sqlite"
    busy = sqlite3.connect(source, isolation_level=None)
    busy.execute("PRAGMA journal_mode=WAL")
    busy.execute("CREATE TABLE t (a INTEGER, b BLOB)")
    busy.execute("BEGIN")
    busy.executemany("INSERT INTO t VALUES (?, zeroblob(3000))", [(n,) for n in range(9000)])
    busy.execute("COMMIT")
    shares: list[float] = []

    def progress(share: float) -> None:
        shares.append(share)
        assert len(shares) < 100, "the copy starts anew for ever"
        busy.execute("INSERT INTO t VALUES (-1, zeroblob(10))")  # what would start the copy anew without its transaction

    backups.copy_sqlite(source, tmp_path / "copy", progress)
    assert len(shares) > 2 and shares == sorted(shares) and shares[-1] == 1.0
    copy = sqlite3.connect(tmp_path / "copy")
    assert copy.execute("SELECT count(*) FROM t").fetchone() == (9000,)
    copy.close()
    busy.close()


def archive_of(world: World, tmp_path: Path) -> Path:
    return archive.make_archive(world.settings, tmp_path, lambda _share: None)


@pytest.fixture
def small(tmp_path: Path, valkey: Any) -> Any:
    made = World(make_settings(tmp_path / "state", "", valkey.url))
    yield made
    made.close()


def test_settings_go_with_the_backup_and_their_passwords_do_not(small: World, tmp_path: Path) -> None:
    web = WebSettings(database_url="postgresql://app:hunter2@db.lan/web?sslmode=require", redis_url="redis://:hunter2@cache:6379/0")
    text = archive.safe_settings(msgspec.structs.replace(small.settings, web=web))
    assert "hunter2" not in text
    read = tomllib.loads(text)
    assert read["web"]["database_url"] == "postgresql://app@db.lan/web?sslmode=require"
    assert msgspec.convert(read, Settings).pilot == small.settings.pilot
    path = archive_of(small, tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as tar:
        assert tar.getnames() == ["manifest.json", "settings.toml", "web.sqlite"]


def test_a_password_of_the_database_is_on_no_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "pg_dump"
    program.write_text(
        '#!/bin/sh\necho "$@" > "$OUT/argv"; cat "$PGPASSFILE" > "$OUT/password"; stat -c %a "$PGPASSFILE" > "$OUT/mode"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("OUT", str(tmp_path))
    archive._run_postgres("postgresql+psycopg://app:a%3Ab%5Cc@db.lan/web", "pg_dump", "--file=x")
    assert (tmp_path / "argv").read_text() == "--file=x --dbname=postgresql://app@db.lan/web\n"
    assert (tmp_path / "password").read_text() == "*:*:*:*:a\\:b\\\\c\n"
    assert (tmp_path / "mode").read_text() == "600\n"


@pytest.mark.parametrize("harm", ["cut", "flipped", "no backup", "there is one"])
def test_a_restore_that_cannot_be_changes_nothing(small: World, tmp_path: Path, harm: str) -> None:
    path = archive_of(small, tmp_path)
    elsewhere = make_settings(tmp_path / "new", "", "")
    target = tmp_path / "new" / "web.sqlite"
    data = bytearray(path.read_bytes())
    error: type[Exception] = IntegrityError
    if harm == "cut":
        path.write_bytes(data[: len(data) // 2])
        error = (IntegrityError, InvalidInputError)  # type: ignore[assignment]
    elif harm == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif harm == "no backup":
        path.write_bytes(b"hello")
        error = InvalidInputError
    else:
        target.parent.mkdir()
        target.write_bytes(b"mine")
        error = ConflictError
    with pytest.raises(error):
        archive.restore_archive(path, elsewhere)
    left = [one.name for one in target.parent.iterdir()] if target.parent.exists() else []
    assert left == (["web.sqlite"] if harm == "there is one" else [])


def test_a_backup_that_fails_says_why_and_leaves_no_file(small: World, monkeypatch: pytest.MonkeyPatch) -> None:
    small.admin.call("POST", "/admin/backups", {}, 202)
    monkeypatch.setattr(archive, "copy_sqlite", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert backup.make_next(small.database, small.settings)
    made = small.admin.call("GET", "/admin/backups")["backups"][0]
    assert made["state"] == "failed" and "No space left" in made["reason"]
    assert list(archive.backup_dir(small.settings).iterdir()) == []
