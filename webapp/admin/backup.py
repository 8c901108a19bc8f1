"""Backups that an admin asks for: queued by a page, made by the pilot, listed, downloaded, deleted.

Owns the life of a backup. Must never hand out a path that a person wrote. Called by the API and the pilot.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from labelloop.errors import ConflictError, LabelloopError, NotFoundError
from labelloop.settings import Settings
from webapp.admin.archive import backup_dir, make_archive
from webapp.db import backups, operations
from webapp.db.backups import BackupJob
from webapp.db.engine import Database
from webapp.db.users import User

logger = logging.getLogger(__name__)
STALE_S = 300.0
_SAY_S = 0.5


def ask(database: Database, user: User) -> BackupJob:
    """Queue a backup. Raises ConflictError while one waits or runs."""
    with database.write() as tx:
        going = next((one for one in backups.list_backups(tx) if one.state in (backups.WAITING, backups.RUNNING)), None)
        if going is not None:
            raise ConflictError(f"backup {going.id} is {going.state}: wait for its end")
        operations.add_operation(tx, "admin", "asked for a backup")
        return backups.add_backup(tx, user.name, time.time())


def list_all(database: Database) -> tuple[BackupJob, ...]:
    """Return the newest backups."""
    with database.read() as tx:
        return backups.list_backups(tx)


def file_of(database: Database, settings: Settings, backup_id: int) -> Path:
    """Return the file of a backup that is to be downloaded, and note who took it. Raises NotFoundError."""
    with database.write() as tx:
        job = backups.find_backup(tx, backup_id)
        path = backup_dir(settings) / (job.name or "-")
        if job.state != backups.DONE or not path.is_file():
            raise NotFoundError(f"backup {backup_id} has no file: it is {job.state}, or its file was removed")
        operations.add_operation(tx, "admin", f"downloaded backup {job.name}")
    return path


def drop(database: Database, settings: Settings, backup_id: int) -> None:
    """Delete the file of a backup; its row stays, and says so. Raises NotFoundError, ConflictError (it is being made)."""
    with database.write() as tx:
        job = backups.find_backup(tx, backup_id)
        if job.state in (backups.WAITING, backups.RUNNING):
            raise ConflictError(f"backup {job.id} is {job.state}: wait for its end")
        operations.add_operation(tx, "admin", f"deleted backup {job.name or job.id}")
        backups.change_backup(tx, backup_id, time.time(), state="deleted", reason="deleted by an admin")
    if job.name:
        (backup_dir(settings) / job.name).unlink(missing_ok=True)


def make_next(database: Database, settings: Settings) -> bool:
    """Make the backup that waits; False = there is none. What fails is written on the backup."""
    with database.read() as tx:
        if not any(one.state in (backups.WAITING, backups.RUNNING) for one in backups.list_backups(tx)):
            return False
    with database.write() as tx:
        job = backups.claim_backup(tx, time.time() - STALE_S, time.time())
    if job is None:
        return False
    try:
        made = make_archive(settings, backup_dir(settings), _Teller(database, job.id).say)
        done = {"state": backups.DONE, "name": made.name, "size_bytes": made.stat().st_size, "share": 1.0}
    except (LabelloopError, OSError) as exc:
        logger.warning("backup %d failed: %s", job.id, exc)
        done = {"state": backups.FAILED, "reason": str(exc)[:500]}
    with database.write() as tx:
        backups.change_backup(tx, job.id, time.time(), **done)
    return True


class _Teller:
    """Writes down how far a backup is, now and then."""

    def __init__(self, database: Database, backup_id: int) -> None:
        self._database, self._id = database, backup_id
        self._said_s = float("-inf")

    def say(self, share: float) -> None:
        now_s = time.monotonic()
        if now_s - self._said_s < _SAY_S:
            return
        self._said_s = now_s
        with self._database.write() as tx:
            backups.change_backup(tx, self._id, time.time(), share=round(share, 3))
