"""Drafts accepted in bulk: the jobs, the items each of them labelled, and how the labels are written and withdrawn by the chunk.

Owns the tables `bulk_jobs` and `bulk_items` and the annotations whose source is 'bulk'. Must never touch an item that a person has
labelled or has in hand. Progress moves in the same transaction as the labels it counts, so that a job that was killed goes on
exactly where it was. Called by `webapp.people.bulk` and the pilot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa

from labelloop.errors import CancelledError, ConflictError, NotFoundError
from webapp.db import leases, tallies
from webapp.db import tables as t
from webapp.db.drafts import Draft
from webapp.db.engine import Tx
from webapp.db.items import LABELLED, OPEN
from webapp.db.leases import Leased
from webapp.db.opinions import AUDIT, DECIDED, GIVEN, text_of
from webapp.db.projects import Project
from webapp.db.revisions import BULK, RULES_NEW

LIVE = ("waiting", "running", "undoing")
_B, _I = t.bulk_jobs.c, t.bulk_items.c


class BulkJob(msgspec.Struct, frozen=True):
    """One acceptance of all drafts over a confidence. `done` of `total` items were looked at, `place` is the position (undoing: the
    number) of the last; `audit` of the `accepted` items go to people blind; `withdrawn` were taken back by an undo."""

    id: int
    project_id: int
    user_id: int
    least_confidence: float
    audit: int
    state: str
    place: int
    done: int
    total: int
    accepted: int
    withdrawn: int
    reason: str
    created_at: float
    updated_at: float


_JOB = [_B[f.name] for f in msgspec.structs.fields(BulkJob)]


def add_job(tx: Tx, project_id: int, user_id: int, least: float, audit: int, total: int, now: float) -> BulkJob:
    """Queue a job. Raises ConflictError while another one of the project is under way."""
    if live_job(tx, project_id) is not None:
        raise ConflictError("drafts are being accepted already: wait for the end, or cancel it")
    counts = {"place": -1, "done": 0, "total": total, "accepted": 0, "withdrawn": 0}
    values = {"project_id": project_id, "user_id": user_id, "least_confidence": least, "audit": audit, "state": "waiting"}
    values |= {"reason": "", "created_at": now, "updated_at": now}
    return BulkJob(*tx.execute(t.bulk_jobs.insert().values(**values, **counts).returning(*_JOB)).one())


def live_job(tx: Tx, project_id: int) -> BulkJob | None:
    """Return the job of a project that is under way."""
    row = tx.execute(sa.select(*_JOB).where(_B.project_id == project_id, _B.state.in_(LIVE)).limit(1)).first()
    return BulkJob(*row) if row else None


def projects_with_jobs(tx: Tx) -> list[int]:
    """Return the projects that have a job under way."""
    return list(tx.execute(sa.select(_B.project_id).where(_B.state.in_(LIVE)).distinct()).scalars())


def last_jobs(tx: Tx, project_id: int, n: int) -> tuple[BulkJob, ...]:
    """Return the newest jobs of a project."""
    rows = tx.execute(sa.select(*_JOB).where(_B.project_id == project_id).order_by(_B.id.desc()).limit(n))
    return tuple(BulkJob(*row) for row in rows)


def move_job(tx: Tx, job: BulkJob, now: float, **changes: object) -> BulkJob:
    """Record a step of a job that may go on. Raises CancelledError when it was cancelled or turned round meanwhile."""
    alive = t.bulk_jobs.update().where(_B.id == job.id, _B.state.in_(LIVE), _B.state == job.state)
    row = tx.execute(alive.values(updated_at=now, **changes).returning(*_JOB)).first()
    if row is None:
        raise CancelledError(f"bulk acceptance {job.id} was cancelled")
    return BulkJob(*row)


def turn_job(tx: Tx, project_id: int, job_id: int, state: str, of: Sequence[str], now: float, **changes: object) -> BulkJob:
    """Cancel a job or begin its undo, where its state is one `of` these. Raises NotFoundError, ConflictError."""
    mine = sa.and_(_B.project_id == project_id, _B.id == job_id)
    turned = t.bulk_jobs.update().where(mine, _B.state.in_(list(of))).values(state=state, updated_at=now, **changes)
    row = tx.execute(turned.returning(*_JOB)).first()
    if row is not None:
        return BulkJob(*row)
    now_is = tx.execute(sa.select(_B.state).where(mine)).scalar()
    if now_is is None:
        raise NotFoundError(f"the project has no bulk acceptance number {job_id}")
    raise ConflictError(f"bulk acceptance {job_id} is {now_is}: there is nothing to {'undo' if state == 'undoing' else 'cancel'}")


# ---------------------------------------------------------------- accepting


def drafts_after(tx: Tx, project: Project, after: int, n: int, now: float) -> list[tuple[int, Leased]]:
    """Return up to `n` items behind a position that no person has labelled or in hand, with their drafts, by position."""
    source = leases.join_shown(t.items.outerjoin(t.leases, t.leases.c.item == t.items.c.id))
    is_free = sa.or_(t.leases.c.item.is_(None), t.leases.c.expires_at <= now)
    query = sa.select(t.items.c.position, *leases.item_columns()).select_from(source)
    query = query.where(t.items.c.project_id == project.id, t.items.c.state == OPEN, t.items.c.position > after, is_free)
    rows = tx.execute(query.order_by(t.items.c.position).limit(n).with_for_update(of=t.items, skip_locked=True))
    return [(row[0], leases.read_leased(project, row[1:], 0.0)) for row in rows]


def accept(tx: Tx, project: Project, job: BulkJob, chosen: Sequence[Leased], now: float) -> int:
    """Make the drafts of these items their labels; return how many. They reach the cluster behind people's, with the model's own
    confidence as their probability, so that no version is ever judged on them."""
    if not chosen:
        return 0
    numbers = [one.number for one in chosen]
    revisions = _revisions(tx, numbers)
    fixed = {"project_id": project.id, "is_deleted": False, "user_id": job.user_id, "is_corrected": False, "source": BULK}
    rows = [_row(project, one, revisions[one.number] + 1) | fixed | {"window_no": 0, "created_at": now} for one in chosen]
    tx.execute(t.annotations.insert(), rows)
    _point(tx, numbers, LABELLED)
    _send(tx, project, numbers, now)
    tx.execute(t.bulk_items.delete().where(_I.item.in_(numbers)))
    tx.execute(t.bulk_items.insert(), [{"item": number, "project_id": project.id, "job_id": job.id} for number in numbers])
    tx.execute(t.leases.delete().where(t.leases.c.item.in_(numbers)))
    tallies.add(tx, project.id, tallies.Tally(labels=len(numbers)))
    return len(numbers)


def _revisions(tx: Tx, numbers: Sequence[int]) -> dict[int, int]:
    return {row[0]: row[1] for row in tx.execute(sa.select(t.items.c.id, t.items.c.revision).where(t.items.c.id.in_(numbers)))}


def _row(project: Project, one: Leased, revision: int) -> dict[str, Any]:
    draft = one.draft
    assert draft is not None
    text = text_of(draft.labels)
    proba = _proba(project, draft.labels, draft.confidence) if _has_proba(project, draft) else None
    said = {"labels": text, "value": draft.value, "draft": text, "draft_value": draft.value, "draft_version": draft.version}
    return {"item": one.number, "revision": revision, "proba": proba} | said


def _has_proba(project: Project, draft: Draft) -> bool:
    return project.is_multilabel or (project.kind == "multiclass" and len(draft.labels) == 1)


def _proba(project: Project, labels: Sequence[str], confidence: float) -> bytes:
    """Return the probability of each number: the draft's confidence, the rest spread evenly over the other labels in use.

    Of several labels an item each is on its own: the confidence is that of the least sure, so each is at least as sure as this.
    """
    numbers = project.label_set.numbers
    proba = np.zeros(len(project.numbered), dtype="<f4")
    rest = 1 - confidence if project.is_multilabel else (1 - confidence) / max(len(project.labels) - 1, 1)
    proba[[numbers[name] for name in project.labels]] = rest
    proba[[numbers[name] for name in labels]] = confidence
    return proba.tobytes()


def _point(tx: Tx, numbers: Sequence[int], state: int) -> None:
    """Let items stand at their newest revision."""
    a = t.annotations.alias()
    newest = sa.select(sa.func.max(a.c.revision)).where(a.c.item == t.items.c.id).correlate(t.items).scalar_subquery()
    which = sa.select(t.annotations.c.id).where(t.annotations.c.item == t.items.c.id, t.annotations.c.revision == newest)
    current = which.correlate(t.items).scalar_subquery() if state == LABELLED else sa.null()
    tx.execute(t.items.update().where(t.items.c.id.in_(numbers)).values(state=state, revision=newest, annotation_id=current))


def _send(tx: Tx, project: Project, numbers: Sequence[int], now: float) -> None:
    """Give the newest revision of each item its outbox row, behind the labels of people; none where the cluster learns nothing."""
    if not project.is_learned:
        return
    source = t.items.join(
        t.annotations,
        sa.and_(t.annotations.c.item == t.items.c.id, t.annotations.c.revision == t.items.c.revision),
    )
    new = sa.select(sa.literal(project.id), t.annotations.c.id, sa.literal(RULES_NEW), sa.literal(0), sa.literal(now))
    new = new.select_from(source).where(t.items.c.id.in_(numbers))
    tx.execute(t.outbox.insert().from_select(["project_id", "annotation_id", "state", "attempts", "created_at"], new))


# ---------------------------------------------------------------- undo


def still_accepted(tx: Tx, job: BulkJob, after: int, n: int) -> tuple[list[int], int]:
    """Return those of the next `n` items of a job whose label is still that of the job, and the last item looked at (-1 = none)."""
    query = sa.select(_I.item, t.items.c.state, t.annotations.c.source)
    query = query.join(t.items, t.items.c.id == _I.item).outerjoin(t.annotations, t.annotations.c.id == t.items.c.annotation_id)
    rows = tx.execute(query.where(_I.job_id == job.id, _I.item > after).order_by(_I.item).limit(n)).all()
    kept = [row[0] for row in rows if row[1] == LABELLED and row[2] == BULK]
    return kept, rows[-1][0] if rows else -1


def withdraw(tx: Tx, project: Project, job: BulkJob, numbers: Sequence[int], now: float) -> None:
    """Take the labels of these items back with a new revision each; they are asked of people again."""
    if not numbers:
        return
    revisions = _revisions(tx, numbers)
    fixed = {"project_id": project.id, "is_deleted": True, "user_id": job.user_id, "is_corrected": False, "source": BULK}
    fixed |= {"labels": "[]", "window_no": 0, "created_at": now}
    tx.execute(t.annotations.insert(), [{"item": one, "revision": revisions[one] + 1} | fixed for one in numbers])
    _point(tx, numbers, OPEN)
    _send(tx, project, numbers, now)
    tallies.add(tx, project.id, tallies.Tally(labels=-len(numbers)))


def drop_items(tx: Tx, job: BulkJob, upto: int) -> None:
    """Forget which items a job labelled, up to one, and the audits of them that nobody has answered."""
    waiting = sa.select(t.rounds.c.item).where(t.rounds.c.job_id == job.id, t.rounds.c.state != DECIDED, t.rounds.c.item <= upto)
    gone = list(tx.execute(waiting).scalars())
    open_ones = sa.and_(t.opinions.c.item.in_(gone), t.opinions.c.purpose == AUDIT, t.opinions.c.state != GIVEN)
    tx.execute(t.opinions.delete().where(open_ones))
    tx.execute(t.rounds.delete().where(t.rounds.c.item.in_(gone)))
    tx.execute(t.bulk_items.delete().where(_I.job_id == job.id, _I.item <= upto))


# ---------------------------------------------------------------- audit


def draw_audit(tx: Tx, job: BulkJob, n: int, seed: int) -> list[int]:
    """Return up to `n` of a job's items at random: those whose numbers come first in an order made by `seed`."""
    numbers = np.fromiter(tx.execute(sa.select(_I.item).where(_I.job_id == job.id)).scalars(), dtype=np.int64)
    chosen = np.random.default_rng(seed).choice(numbers, size=min(n, len(numbers)), replace=False)
    return [int(number) for number in np.sort(chosen)]


def audited(tx: Tx, job_id: int) -> tuple[int, int, int]:
    """Return how many of a job's items were drawn for the audit, how many were looked at, and how many of those were wrong."""
    r, o = t.rounds.c, t.opinions.c
    drawn = tx.execute(sa.select(sa.func.count()).select_from(t.rounds).where(r.job_id == job_id)).scalar_one()
    looked = sa.select(sa.func.count(), sa.func.sum(sa.case((sa.not_(o.is_right), 1), else_=0)))
    looked = looked.select_from(t.rounds.join(t.opinions, o.item == r.item))
    row = tx.execute(looked.where(r.job_id == job_id, o.purpose == AUDIT, o.state == GIVEN, o.is_right.is_not(None))).one()
    return int(drawn), int(row[0]), int(row[1] or 0)
