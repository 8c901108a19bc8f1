"""A PostgreSQL of a benchmark's own, as durable as a production server: fsync on, on a unix socket, deleted at the end.

Owns the server process (as user postgres when run as root). Must never be used for data that anybody wants back. Called by
scripts.bench_team.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

BIN = Path("/usr/lib/postgresql/15/bin")
_START_S = 60.0


class Postgres:
    """A running server below `folder`; `new_database` makes databases of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(folder, self._user)
        self._run("initdb", "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8")
        options = ("-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "max_connections=200")
        argv = (str(BIN / "postgres"), "-D", str(folder / "data"), *options)
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(argv, user=self._user, stdout=log, stderr=log, cwd=folder)
        self._wait()

    def _run(self, program: str, *argv: str) -> None:
        subprocess.run((str(BIN / program), *argv), user=self._user, check=True, stdout=subprocess.DEVNULL, cwd=self.folder)

    def _connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        return psycopg.connect(host=str(self.folder), user="postgres", dbname=database, autocommit=True)

    def _wait(self) -> None:
        until_s = time.monotonic() + _START_S
        while True:
            try:
                self._connect().close()
            except psycopg.OperationalError:
                if time.monotonic() > until_s or self._process.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return

    def new_database(self, name: str) -> str:
        """Create an empty database and return its SQLAlchemy URL."""
        self._say(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://postgres@/{name}?host={self.folder}"

    def analyze(self, name: str) -> None:
        """Do at once what autovacuum does some minutes after a large import."""
        self._say("VACUUM ANALYZE", name)

    def _say(self, statement: str, database: str = "postgres") -> None:
        link = self._connect(database)
        with link.cursor() as cursor:
            cursor.execute(statement)
        link.close()

    def stop(self) -> None:
        """Stop the server, whoever is still connected."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Yield a server in a folder of its own, both gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="labelloop-bench-pg-"))
    try:
        server = Postgres(folder)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
