"""The schema, its migration, transactions and the ranked queue, each on the real thing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import alembic.autogenerate
import alembic.migration
import pytest

from labelloop.errors import UnreachableError
from labelloop.settings import Settings, WebSettings
from tests.contract.web_world import Postgres, Valkey, World, make_settings
from webapp.db import engine, imports
from webapp.db.engine import Database, open_database
from webapp.db.tables import metadata
from webapp.queue import RankedQueue, url_finder


@pytest.fixture
def database(web_settings: Settings) -> Iterator[Database]:
    made = open_database(web_settings, pool=8)
    yield made
    made.close()


@pytest.fixture
def queue(valkey: Valkey) -> Iterator[RankedQueue]:
    made = RankedQueue(lambda: valkey.url)
    made._redis.flushall()
    yield made
    made.close()


def test_the_migrations_make_the_schema_that_the_code_has(database: Database) -> None:
    with database.read() as tx:
        context = alembic.migration.MigrationContext.configure(tx, opts={"compare_type": True})
        assert alembic.autogenerate.compare_metadata(context, metadata) == []


def test_processes_that_start_together_upgrade_once(tmp_path: Path, empty_database_url: str, valkey: Valkey) -> None:
    settings = make_settings(tmp_path, empty_database_url, valkey.url)
    made: list[Database] = []
    threads = [threading.Thread(target=lambda: made.append(open_database(settings, pool=2))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4
    for database in made:
        database.close()


def test_no_query_of_the_labelling_path_reads_the_whole_table(world: World) -> None:
    """SQLite tells its plan; PostgreSQL has the same indexes."""
    import sqlalchemy as sa

    tables = ("items", "annotations", "outbox", "leases")
    if not world.database.is_sqlite:
        there = sa.inspect(world.database.engine)
        for table in tables:
            assert {index.name for index in metadata.tables[table].indexes} <= {one["name"] for one in there.get_indexes(table)}
        return
    slug = world.project(texts=50)
    seen: list[tuple[str, object]] = []
    sa.event.listen(world.database.engine, "before_cursor_execute", lambda c, cur, sql, args, ctx, many: seen.append((sql, args)))
    items = world.admin.call("POST", f"/projects/{slug}/next", {"n": 2, "holding": []})["items"]
    world.admin.answer(slug, items[0], "owl", next=1, key="k", holding=[items[1]["item_id"]])
    world.admin.call("DELETE", f"/projects/{slug}/annotations/{items[0]['item_id']}")
    world.admin.call("GET", f"/projects/{slug}/status")
    checked = 0
    with world.database.engine.connect() as tx:
        for sql, args in seen:
            if not sql.lstrip().upper().startswith(("SELECT", "UPDATE", "DELETE")):
                continue
            plan = tx.connection.cursor().execute(f"EXPLAIN QUERY PLAN {sql}", args).fetchall()
            for table in tables:
                assert not any(step[3].startswith(f"SCAN {table}") for step in plan), (sql, plan)
            checked += 1
    assert checked > 15


def test_a_saved_label_survives_kill_9(tmp_path: Path, valkey: Valkey) -> None:
    script = f"""
import sys
from tests.contract.web_world import World, make_settings
from pathlib import Path
world = World(make_settings(Path({str(tmp_path)!r}), "", {valkey.url!r}))
slug = world.project(texts=20)
for n in range(20):
    [item] = world.admin.call("POST", f"/projects/{{slug}}/next", {{"n": 1}})["items"]
    world.admin.answer(slug, item, "owl")
    print(item["item_id"], flush=True)
    if n == 12:
        sys.stdin.read()
