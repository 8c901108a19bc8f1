"""Writes labels anew under their names of today, or as they were before a merge: chunks of items, a new revision for each changed.

Owns the annotations that carry a `job_id`. A new revision is a copy of the one before it (who said it, when, in how many
seconds, on which draft) with other names, so that history is kept and every count stays as it was; it goes to the cluster in the
lane of bulk labels, behind what people say now. Must never touch an item whose labels bear today's names. Called by the pilot's
upkeep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa

from webapp.db import tables as t
from webapp.db.engine import Tx
from webapp.db.items import LABELLED, RULED
from webapp.db.projects import Project
from webapp.db.revisions import RULES_NEW
from webapp.kinds.catalogue import is_learned
from webapp.kinds.values import Value, decode_more, encode_more

STATES = (LABELLED, RULED)
_A = t.annotations.c
_COPIED = [c.name for c in _A if c.name not in ("id", "revision", "lease_id", "key", "job_id")]
_ROW = [t.items.c.id.label("number"), t.items.c.revision.label("newest"), *(_A[name] for name in _COPIED), _A.job_id]
_FROM = t.items.join(t.annotations, _A.id == t.items.c.annotation_id)
Change = Callable[[Tx, Project, Any], dict[str, Any] | None]


class Chunk(msgspec.Struct, frozen=True):
    """A walk's next items: how many were looked at, the place of the last, and the numbers of those that may have to change."""

    n: int
    place: int
    numbers: list[int]


def next_chunk(tx: Tx, project: Project, state: int, place: int, n: int, undone_job: int | None) -> Chunk:
    """Look at up to `n` items in a state behind a position: which bear an earlier name, or (`undone_job`) a label of that job."""
    query = sa.select(t.items.c.id, t.items.c.position, _A.labels, _A.value, _A.job_id).select_from(_FROM)
    mine = sa.and_(t.items.c.project_id == project.id, t.items.c.state == state, t.items.c.position > place)
    rows = tx.execute(query.where(mine).order_by(t.items.c.position).limit(n)).all()
    if undone_job is None:
        numbers = [row[0] for row in rows if _names(row[2], row[3]) & project.label_set.left]
    else:
        numbers = [row[0] for row in rows if row[4] == undone_job]
    return Chunk(len(rows), rows[-1][1] if rows else place, numbers)


def _names(labels: str, more: str | None) -> set[str]:
    value = decode_more(tuple(msgspec.json.decode(labels)), more)
    return {*value.labels, *(mark.label for mark in value.marks), *(one.label for one in value.relations)}


def rewrite(tx: Tx, project: Project, numbers: Sequence[int], job_id: int, change: Change, now: float) -> int:
    """Write a new revision of each of the items for which `change` returns what is new in it; return how many."""
    query = sa.select(*_ROW).select_from(_FROM).where(t.items.c.id.in_(list(numbers)), t.items.c.state.in_(STATES))
    new: list[dict[str, Any]] = []
    for row in tx.execute(query.order_by(t.items.c.id).with_for_update(of=t.items)).mappings().all():
        changed = change(tx, project, row)
        if changed is not None:
            copied = {name: row[name] for name in _COPIED}
            new.append({**copied, **changed, "revision": row["newest"] + 1, "job_id": job_id})
    if not new:
        return 0
    tx.execute(t.annotations.insert(), new)
    items = [one["item"] for one in new]
    made = sa.select(_A.item, sa.func.max(_A.id)).where(_A.item.in_(items), _A.job_id == job_id).group_by(_A.item)
    ids = {row[0]: row[1] for row in tx.execute(made)}
    tx.execute(_MOVE, [{"number": one["item"], "new": one["revision"], "current": ids[one["item"]]} for one in new])
    if not is_learned(project.category, project.kind):
        return len(new)
    fixed = {"project_id": project.id, "state": RULES_NEW, "attempts": 0, "created_at": now}
    tx.execute(t.outbox.insert(), [{"annotation_id": ids[item], **fixed} for item in items])
    return len(new)


_MOVE = (
    t.items.update()
    .where(t.items.c.id == sa.bindparam("number"))
    .values(revision=sa.bindparam("new"), annotation_id=sa.bindparam("current"))
)


def as_now(_tx: Tx, project: Project, row: Any) -> dict[str, Any] | None:
    """Return an annotation's labels as they are called now, None where they are."""
    if not _names(row["labels"], row["value"]) & project.label_set.left:
        return None
    value = project.read_value(row["labels"], row["value"])
    proba = _proba_now(project, row["proba"]) if row["proba"] else None
    return {**_stored(value), "proba": proba}


def _stored(value: Value) -> dict[str, Any]:
    return {"labels": msgspec.json.encode(value.labels).decode(), "value": encode_more(value)}


def _proba_now(project: Project, stored: bytes) -> bytes:
    """Return probabilities by number with those of numbers that were left added to the ones that took them over."""
    known = np.frombuffer(stored, "<f4")
    out = np.zeros(len(project.numbered), "<f4")
    np.add.at(out, np.array(project.label_set.resolved[: len(known)], np.int64), known)
    return out.tobytes()


def as_before(tx: Tx, project: Project, row: Any) -> dict[str, Any] | None:
    """Return what an annotation said before the job that wrote it; None where that is gone."""
    of_item = sa.and_(_A.item == row["item"], _A.revision == row["newest"] - 1)
    before = tx.execute(sa.select(_A.labels, _A.value, _A.proba).where(of_item)).first()
    if before is None:
        return None
    return {**_stored(project.read_value(before[0], before[1])), "proba": before[2]}


def move_votes(tx: Tx, project: Project) -> None:
    """Let what rules said last of their items be said by today's numbers."""
    votes = t.rule_votes
    for number, now in enumerate(project.label_set.resolved):
        if number != now:
            mine = sa.and_(votes.c.project_id == project.id, votes.c.said == number)
            tx.execute(votes.update().where(mine).values(said=now))
