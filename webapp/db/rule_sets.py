"""The rules of a project and their applications to all items.

Owns the tables `rule_sets` (one row a project, its revision a fence against two editors) and `rule_jobs` (what was applied, how far
it is). Rules are kept as the pages write them: labels by name, each rule switched on or off. Progress moves in the same transaction
as the rows it counts, so that a killed application goes on exactly where it was. Called by `webapp.rules` and the pilot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from labelloop.errors import CancelledError, ConflictError, NotFoundError
from webapp.db.engine import Tx
from webapp.db.tables import rule_jobs, rule_sets

LIVE = ("waiting", "running")


class RuleSet(msgspec.Struct, frozen=True):
    """`rules` as JSON objects. Items less sure than `least_confidence` get no label; `method` names the label model."""

    revision: int = 0
    rules: tuple[dict[str, Any], ...] = ()
    least_confidence: float = 0.7
    method: str = "auto"
    updated_at: float = 0.0


class RuleJob(msgspec.Struct, frozen=True):
    """One application of the rules ('apply'), or the withdrawal of all their labels ('withdraw').

    `phase` is 'votes', 'labels' or 'withdraw', `place` the position (votes) or number (else) of the last item done in it; `done` of
    `total` steps over both phases. `labelled` items got a new label, `kept` ones had it, `withdrawn` lost theirs, `unsure` ones got
    none, `failed` ones could not be read. `views` are the rules' figures as the cluster told them.
    """

    id: int
    project_id: int
    user_id: int
    kind: str
    rules: tuple[dict[str, Any], ...]
    least_confidence: float
    method: str
    state: str
    phase: str
    place: int
    done: int
    total: int
    labelled: int
    kept: int
    withdrawn: int
    unsure: int
    failed: int
    views: tuple[dict[str, Any], ...]
    reason: str
    created_at: float
    updated_at: float


_SET = [rule_sets.c[f.name] for f in msgspec.structs.fields(RuleSet)]
_NAMES = [f.name for f in msgspec.structs.fields(RuleJob)]
_JOB = [rule_jobs.c[name] for name in _NAMES]


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def read_rules(tx: Tx, project_id: int) -> RuleSet:
    """Return the project's rules; revision 0 = nobody has written any."""
    row = tx.execute(sa.select(*_SET).where(rule_sets.c.project_id == project_id)).first()
    if row is None:
        return RuleSet()
    return RuleSet(row[0], tuple(msgspec.json.decode(row[1])), *row[2:])


def save_rules(tx: Tx, project_id: int, new: RuleSet) -> RuleSet:
    """Replace the rules that `new.revision` says the writer saw. Raises ConflictError when they have changed since."""
    saved = msgspec.structs.replace(new, revision=new.revision + 1)
    values = msgspec.structs.asdict(saved) | {"rules": _text(new.rules)}
    if new.revision == 0 and read_rules(tx, project_id).revision == 0:
        try:
            tx.execute(rule_sets.insert().values(project_id=project_id, **values))
        except sa.exc.IntegrityError as exc:
            raise _changed() from exc
        return saved
    c = rule_sets.c
    moved = tx.execute(rule_sets.update().where(c.project_id == project_id, c.revision == new.revision).values(**values))
    if not moved.rowcount:
        raise _changed()
    return saved


def _changed() -> ConflictError:
    return ConflictError("somebody else changed the rules meanwhile: load the page again, yours are in its raw view until then")


# ---------------------------------------------------------------- jobs


def _read_job(row: Sequence[Any]) -> RuleJob:
    values = dict(zip(_NAMES, row, strict=True))
    for name in ("rules", "views"):
        values[name] = tuple(msgspec.json.decode(values[name]))
    return RuleJob(**values)


def add_job(tx: Tx, project_id: int, user_id: int, kind: str, rules: RuleSet, total: int, now: float) -> RuleJob:
    """Queue a job. Raises ConflictError while another one of the project waits or runs."""
    if live_job(tx, project_id) is not None:
        raise ConflictError("rules are being applied already: wait for the end, or cancel it")
    counts = dict.fromkeys(("done", "labelled", "kept", "withdrawn", "unsure", "failed"), 0)
    fixed = {"state": "waiting", "views": "[]", "reason": "", "created_at": now, "updated_at": now}
    values = {
        "project_id": project_id,
        "user_id": user_id,
        "kind": kind,
        "rules": _text(rules.rules),
        "least_confidence": rules.least_confidence,
        "method": rules.method,
        "phase": "votes" if kind == "apply" else "withdraw",
        "place": -1,
        "total": total,
    }
    return _read_job(tx.execute(rule_jobs.insert().values(**values, **counts, **fixed).returning(*_JOB)).one())


def live_job(tx: Tx, project_id: int) -> RuleJob | None:
    """Return the job of a project that waits or runs."""
    query = sa.select(*_JOB).where(rule_jobs.c.state.in_(LIVE), rule_jobs.c.project_id == project_id).order_by(rule_jobs.c.id)
    row = tx.execute(query.limit(1)).first()
    return _read_job(row) if row else None


def projects_with_jobs(tx: Tx) -> set[int]:
    """Return the projects that have a job which waits or runs."""
    return set(tx.execute(sa.select(rule_jobs.c.project_id).where(rule_jobs.c.state.in_(LIVE))).scalars())


def last_job(tx: Tx, project_id: int, kind: str = "") -> RuleJob | None:
    """Return the newest job of a project, of any kind or of one."""
    query = sa.select(*_JOB).where(rule_jobs.c.project_id == project_id).order_by(rule_jobs.c.id.desc()).limit(1)
    row = tx.execute(query.where(rule_jobs.c.kind == kind) if kind else query).first()
    return _read_job(row) if row else None


def jobs_by_id(tx: Tx, project_id: int, job_ids: set[int]) -> dict[int, RuleJob]:
    """Return the named jobs of a project that exist."""
    rows = tx.execute(sa.select(*_JOB).where(rule_jobs.c.project_id == project_id, rule_jobs.c.id.in_(job_ids)))
    return {job.id: job for job in map(_read_job, rows)}


def move_job(tx: Tx, job_id: int, now: float, **changes: Any) -> RuleJob:
    """Record a step of a job that may go on, and return it. Raises CancelledError when it was cancelled meanwhile."""
    if "views" in changes:
        changes["views"] = _text(changes["views"])
    alive = rule_jobs.update().where(rule_jobs.c.id == job_id, rule_jobs.c.state.in_(LIVE))
    row = tx.execute(alive.values(updated_at=now, **changes).returning(*_JOB)).first()
    if row is None:
        raise CancelledError(f"application {job_id} of the rules was cancelled")
    return _read_job(row)


def cancel_job(tx: Tx, project_id: int, job_id: int, reason: str, now: float) -> RuleJob:
    """End a job that waits or runs. Raises NotFoundError, ConflictError when it has ended."""
    mine = sa.and_(rule_jobs.c.project_id == project_id, rule_jobs.c.id == job_id)
    ended = rule_jobs.update().where(mine, rule_jobs.c.state.in_(LIVE)).values(state="cancelled", reason=reason, updated_at=now)
    row = tx.execute(ended.returning(*_JOB)).first()
    if row is not None:
        return _read_job(row)
    if tx.execute(sa.select(rule_jobs.c.id).where(mine)).first() is None:
        raise NotFoundError(f"the project has no application number {job_id}")
    raise ConflictError(f"application {job_id} of the rules has ended: there is nothing to cancel")
