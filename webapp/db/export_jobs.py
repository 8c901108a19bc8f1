"""Export jobs: what was asked for, how far it is, what could not be carried, where the file lies.

Owns the table `export_jobs`. A job's place moves only with the lengths of its files, so that a killed export goes on exactly where
it was. Called by `webapp.transfer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from labelloop.errors import ConflictError, NotFoundError
from webapp.db.engine import Tx
from webapp.db.tables import export_jobs

KEPT_PROBLEMS = 1000


class Problem(msgspec.Struct, frozen=True):
    """Why one item is not in an export."""

    item_id: str
    reason: str


class ExportJob(msgspec.Struct, frozen=True):
    """One export. `place` is the writer's own record of where it is (JSON); `done` of `total` items were looked at."""

    id: int
    project_id: int
    user_id: int
    format: str
    options: dict[str, Any]
    state: str
    place: str
    done: int
    total: int
    refused: int
    problems: list[Problem]
    size_bytes: int
    reason: str
    created_at: float
    updated_at: float


_NAMES = [f.name for f in msgspec.structs.fields(ExportJob)]
_COLUMNS = [export_jobs.c[name] for name in _NAMES]


def _job(row: Sequence[Any]) -> ExportJob:
    values = dict(zip(_NAMES, row, strict=True))
    values["options"] = msgspec.json.decode(values["options"])
    values["problems"] = msgspec.json.decode(values["problems"], type=list[Problem])
    return ExportJob(**values)


def add_job(tx: Tx, project_id: int, user_id: int, form: str, options: Mapping[str, Any], now: float) -> ExportJob:
    """Queue an export."""
    fixed = {"state": "waiting", "place": "", "problems": "[]", "reason": "", "owner": "", "created_at": now, "updated_at": now}
    counts = dict.fromkeys(("done", "total", "refused", "size_bytes"), 0)
    values = {"project_id": project_id, "user_id": user_id, "format": form, "options": msgspec.json.encode(dict(options)).decode()}
    return _job(tx.execute(export_jobs.insert().values(**values, **fixed, **counts).returning(*_COLUMNS)).one())


def find_job(tx: Tx, project_id: int, job_id: int) -> ExportJob:
    """Return one export of a project. Raises NotFoundError."""
    row = tx.execute(sa.select(*_COLUMNS).where(export_jobs.c.project_id == project_id, export_jobs.c.id == job_id)).first()
    if row is None:
        raise NotFoundError(f"the project has no export number {job_id}")
    return _job(row)


def list_jobs(tx: Tx, project_id: int, n: int = 50) -> tuple[ExportJob, ...]:
    """Return the newest exports of a project."""
    query = sa.select(*_COLUMNS).where(export_jobs.c.project_id == project_id).order_by(export_jobs.c.id.desc()).limit(n)
    return tuple(_job(row) for row in tx.execute(query))


def _claimable(stale_before: float) -> sa.ColumnElement[bool]:
    c = export_jobs.c
    return sa.or_(c.state == "waiting", sa.and_(c.state == "running", c.updated_at < stale_before))


def has_waiting(tx: Tx, stale_before: float) -> bool:
    """Return whether an export waits, or was left by a process that died."""
    return tx.execute(sa.select(export_jobs.c.id).where(_claimable(stale_before)).limit(1)).first() is not None


def claim_job(tx: Tx, owner: str, stale_before: float, now: float) -> ExportJob | None:
    """Take the oldest export that waits, or that its process left; None = there is none."""
    first = sa.select(export_jobs.c.id).where(_claimable(stale_before)).order_by(export_jobs.c.id).limit(1)
    number = tx.execute(first.with_for_update(skip_locked=True)).scalar()
    if number is None:
        return None
    query = export_jobs.update().where(export_jobs.c.id == number)
    return _job(tx.execute(query.values(state="running", owner=owner, updated_at=now).returning(*_COLUMNS)).one())


def _move(tx: Tx, job_id: int, owner: str, values: Mapping[str, Any]) -> None:
    c = export_jobs.c
    mine = sa.and_(c.id == job_id, c.owner == owner, c.state == "running")
    if not tx.execute(export_jobs.update().where(mine).values(**values)).rowcount:
        raise ConflictError(f"export {job_id} was cancelled or taken over by another process")


def advance(tx: Tx, job_id: int, owner: str, place: str, done: int, total: int, refused: Sequence[Problem], now: float) -> None:
    """Record one page. Raises ConflictError when the export was cancelled, or another process took it over."""
    values: dict[str, Any] = {"place": place, "done": done, "total": total, "updated_at": now}
    if refused:
        row = tx.execute(sa.select(export_jobs.c.problems, export_jobs.c.refused).where(export_jobs.c.id == job_id)).one()
        known = msgspec.json.decode(row[0], type=list[Problem])
        kept = [*known, *refused[: max(KEPT_PROBLEMS - len(known), 0)]]
        values |= {"problems": msgspec.json.encode(kept).decode(), "refused": row[1] + len(refused)}
    _move(tx, job_id, owner, values)


def touch(tx: Tx, job_id: int, owner: str, now: float) -> None:
    """Say that the export's process lives. Raises ConflictError as `advance`."""
    _move(tx, job_id, owner, {"updated_at": now})


def finish_job(tx: Tx, job_id: int, owner: str, state: str, reason: str, size_bytes: int, now: float) -> None:
    """End an export as 'done' or 'failed'. Raises ConflictError as `advance`."""
    _move(tx, job_id, owner, {"state": state, "reason": reason, "size_bytes": size_bytes, "place": "", "updated_at": now})


def cancel_job(tx: Tx, project_id: int, job_id: int, now: float) -> None:
    """End an export that has not ended; one that has stays as it is."""
    c = export_jobs.c
    query = export_jobs.update().where(c.project_id == project_id, c.id == job_id, c.state.in_(("waiting", "running")))
    tx.execute(query.values(state="cancelled", updated_at=now))


def drop_job(tx: Tx, project_id: int, job_id: int) -> None:
    """Forget an export."""
    tx.execute(export_jobs.delete().where(export_jobs.c.project_id == project_id, export_jobs.c.id == job_id))


def ended_before(tx: Tx, before: float) -> list[tuple[int, int]]:
    """Return (project, export) of those that ended before a time, whose files may go."""
    c = export_jobs.c
    query = sa.select(c.project_id, c.id).where(c.state.in_(("done", "failed", "cancelled")), c.updated_at < before)
    return [(row[0], row[1]) for row in tx.execute(query)]


def live_ids(tx: Tx) -> set[int]:
    """Return the numbers of all exports that are known."""
    return set(tx.execute(sa.select(export_jobs.c.id)).scalars())
