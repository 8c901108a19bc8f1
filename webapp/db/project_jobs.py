"""Work on a whole project that goes on in the background: labels renamed, merged or taken back, a copy being filled.

Owns the table `project_jobs`. Progress moves in the same transaction as the rows it counts, so that a pilot that is killed goes on
exactly where it was. Called by `webapp.projects` (to queue and to look) and the pilot (to do).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from labelloop.errors import CancelledError
from webapp.db.engine import Tx
from webapp.db.tables import project_jobs, projects

LIVE = ("waiting", "running")


class ProjectJob(msgspec.Struct, frozen=True):
    """`kind`: 'rename' or 'merge' (labels as they are called now), 'undo' (of the job `detail['undoes']`), 'copy' (of the project
    `detail['source']`). `done` of `total` items were looked at, `changed` of them changed; `phase` and `place` say where it is."""

    id: int
    project_id: int
    user_id: int
    kind: str
    detail: dict[str, Any]
    state: str
    phase: str
    place: int
    done: int
    total: int
    changed: int
    reason: str
    created_at: float
    updated_at: float

    @property
    def share(self) -> float:
        """How far it is, in [0, 1]."""
        return 1.0 if self.state == "done" else min(self.done / self.total, 1.0) if self.total else 0.0


_C = project_jobs.c
_NAMES = [f.name for f in msgspec.structs.fields(ProjectJob)]
_COLUMNS = [_C[name] for name in _NAMES]


def _job(row: Sequence[Any]) -> ProjectJob:
    values = dict(zip(_NAMES, row, strict=True))
    values["detail"] = msgspec.json.decode(values["detail"])
    return ProjectJob(**values)


def add_job(tx: Tx, project_id: int, user_id: int, kind: str, detail: Mapping[str, Any], total: int, now: float) -> ProjectJob:
    """Queue a job."""
    values = {"project_id": project_id, "user_id": user_id, "kind": kind, "detail": msgspec.json.encode(dict(detail)).decode()}
    fixed = {"state": "waiting", "phase": "", "place": -1, "done": 0, "total": total, "changed": 0, "reason": ""}
    query = project_jobs.insert().values(**values, **fixed, created_at=now, updated_at=now).returning(*_COLUMNS)
    return _job(tx.execute(query).one())


def find_job(tx: Tx, job_id: int) -> ProjectJob | None:
    """Return one job by its number."""
    row = tx.execute(sa.select(*_COLUMNS).where(_C.id == job_id)).first()
    return _job(row) if row else None


def list_jobs(tx: Tx, project_id: int, n: int = 50) -> tuple[ProjectJob, ...]:
    """Return the newest jobs of a project, newest first."""
    query = sa.select(*_COLUMNS).where(_C.project_id == project_id).order_by(_C.id.desc()).limit(n)
    return tuple(_job(row) for row in tx.execute(query))


def live_jobs(tx: Tx) -> tuple[ProjectJob, ...]:
    """Return the oldest job that is to be done of each project that was not deleted."""
    query = sa.select(*_COLUMNS).join(projects, projects.c.id == _C.project_id)
    rows = tx.execute(query.where(_C.state.in_(LIVE), projects.c.deleted_at.is_(None)).order_by(_C.id))
    first: dict[int, ProjectJob] = {}
    for job in map(_job, rows):
        first.setdefault(job.project_id, job)
    return tuple(first.values())


def move_job(tx: Tx, job_id: int, now: float, **changes: object) -> ProjectJob:
    """Change a live job and return it. Raises CancelledError when it was cancelled or has ended."""
    query = project_jobs.update().where(_C.id == job_id, _C.state.in_(LIVE))
    row = tx.execute(query.values(updated_at=now, **changes).returning(*_COLUMNS)).first()
    if row is None:
        raise CancelledError(f"job {job_id} was cancelled")
    return _job(row)


def mark(tx: Tx, job_id: int, state: str, reason: str, now: float) -> None:
    """Set the state of a job, whatever it was."""
    tx.execute(project_jobs.update().where(_C.id == job_id).values(state=state, reason=reason, updated_at=now))
