"""Sources that are read where they lie: folders of the server, listings of the web and of a real S3 store, tables of SQLite and
of a real PostgreSQL. No private address that no operator allowed is reached, and no secret is told."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import msgspec
import psycopg
import pytest
import sqlalchemy as sa
import urllib3

from labelloop.addresses import why_not_reach
from labelloop.errors import UnsafeLinkError
from tests.contract.test_web_bad_formats import Killed
from tests.contract.test_web_formats import entries, make, picture
from tests.contract.web_world import Postgres, Valkey, World, make_settings
from webapp.db import imports
from webapp.rooms import import_reach
from webapp.transfer import importer
from webapp.transfer.addresses import Guard, Listing, _s3
from webapp.transfer.importer import Importer
from webapp.transfer.sources import SourceFile

SECRET = "hunter2-in-no-log"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[World]:
    """An app on SQLite with a folder that may be imported from and one of sources."""
    top = tmp_path_factory.mktemp("sources")
    (top / "open").mkdir()
    (top / "sources").mkdir()
    more = {"allowed_import_folders": (str(top / "open"),), "sources_dir": str(top / "sources")}
    made = World(make_settings(top / "state", "", valkey.url, **more))
    yield made
    made.close()


def write_source(world: World, name: str, **told: str) -> None:
    path = Path(world.settings.web.sources_dir) / f"{name}.toml"
    path.write_text("".join(f'{key} = "{value}"\n' for key, value in told.items()))
    path.chmod(0o600)


@contextlib.contextmanager
def allowed(world: World, *hosts: str) -> Iterator[None]:
    """Private addresses that an operator lets imports reach."""
    before = world.settings
    intake = msgspec.structs.replace(before.intake, allowed_hosts=hosts)
    world.settings = msgspec.structs.replace(before, intake=intake)
    yield
    world.settings = before


def end_imports(world: World) -> None:
    """Give up what waits for a source that does not answer."""
    with world.database.write() as tx:
        tx.exec_driver_sql("UPDATE import_jobs SET state = 'failed' WHERE state IN ('running', 'waiting')")


def take(world: World, slug: str, most_bytes: int = 2**20, status: int = 202, **given: Any) -> dict[str, Any]:
    job = world.admin.call("POST", f"/projects/{slug}/imports/source", given, status)
    if status != 202:
        return dict(job)
    Importer(world.database, world.rooms.media, most_bytes, import_reach(world.settings)).run_all()
    return dict(world.admin.call("GET", f"/projects/{slug}/imports/{job['id']}"))


def test_a_folder_on_the_server_is_read_where_an_operator_allows_it(world: World, tmp_path: Path) -> None:
    top = Path(world.settings.web.allowed_import_folders[0]) / "birds"
    (top / "owl").mkdir(parents=True)
    (top / "owl" / "a.txt").write_text("hoo")
    (top / "owl" / "b.txt").symlink_to("/etc/hostname")
    slug = make(world, "multiclass", "server")
    job = take(world, slug, kind="server-folder", folder=str(top), labels_by_folder=True)
    assert job["rows_added"] == 1 and "outside" in job["errors"][0]["reason"]
    assert [(error["line"], error["name"]) for error in job["errors"]] == [(2, "owl/b.txt")]
    again = take(world, slug, kind="server-folder", folder=str(top), labels_by_folder=True)
    assert (again["rows_added"], again["rows_known"], again["rows_failed"]) == (0, 1, 1)
    for bad in (str(tmp_path), "/etc", str(top / ".." / ".." / ".."), "birds"):
        assert "allowed_import_folders" in take(world, slug, status=422, kind="server-folder", folder=bad)["message"]


def test_a_table_of_sql_is_read_along_its_key_and_its_secret_is_told_to_nobody(world: World, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "birds.sqlite") as link:
        link.execute("CREATE TABLE birds (nr INTEGER PRIMARY KEY, text TEXT, label TEXT)")
        link.executemany(
            "INSERT INTO birds VALUES (?, ?, ?)", [(1, "one", "owl"), (2, "", None), (5, "five", "heron"), (9, "nine", None)]
        )
    link.close()
    write_source(world, "birds", url=f"sqlite:///{tmp_path / 'birds.sqlite'}")
    source = Path(world.settings.web.sources_dir) / "birds.toml"
    source.chmod(0o644)
    slug = make(world, "multiclass", "sql")
    assert "chmod 600" in take(world, slug, status=422, kind="sql", source="birds", table="birds")["message"]
    source.chmod(0o600)
    job = take(world, slug, kind="sql", source="birds", table="birds")
    assert (job["rows_added"], job["rows_failed"]) == (2, 2) and set(entries(world, slug)) == {"1", "9"}
    assert take(world, slug, kind="sql", source="birds", table="birds")["rows_added"] == 0
    failed = take(world, slug, kind="sql", source="birds", table="nests")
    assert failed["state"] == "failed" and "'nests'" in failed["reason"] and str(tmp_path) not in failed["reason"]
    assert "no such file" in take(world, slug, status=422, kind="sql", source="../birds", table="birds")["message"]


def test_a_source_that_names_its_projects_is_not_there_for_others(world: World, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "closed.sqlite")) as link, link:
        link.execute("CREATE TABLE birds (id INTEGER PRIMARY KEY, text TEXT)")
        link.execute("INSERT INTO birds VALUES (1, 'one')")
    named, other = make(world, "multiclass", "named"), make(world, "multiclass", "not-named")
    write_source(world, "closed", url=f"sqlite:///{tmp_path / 'closed.sqlite'}")
    source = Path(world.settings.web.sources_dir) / "closed.toml"
    source.write_text(source.read_text() + f'projects = ["{named}"]\n')
    asked = {"kind": "sql", "source": "closed", "table": "birds"}
    assert take(world, named, **asked)["rows_added"] == 1
    assert "no such file" in take(world, other, status=422, **asked)["message"]
    listed = take(world, other, kind="listing", url="source:closed")
    assert listed["state"] == "failed" and "no such file" in listed["reason"]
    source.write_text(f'url = "sqlite:///x"\nprojects = "{named}"\n')
    assert "as TOML" in take(world, named, status=422, **asked)["message"]


def test_a_listing_makes_an_item_a_file_and_private_addresses_are_refused(world: World, tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "notes.txt"):
        (tmp_path / name).write_bytes(picture())
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: quiet(*given, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/"
        slug = world.project("listed", category="image-classification")
        job = take(world, slug, kind="listing", url=url)
        assert job["state"] in ("failed", "waiting", "running") and not entries(world, slug)
        end_imports(world)
        second = world.project("copied", category="image-classification")
        with allowed(world, f"127.0.0.1:{server.server_port}"):
            linked = take(world, slug, kind="listing", url=url)
            copied = take(world, second, kind="listing", url=url, copy=True)
        server.shutdown()
        thread.join()
    assert (linked["rows_added"], copied["rows_added"]) == (2, 2)
    assert {entry.link for entry in entries(world, slug).values()} == {f"{url}a.png", f"{url}b.png"}
    assert all(str(entry.link).startswith("file://") for entry in entries(world, second).values())


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "64:ff9b::a00:1", "0.0.0.0", "224.0.0.1", "fec0::1"],
)
def test_the_guard_makes_no_socket_to_an_address_that_is_not_public(address: str) -> None:
    assert why_not_reach(address)
    with pytest.raises(UnsafeLinkError):
        Guard(()).make_socket((2, 1, 6, "", (address, 80)))
    assert why_not_reach("8.8.8.8") is None


def test_a_private_address_of_s3_is_refused_where_the_socket_is_made() -> None:
    store = _s3(Guard(()), SourceFile("s3://b/x", key="k", secret="s", endpoint="http://127.0.0.1:9"))
    with pytest.raises(UnsafeLinkError, match="loopback"):
        list(Listing(store, "b/x", None).names())


# ---------------------------------------------------------------- S3


class Store(msgspec.Struct):
    """A server of S3's protocol with a bucket `birds`, which one key may read."""

    url: str
    key: str
    secret: str

    @property
    def host(self) -> str:
        """host:port, as operators allow it."""
        return self.url.removeprefix("http://")


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    """moto in a process of its own, which answers two keys a page and checks signatures."""
    env = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "1000", "MOTO_S3_DEFAULT_MAX_KEYS": "2"}
    argv = (sys.executable, "-m", "moto.server", "-p", "0")
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout
        line = next(line for line in server.stdout if "Running on" in line)
        drain = threading.Thread(target=lambda: [*server.stdout])  # type: ignore[misc]
        drain.start()
        yield _filled_store(line.split()[-1])
        server.terminate()
        server.wait(10)
        drain.join()


