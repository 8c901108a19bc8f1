"""The list of backups of the app, and the copy of a SQLite database while people write to it.

Owns the table `backups` and SQLite's backup API. Must never copy the files of a database that is open: a copy of a WAL database
in use is no backup. Called by `webapp.admin.backup` and `webapp.admin.archive`.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec
import sqlalchemy as sa

from labelloop.errors import IntegrityError, NotFoundError, StorageFullError
from webapp.db.engine import Tx
from webapp.db.tables import backups

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
_STEP_PAGES = 2048


class BackupJob(msgspec.Struct, frozen=True):
    """One backup; `name` is its file in the folder of backups, '' while there is none, `share` how far it is, 0 to 1."""

    id: int
    state: str
    made_by: str
    name: str
    size_bytes: int
    share: float
    reason: str
    created_at: float
    updated_at: float


_COLUMNS = [backups.c[field.name] for field in msgspec.structs.fields(BackupJob)]


def add_backup(tx: Tx, made_by: str, now: float) -> BackupJob:
    """Queue a backup."""
    row = {"state": WAITING, "made_by": made_by, "name": "", "size_bytes": 0, "share": 0.0, "reason": ""}
    return BackupJob(*tx.execute(backups.insert().values(**row, created_at=now, updated_at=now).returning(*_COLUMNS)).one())


def list_backups(tx: Tx, n: int = 50) -> tuple[BackupJob, ...]:
    """Return the newest backups."""
    return tuple(BackupJob(*row) for row in tx.execute(sa.select(*_COLUMNS).order_by(backups.c.id.desc()).limit(n)))


def find_backup(tx: Tx, backup_id: int) -> BackupJob:
    """Return one backup. Raises NotFoundError."""
    row = tx.execute(sa.select(*_COLUMNS).where(backups.c.id == backup_id)).first()
    if row is None:
        raise NotFoundError(f"there is no backup number {backup_id}: see the list of backups")
    return BackupJob(*row)


def claim_backup(tx: Tx, stale_before: float, now: float) -> BackupJob | None:
    """Take the oldest backup that waits, or that a dead pilot left; None = there is none."""
    left = sa.and_(backups.c.state == RUNNING, backups.c.updated_at < stale_before)
    query = sa.select(backups.c.id).where(sa.or_(backups.c.state == WAITING, left)).order_by(backups.c.id).limit(1)
    number = tx.execute(query).scalar()
    if number is None:
        return None
    change_backup(tx, number, now, state=RUNNING, share=0.0)
    return find_backup(tx, number)


def change_backup(tx: Tx, backup_id: int, now: float, **values: object) -> None:
    """Set columns of a backup."""
    tx.execute(backups.update().where(backups.c.id == backup_id).values(**values, updated_at=now))


def copy_sqlite(source: Path, target: Path, progress: Callable[[float], None]) -> None:
    """Copy a SQLite database as of one moment, while others write to it; `progress` gets the share done.

    The reading transaction around the copy pins that moment: without it each write of others would start the copy anew.
    Raises StorageFullError, IntegrityError when the copy does not hold together.
    """
    with contextlib.closing(sqlite3.connect(source)) as reading, contextlib.closing(sqlite3.connect(target)) as writing:
        reading.isolation_level = None
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM sqlite_master").fetchone()
        try:
            reading.backup(writing, pages=_STEP_PAGES, progress=lambda _s, left, n: progress(1 - left / max(n, 1)), sleep=0)
        except sqlite3.OperationalError as exc:
            raise StorageFullError(f"the backup cannot be written to {target.parent}: {exc}") from exc
        check_sqlite(writing, target)


def check_sqlite(connection: sqlite3.Connection, path: Path) -> None:
    """Raise IntegrityError unless the database holds together."""
    try:
        said = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as exc:
        raise IntegrityError(f"{path.name} is no whole SQLite database: {exc}") from exc
    if said != ("ok",):
        raise IntegrityError(f"{path.name} does not hold together: {said[0]}")
