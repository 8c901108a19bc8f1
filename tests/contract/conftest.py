"""The servers and the app that the tests of the web app share: one PostgreSQL and one Valkey for all of them.

A database is new for each test, and a copy of one whose migrations have run.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from labelloop.settings import Settings
from tests.contract.web_world import Postgres, Valkey, World, has_postgres, make_settings
from webapp.db.engine import Database


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for the whole session."""
    if not has_postgres():
        pytest.fail("no PostgreSQL 15 on this machine: apt-get install postgresql")
    server = Postgres()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """One Valkey for the whole session; a test that needs it empty flushes it."""
    server = Valkey()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def upgraded_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with this build's schema and nothing in it."""
    file = tmp_path_factory.mktemp("upgraded") / "web.sqlite"
    database = Database(f"sqlite:///{file}")
    database.upgrade()
    database.close()
    return file


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A new database of each kind, the SQLite one in the test's own folder."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("upgraded_sqlite"), tmp_path / "web.sqlite")
        yield ""
        return
    server: Postgres = request.getfixturevalue("postgres")
    url = server.new_database(like=server.upgraded)
    yield url
    server.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest) -> str:
    """A new database of each kind that no migration has run on."""
    if request.param == "sqlite":
        return ""
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def web_settings(tmp_path: Path, database_url: str, valkey: Valkey) -> Settings:
    """Settings with a database of each kind and an empty Valkey."""
    client = redis.Redis.from_url(valkey.url)
    client.flushall()
    client.close()
    return make_settings(tmp_path, database_url, valkey.url)


@pytest.fixture
def world(web_settings: Settings) -> Iterator[World]:
    """An app with a first admin."""
    made = World(web_settings)
    yield made
    made.close()