def _filled_store(url: str) -> Store:
    given = {"endpoint_url": url, "region_name": "us-east-1", "aws_access_key_id": "root", "aws_secret_access_key": "root"}
    iam, s3 = boto3.client("iam", **given), boto3.client("s3", **given)
    iam.create_user(UserName="reader")
    made = iam.create_access_key(UserName="reader")["AccessKey"]
    policy = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'
    iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
    s3.create_bucket(Bucket="birds")
    files = {"a.txt": b"one", "b.txt": b" ", "deep/c.txt": b"three", "d.txt": b"\xff\xfe", "e.txt": b"x" * 3000, "f.txt": b"six"}
    for name, content in {**{f"texts/{name}": content for name, content in files.items()}, "other/g.txt": b"no"}.items():
        s3.put_object(Bucket="birds", Key=name, Body=content)
    iam.close(), s3.close()
    urllib3.request("POST", f"{url}/moto-api/reset-auth", body=b"0")  # from now on every call is signed by a key it knows
    return Store(url, made["AccessKeyId"], made["SecretAccessKey"])


def test_a_bucket_is_listed_page_by_page_and_what_is_broken_is_told_by_name(
    world: World, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    write_source(world, "bucket", url="s3://birds/texts", key=store.key, secret=store.secret, endpoint=store.url)
    slug = make(world, "multiclass", "bucket")
    with allowed(world, store.host):
        job, again = (take(world, slug, 2000, kind="listing", url="source:bucket") for _ in range(2))
    assert (job["state"], job["rows_added"], job["rows_failed"]) == ("done", 3, 3), job
    assert {item_id: entry.content for item_id, entry in entries(world, slug).items()} == {
        "a.txt": "one",
        "deep/c.txt": "three",
        "f.txt": "six",
    }
    told = [(error["line"], error["name"], error["reason"]) for error in job["errors"]]
    assert [(line, name.rpartition("/")[2]) for line, name, _ in told] == [(2, "b.txt"), (3, "d.txt"), (4, "e.txt")]
    assert [word in reason for (_, _, reason), word in zip(told, ("empty", "UTF-8", "bytes"), strict=True)] == [True] * 3
    assert (again["rows_added"], again["rows_known"], again["rows_failed"]) == (0, 3, 3)
    shown = str(world.admin.call("GET", f"/projects/{slug}/imports")) + caplog.text
    assert store.secret not in shown and store.host in caplog.text


def test_the_private_endpoint_of_a_store_is_reached_only_where_an_operator_allows_it(world: World, store: Store) -> None:
    write_source(world, "closed", url="s3://birds/texts", key=store.key, secret=store.secret, endpoint=store.url)
    slug = make(world, "multiclass", "closed")
    with allowed(world, "127.0.0.1:1"):
        job = take(world, slug, kind="listing", url="source:closed")
    assert job["state"] != "done" and not entries(world, slug)
    end_imports(world)


@pytest.mark.parametrize(("secret", "bucket", "reason"), [(SECRET, "birds", "let us read"), ("", "nests", "no such")])
def test_a_wrong_key_and_a_missing_bucket_end_the_import_with_the_reason(
    world: World, store: Store, secret: str, bucket: str, reason: str
) -> None:
    secret = secret or store.secret
    write_source(world, "wrong", url=f"s3://{bucket}/texts", key=store.key, secret=secret, endpoint=store.url)
    slug = make(world, "multiclass", f"wrong-{bucket}")
    with allowed(world, store.host):
        job = take(world, slug, kind="listing", url="source:wrong")
    assert job["state"] == "failed" and reason in job["reason"] and secret not in str(job)


def test_a_file_that_leads_on_to_a_private_address_is_refused_and_the_rest_goes_in(world: World) -> None:
    class Sly(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer with a list, a text, or the way to an address of the inside."""
            is_away = self.path == "/away.txt"
            self.send_response(302 if is_away else 200)
            self.send_header("Location", f"http://127.0.0.2:{self.server.server_address[1]}/secret")
            self.end_headers()
            self.wfile.write(b'<a href="away.txt">a</a><a href="here.txt">b</a>' if self.path == "/" else b"here")

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("0.0.0.0", 0), Sly) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        host = f"127.0.0.1:{server.server_port}"
        slug = make(world, "multiclass", "sly")
        with allowed(world, host):
            job = take(world, slug, kind="listing", url=f"http://{host}/")
        server.shutdown()
        thread.join()
    assert [entry.content for entry in entries(world, slug).values()] == ["here"]
    assert [error["line"] for error in job["errors"]] == [1] and "127.0.0.2 is loopback" in job["errors"][0]["reason"]


# ---------------------------------------------------------------- tables of PostgreSQL

TABLE = """
CREATE TABLE "Birds" (nr integer PRIMARY KEY, text text, label text, born timestamp, weight numeric);
INSERT INTO "Birds" SELECT n, 'bird ' || n, CASE n % 3 WHEN 0 THEN 'owl' END, now(), 1.5 FROM generate_series(10, 30, 2) n;
UPDATE "Birds" SET text = '' WHERE nr = 14;
UPDATE "Birds" SET label = 'heron' WHERE nr = 22;
CREATE TABLE seen (n integer);
CREATE FUNCTION look() RETURNS integer LANGUAGE sql VOLATILE AS 'INSERT INTO seen VALUES (1) RETURNING 1';
CREATE VIEW sly AS SELECT nr, text, look() AS looked FROM "Birds";
CREATE TABLE odd (nr uuid PRIMARY KEY, notes jsonb, weight numeric, born date, photo bytea);
INSERT INTO odd VALUES ('00000000-0000-0000-0000-000000000001', '{"a": [1]}', 2.5, '2026-01-02', NULL),
    ('00000000-0000-0000-0000-000000000002', NULL, 1, NULL, 'raw');
CREATE ROLE reader LOGIN PASSWORD 'hunter2-in-no-log';
GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;
"""
GOOD = {str(n) for n in range(10, 31, 2)} - {"14", "22"}


@pytest.fixture
def birds(world: World, postgres: Postgres) -> Iterator[Any]:
    """A cursor in a PostgreSQL with a table `Birds` of eleven rows, two of them broken; source `pg` reads it with a password."""
    made = sa.make_url(postgres.new_database())
    write_source(world, "pg", url=f"postgres://reader:{SECRET}@/{made.database}?host={postgres.folder}")
    with contextlib.closing(psycopg.connect(host=str(postgres.folder), user="postgres", dbname=made.database)) as link:
        link.autocommit = True
        with link.cursor() as cursor:
            cursor.execute(TABLE)
            yield cursor
            cursor.execute("DROP OWNED BY reader; DROP ROLE reader")


def test_a_table_of_postgresql_streams_by_a_cursor_of_the_server_and_its_broken_rows_are_told(
    world: World, birds: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr("webapp.transfer.readers.sql.PAGE", 3)
    cursors: list[str] = []

    def note(_link: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "Birds" in statement and "ORDER BY" in statement:
            cursors.append(getattr(cursor, "name", None) or "all at once")

    sa.event.listen(sa.Engine, "after_cursor_execute", note)
    slug = make(world, "multiclass", "pg")
    try:
        job, again = (take(world, slug, kind="sql", source="pg", table="public.Birds") for _ in range(2))
    finally:
        sa.event.remove(sa.Engine, "after_cursor_execute", note)
    assert len(cursors) == 2 and "all at once" not in cursors
    assert (job["state"], job["rows_added"], job["rows_failed"]) == ("done", len(GOOD), 2), job
    assert [(e["line"], e["name"]) for e in job["errors"]] == [(3, "14"), (7, "22")]
    assert "empty" in job["errors"][0]["reason"] and "heron" in job["errors"][1]["reason"]
    assert set(entries(world, slug)) == GOOD and entries(world, slug)["12"].value.labels == ("owl",)  # type: ignore[union-attr]
    assert (again["rows_added"], again["rows_known"], again["rows_failed"]) == (0, len(GOOD), 2)
    assert SECRET not in caplog.text + str(world.admin.call("GET", f"/projects/{slug}/imports"))


@pytest.mark.parametrize("how", ["killed", "cut off"])
def test_a_table_that_broke_off_goes_on_behind_its_last_row(
    world: World, birds: Any, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "CHUNK_ROWS", 2)
    monkeypatch.setattr("webapp.transfer.readers.sql.PAGE", 2)
    advance, calls = imports.advance, []

    def dying(*given: Any) -> None:
        advance(*given)
        calls.append(given)
        if len(calls) == 2 and how == "killed":
            raise Killed
        if len(calls) == 2:
            birds.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'reader'")

    monkeypatch.setattr(imports, "advance", dying)
    slug = make(world, "multiclass", f"pg-{how.replace(' ', '-')}")
    with pytest.raises(Killed) if how == "killed" else contextlib.nullcontext():
        take(world, slug, kind="sql", source="pg", table="Birds")
    n_before = len(entries(world, slug))
    assert 0 < n_before < len(GOOD)
    with world.database.write() as tx:
        tx.exec_driver_sql("UPDATE import_jobs SET updated_at = 0 WHERE state = 'running'")
    Importer(world.database, world.rooms.media, 2**20, import_reach(world.settings)).run_all()
    job = world.admin.call("GET", f"/projects/{slug}/imports")["imports"][0]
    assert (job["state"], job["rows_added"], job["rows_known"], job["rows_failed"]) == ("done", len(GOOD), 0, 2), job
    assert set(entries(world, slug)) == GOOD


def test_a_table_of_odd_types_becomes_rows_and_bytes_are_refused(world: World, birds: Any) -> None:
    slug = make(world, "number", "pg-odd")
    job = take(world, slug, kind="sql", source="pg", table="odd")
    [entry] = entries(world, slug).values()
    row = {"notes": '{"a":[1]}', "weight": 2.5, "born": "2026-01-02", "photo": None}
    assert msgspec.json.decode(entry.content or "") | {"nr": ""} == {"nr": "", **row}
    assert [error["name"][-1] for error in job["errors"]] == ["2"] and "bytes" in job["errors"][0]["reason"]


def test_a_view_that_would_write_is_not_let_and_a_server_that_is_away_is_not_named(
    world: World, birds: Any, caplog: pytest.LogCaptureFixture
) -> None:
    slug = make(world, "multiclass", "pg-sly")
    birds.execute("GRANT INSERT ON seen TO reader")
    job = take(world, slug, kind="sql", source="pg", table="sly", key_column="nr")
    birds.execute("SELECT count(*) FROM seen")
    assert job["state"] == "failed" and birds.fetchone() == (0,) and SECRET not in job["reason"]
    write_source(world, "away", url=f"postgresql://reader:{SECRET}@127.0.0.1:9/birds")
    job = take(world, slug, kind="sql", source="away", table="birds")
    assert job["state"] != "done" and "does not answer" in caplog.text
    assert SECRET not in caplog.text + str(job) and "reader" not in caplog.text
    end_imports(world)
