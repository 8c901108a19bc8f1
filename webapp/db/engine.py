"""The database handle: engines for SQLite and PostgreSQL, one way to read, one way to write, the upgrade at start.

Owns every connection. Must never be used without `read()` or `write()`: on SQLite a write waits for a fair lock (a thread lock,
then an flock on `<file>.lock`) and only then says BEGIN IMMEDIATE, because SQLite's own busy handler sleeps and starves. WAL with
synchronous=NORMAL survives the death of every process (kill -9 included); only a power cut may lose the last moments.
Called by the services of the app through `Database`.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from labelloop.errors import InvalidInputError, NotReadyError, SettingsError, UnreachableError
from labelloop.settings import Settings

logger = logging.getLogger(__name__)
logging.getLogger("alembic").setLevel(logging.WARNING)
Tx = Connection
_IS_WRITE = "labelloop_write"
_UPGRADE_LOCK = 0x6C6F6F70
_CHECKPOINT_PAGES = 8000
_USED_S, _RESTED_S = "used_s", 1.0  # so long a connection to PostgreSQL may lie in the pool and be trusted without asking


def database_url(settings: Settings) -> str:
    """Return the SQLAlchemy URL of the settings; '' becomes SQLite in the state folder. Raises SettingsError on another kind."""
    url = settings.web.database_url
    if not url:
        return f"sqlite:///{Path(settings.state_dir).absolute() / 'web.sqlite'}"
    if url.startswith(("postgresql://", "postgres://", "postgresql+psycopg2://")):
        return "postgresql+psycopg://" + url.partition("://")[2]
    if not url.startswith(("sqlite:///", "postgresql+psycopg://")):
        raise SettingsError(f"web.database_url {url.split('@')[-1]!r}: use sqlite:///FILE or postgresql://...")
    return url


def plain_postgres_url(url: str) -> str:
    """Return a PostgreSQL URL as its own tools read it: without SQLAlchemy's driver."""
    return "postgresql://" + url.partition("://")[2]


class Database:
    """Connections to one database. Threads share it; a process opens its own after a fork."""

    def __init__(self, url: str, pool: int = 32, cache_mib: int = 8) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        self._lock = threading.Lock()
        self._lock_file = Path(url.removeprefix("sqlite:///") + ".lock") if self.is_sqlite else None
        if self.is_sqlite:
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            self.engine = sa.create_engine(url, pool_size=pool, max_overflow=16, connect_args={"timeout": 30.0})
            sa.event.listen(self.engine, "connect", functools.partial(_prepare_sqlite, cache_mib))
            sa.event.listen(self.engine, "begin", _begin_sqlite)
            self._reader = self.engine
        else:
            self.engine = _postgres_engine(url, pool)
            # connections of their own: to change one's isolation level and back costs more than a short query
            self._reader = _postgres_engine(url, pool, isolation_level="AUTOCOMMIT", pool_reset_on_return=None)
        self._writer = self.engine.execution_options(**{_IS_WRITE: True})

    @contextlib.contextmanager
    def read(self) -> Iterator[Tx]:
        """Yield a connection for reading. Raises UnreachableError when the database does not answer.

        Each statement sees one state of its own; no transaction is begun or ended for it.
        """
        with _renamed(), self._reader.connect() as tx:
            yield tx

    @contextlib.contextmanager
    def write(self) -> Iterator[Tx]:
        """Yield a connection inside one transaction, committed at the end of the block, undone by an exception."""
        with _renamed(), self._write_turn(), self._writer.begin() as tx:
            yield tx

    @contextlib.contextmanager
    def _write_turn(self) -> Iterator[None]:
        if self._lock_file is None:
            yield
            return
        with self._lock, self._lock_file.open("ab") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            yield

    def upgrade(self) -> None:
        """Bring the schema to this build's revision; processes that start together take turns."""
        config = alembic.config.Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.write() as tx:
            if not self.is_sqlite:
                tx.execute(sa.select(sa.func.pg_advisory_xact_lock(_UPGRADE_LOCK)))
            config.attributes["connection"] = tx
            alembic.command.upgrade(config, "head")

    def close(self) -> None:
        """Close every pooled connection."""
        self._reader.dispose()
        self.engine.dispose()


def open_database(settings: Settings, pool: int = 32, cache_mib: int = 8) -> Database:
    """Open the database of the settings and bring its schema up to date; `cache_mib` is SQLite's page cache a connection."""
    database = Database(database_url(settings), pool, cache_mib)
    database.upgrade()
    return database


def _postgres_engine(url: str, pool: int, **more: Any) -> sa.Engine:
    engine = sa.create_engine(url, pool_size=pool, max_overflow=16, **more)
    sa.event.listen(engine, "checkin", _note_use)
    sa.event.listen(engine, "checkout", functools.partial(_ping_after_rest, engine.dialect))
    return engine


@contextlib.contextmanager
def _renamed() -> Iterator[None]:
    try:
        yield
    except sa.exc.TimeoutError as exc:
        raise NotReadyError("the database has no free connection: try again, or raise web.threads' share of the pool") from exc
    except (sa.exc.OperationalError, sa.exc.InterfaceError) as exc:
        logger.warning("the database does not answer: %s", exc.orig)
        raise UnreachableError("the database does not answer: see the web app's log, then try again") from exc
    except (sa.exc.DataError, UnicodeEncodeError, OverflowError) as exc:
        raise InvalidInputError("a value cannot be stored: numbers up to 9e18, texts of whole characters") from exc
    except ValueError as exc:
        if "NUL" not in str(exc):
            raise
        raise InvalidInputError("a value cannot be stored: a NUL character is in it") from exc


def _prepare_sqlite(cache_mib: int, connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    pragmas = ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000", "foreign_keys=ON", "temp_store=MEMORY")
    for pragma in (*pragmas, f"cache_size=-{1024 * cache_mib}", f"wal_autocheckpoint={_CHECKPOINT_PAGES}"):
        connection.execute(f"PRAGMA {pragma}").close()


def _note_use(_connection: Any, record: Any) -> None:
    record.info[_USED_S] = time.monotonic()


def _ping_after_rest(dialect: Any, connection: Any, record: Any, _proxy: Any) -> None:
    """Have the pool replace a connection that died while it rested; one in steady use is spared the question at each request."""
    if time.monotonic() - record.info.get(_USED_S, float("inf")) < _RESTED_S:
        return
    try:
        dialect.do_ping(connection)
    except dialect.loaded_dbapi.Error as exc:
        raise sa.exc.DisconnectionError(str(exc)) from exc


def _begin_sqlite(tx: Tx) -> None:
    if tx.get_execution_options().get(_IS_WRITE, False):
        tx.exec_driver_sql("BEGIN IMMEDIATE")  # a read needs no transaction: each statement sees one state