"""
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert child.stdout is not None and child.stdin is not None
    told = [child.stdout.readline().strip() for _ in range(13)]
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdin.close()
    child.stdout.close()
    database = open_database(Settings(state_dir=str(tmp_path), web=WebSettings()))
    with database.read() as tx:
        saved = {row[0] for row in tx.exec_driver_sql("SELECT item_id FROM items WHERE state = 1")}
        pairs = tx.exec_driver_sql("SELECT (SELECT count(*) FROM annotations), (SELECT count(*) FROM outbox)").one()
    database.close()
    assert saved == set(told) and tuple(pairs) == (13, 13)


def test_a_write_that_fails_leaves_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.write() as tx:
        tx.exec_driver_sql("INSERT INTO pilot_state (id, at, sentence, is_connected) VALUES (1, 0, 'x', true)")
        raise ZeroDivisionError
    with database.read() as tx:
        assert tx.exec_driver_sql("SELECT count(*) FROM pilot_state").scalar() == 0


@pytest.mark.parametrize("name", ["nul%00", "x" * 70_000])
def test_values_that_no_database_stores_are_the_callers_error(world: World, name: str) -> None:
    assert world.admin.raw("DELETE", f"/users/{name}/active").status_code in (404, 422)
    assert world.admin.raw("DELETE", f"/tokens/{10**30}").status_code in (404, 422)
    assert world.admin.raw("GET", f"/projects/{name}").status_code in (404, 422)
    slug = world.project()
    assert world.admin.raw("GET", f"/projects/{slug}/items?after={10**30}").status_code == 422
    assert world.admin.call("PATCH", f"/projects/{slug}", {"title": "\ud800"}, 422)["code"] == "invalid_input"
    assert world.admin.call("PATCH", f"/projects/{slug}", {"instructions": "\0"}, 422)["code"] == "invalid_input"


def test_a_database_that_is_away_is_told_as_unreachable() -> None:
    database = Database("postgresql+psycopg://nobody@/nothing?host=/nonexistent")
    with pytest.raises(UnreachableError), database.read():
        pass
    database.close()


@pytest.mark.parametrize("rested_s", [0.0, 3600.0])
def test_a_connection_that_died_in_the_pool_costs_one_call_at_most_and_none_when_it_rested(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch, rested_s: float
) -> None:
    monkeypatch.setattr(engine, "_RESTED_S", rested_s)
    database, other = Database(postgres.new_database(), pool=2), Database(postgres.new_database(), pool=1)
    with database.read() as tx, database.read() as beside:
        pids = [connection.exec_driver_sql("SELECT pg_backend_pid()").scalar() for connection in (tx, beside)]
    with other.read() as tx:
        for pid in pids:
            tx.exec_driver_sql(f"SELECT pg_terminate_backend({pid}, 5000)")
    if rested_s:
        with pytest.raises(UnreachableError), database.read() as tx:
            tx.exec_driver_sql("SELECT 1")
    for _ in range(2):
        with database.read() as tx:
            assert tx.exec_driver_sql("SELECT pg_backend_pid()").scalar() not in pids
    with database.write() as tx:
        assert tx.exec_driver_sql("SELECT pg_backend_pid()").scalar() not in pids
    database.close()
    other.close()


# ---------------------------------------------------------------- the ranked queue


def test_the_highest_score_is_claimed_first_and_what_expires_returns_to_its_place(queue: RankedQueue) -> None:
    queue.swap(1, "g", [("a", 1.0), ("b", 3.0), ("c", 2.0)])
    assert queue.claim(1, 2, now=0, expires_at=10) == ["b", "c"]
    assert queue.claim(1, 5, now=5, expires_at=15) == ["a"]
    assert queue.claim(1, 5, now=11, expires_at=21) == ["b", "c"]
    queue.settle(1, ["b"])
    assert queue.claim(1, 5, now=30, expires_at=40) == ["c", "a"]


def test_a_lost_queue_is_told_apart_from_an_empty_one(queue: RankedQueue) -> None:
    assert queue.claim(1, 1, 0, 10) is None
    queue.swap(1, "g", [])
    assert queue.claim(1, 1, 0, 10) == [] and queue.is_built(1) and queue.generation(1) == "g"


def test_a_new_order_leaves_what_is_out_where_it_is_and_gives_it_its_new_score(queue: RankedQueue) -> None:
    queue.swap(1, "g", [("a", 1.0), ("b", 3.0), ("c", 2.0)])
    assert queue.claim(1, 1, 0, 10) == ["b"]
    queue.swap(1, "h", [("a", 5.0), ("b", 4.0), ("c", 6.0)])
    assert queue.head(1, 9) == ["c", "a"]
    queue.give_back(1, "b")
    assert queue.claim(1, 3, 0, 10) == ["c", "a", "b"]


def test_many_claims_at_once_never_give_one_item_twice(queue: RankedQueue) -> None:
    queue.swap(1, "g", [(str(n), float(-n)) for n in range(200)])
    got: list[list[str] | None] = []
    threads = [threading.Thread(target=lambda: got.extend(queue.claim(1, 4, 0, 10) for _ in range(10))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    every = [item for claim in got for item in claim or []]
    assert len(every) == len(set(every)) == 200


def test_only_one_rebuilds_at_a_time(queue: RankedQueue) -> None:
    assert queue.may_rebuild(1) and not queue.may_rebuild(1)
    queue.end_rebuild(1)
    assert queue.may_rebuild(1)


def test_a_queue_server_that_moved_is_followed(tmp_path: Path, valkey: Valkey) -> None:
    find = url_finder(Settings(state_dir=str(tmp_path)))
    with pytest.raises(UnreachableError, match="labelloop broker"):
        find()
    (tmp_path / "broker").mkdir()
    (tmp_path / "broker" / "url").write_text("redis://127.0.0.1:1\n")
    queue = RankedQueue(find)
    with pytest.raises(UnreachableError):
        queue.ping()
    (tmp_path / "broker" / "url").write_text(f"redis://127.0.0.1:{valkey.port}\n")
    queue.ping()
    queue.close()


def test_an_import_worker_process_takes_in_what_waits(tmp_path: Path, valkey: Valkey) -> None:
    from tests.contract.test_web_transfer import upload
    from webapp.pilot.process import WorkChild

    settings = make_settings(tmp_path, "", valkey.url)
    made = World(settings)
    slug = made.project()
    upload(made.admin, slug, [("a.csv", b"text\none\ntwo\n")])
    file = tmp_path / "settings.toml"
    file.write_text(f'state_dir = "{tmp_path}"\n')
    child = WorkChild("import", imports.has_waiting, made.database, file)
    child.cycle()
    while child._process is not None:
        time.sleep(0.05)
        child.cycle()
    assert made.admin.call("GET", f"/projects/{slug}/imports")["imports"][0]["rows_added"] == 2
    child.stop()
    made.close()
