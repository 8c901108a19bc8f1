"""Import jobs: what was uploaded, how far it is in, which rows were refused.

Owns the tables `import_jobs` and `import_errors`. Progress moves in the same transaction as the rows it counts, so that a killed
import goes on exactly where it was. Called by `webapp.transfer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from labelloop.errors import ConflictError, NotFoundError
from webapp.db.engine import Tx
from webapp.db.tables import import_errors, import_jobs

KEPT_ERRORS = 1000


class ImportJob(msgspec.Struct, frozen=True):
    """One import. `offset` is where the next row begins (bytes, or files of an archive) of `total`; `line` counts rows read."""

    id: int
    project_id: int
    user_id: int
    kind: str
    name: str
    path: str
    options: dict[str, Any]
    state: str
    offset_bytes: int
    total_bytes: int
    line: int
    added: int
    known: int
    failed: int
    reason: str
    created_at: float
    updated_at: float


class RowError(msgspec.Struct, frozen=True):
    """Why one row of an import was refused."""

    line: int
    name: str
    reason: str


class Progress(msgspec.Struct, frozen=True):
    """What one chunk did."""

    offset: int
    line: int
    added: int
    known: int
    errors: tuple[RowError, ...]
    total: int = 0  # what the places run up to, where only reading told; 0 = as it is


_NAMES = [f.name for f in msgspec.structs.fields(ImportJob)]
_COLUMNS = [import_jobs.c[name] for name in _NAMES]


def _job(row: Sequence[Any]) -> ImportJob:
    values = dict(zip(_NAMES, row, strict=True))
    values["options"] = msgspec.json.decode(values["options"])
    return ImportJob(**values)


def add_job(
    tx: Tx, project_id: int, user_id: int, kind: str, name: str, path: str, options: Mapping[str, Any], total: int, now: float
) -> ImportJob:
    """Queue an import."""
    counts = dict.fromkeys(("offset_bytes", "line", "added", "known", "failed"), 0)
    values = {"project_id": project_id, "user_id": user_id, "kind": kind, "name": name, "path": path, "total_bytes": total}
    text = msgspec.json.encode(dict(options)).decode()
    fixed = {"options": text, "state": "waiting", "reason": "", "owner": "", "created_at": now, "updated_at": now}
    return _job(tx.execute(import_jobs.insert().values(**values, **counts, **fixed).returning(*_COLUMNS)).one())


def find_job(tx: Tx, project_id: int, job_id: int) -> ImportJob:
    """Return one import of a project. Raises NotFoundError."""
    row = tx.execute(sa.select(*_COLUMNS).where(import_jobs.c.project_id == project_id, import_jobs.c.id == job_id)).first()
    if row is None:
        raise NotFoundError(f"the project has no import number {job_id}")
    return _job(row)


def list_jobs(tx: Tx, project_id: int, n: int = 50) -> tuple[ImportJob, ...]:
    """Return the newest imports of a project."""
    query = sa.select(*_COLUMNS).where(import_jobs.c.project_id == project_id).order_by(import_jobs.c.id.desc()).limit(n)
    return tuple(_job(row) for row in tx.execute(query))


def has_waiting(tx: Tx, stale_before: float) -> bool:
    """Return whether an import waits, or was left by a process that died."""
    return tx.execute(sa.select(import_jobs.c.id).where(_claimable(stale_before)).limit(1)).first() is not None


def _claimable(stale_before: float) -> sa.ColumnElement[bool]:
    left = sa.and_(import_jobs.c.state == "running", import_jobs.c.updated_at < stale_before)
    return sa.or_(import_jobs.c.state == "waiting", left)


def claim_job(tx: Tx, owner: str, stale_before: float, now: float) -> ImportJob | None:
    """Take the oldest import that waits, or that its process left; None = there is none."""
    first = sa.select(import_jobs.c.id).where(_claimable(stale_before)).order_by(import_jobs.c.id).limit(1)
    number = tx.execute(first.with_for_update(skip_locked=True)).scalar()
    if number is None:
        return None
    query = import_jobs.update().where(import_jobs.c.id == number)
    return _job(tx.execute(query.values(state="running", owner=owner, updated_at=now).returning(*_COLUMNS)).one())


def advance(tx: Tx, job_id: int, owner: str, progress: Progress, now: float) -> None:
    """Record one chunk. Raises ConflictError when another process took the import over."""
    c = import_jobs.c
    moved = tx.execute(
        import_jobs.update()
        .where(c.id == job_id, c.owner == owner, c.state == "running")
        .values(
            offset_bytes=progress.offset,
            line=progress.line,
            added=c.added + progress.added,
            known=c.known + progress.known,
            failed=c.failed + len(progress.errors),
            total_bytes=progress.total or c.total_bytes,
            updated_at=now,
        )
    )
    if not moved.rowcount:
        raise ConflictError(f"import {job_id} was cancelled or taken over by another process")
    if progress.errors:
        kept = int(tx.execute(sa.select(sa.func.count()).where(import_errors.c.job_id == job_id)).scalar_one())
        rows = [{"job_id": job_id, **msgspec.structs.asdict(e)} for e in progress.errors[: max(KEPT_ERRORS - kept, 0)]]
        if rows:
            tx.execute(import_errors.insert(), rows)


def cancel_job(tx: Tx, project_id: int, job_id: int, now: float) -> ImportJob:
    """End an import that has not ended, and return it as it is; what is in stays in. Raises NotFoundError."""
    c = import_jobs.c
    query = import_jobs.update().where(c.project_id == project_id, c.id == job_id, c.state.in_(("waiting", "running")))
    tx.execute(query.values(state="cancelled", updated_at=now))
    return find_job(tx, project_id, job_id)


def touch(tx: Tx, job_id: int, owner: str, now: float) -> None:
    """Say that the import's process lives, between two chunks."""
    tx.execute(import_jobs.update().where(import_jobs.c.id == job_id, import_jobs.c.owner == owner).values(updated_at=now))


def finish_job(tx: Tx, job_id: int, owner: str, state: str, reason: str, now: float) -> None:
    """End an import as 'done' or 'failed', unless it was cancelled."""
    mine = sa.and_(import_jobs.c.id == job_id, import_jobs.c.owner == owner, import_jobs.c.state == "running")
    tx.execute(import_jobs.update().where(mine).values(state=state, reason=reason, updated_at=now))


def errors_of(tx: Tx, job_id: int, n: int = KEPT_ERRORS) -> tuple[RowError, ...]:
    """Return the refused rows of an import, the first `n`."""
    query = sa.select(import_errors.c.line, import_errors.c.name, import_errors.c.reason).where(import_errors.c.job_id == job_id)
    return tuple(RowError(*row) for row in tx.execute(query.order_by(import_errors.c.id).limit(n)))


def cancel_all(tx: Tx, project_id: int, reason: str, now: float) -> None:
    """End every import of a project that has not ended."""
    mine = sa.and_(import_jobs.c.project_id == project_id, import_jobs.c.state.in_(("waiting", "running")))
    tx.execute(import_jobs.update().where(mine).values(state="failed", reason=reason, owner="", updated_at=now))
