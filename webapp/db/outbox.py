"""The outbox: labels on their way to the cluster. A row stays until the cluster's label log has it or refuses it.

Owns the life of `outbox` rows: new → sent (with a batch id that never changes) → done or failed. Labels of rules have states of
their own for the first two, so that a hundred thousand of them never stand before one of a person. Must never merge or reorder what
is in a batch: repeating a batch has to be the same bytes. Called by the pilot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from webapp.db import tables as t
from webapp.db.engine import Tx
from webapp.db.revisions import DONE, FAILED, NEW, RULES_NEW, RULES_SENT, SENT

OF_PEOPLE, OF_RULES = (NEW, SENT), (RULES_NEW, RULES_SENT)
_IN_FLIGHT = (SENT, RULES_SENT)
_OPEN = (*OF_PEOPLE, *OF_RULES)


class Row(msgspec.Struct, frozen=True):
    """One label on its way, with all that a sample needs."""

    id: int
    batch_id: str | None
    attempts: int
    master: str | None
    sent_at: float | None
    item_id: str
    link: str | None
    content: str | None
    revision: int
    labels: tuple[str, ...]
    is_deleted: bool
    annotator: str
    draft: tuple[str, ...] | None
    draft_version: str | None
    source: str
    proba: bytes | None
    value: str | None
    draft_value: str | None


class Failure(msgspec.Struct, frozen=True):
    """A label that the cluster refused, with its reason."""

    item_id: str
    revision: int
    reason: str


_FROM = (
    t.outbox.join(t.annotations, t.annotations.c.id == t.outbox.c.annotation_id)
    .join(t.items, t.items.c.id == t.annotations.c.item)
    .join(t.users, t.users.c.id == t.annotations.c.user_id)
)
_COLUMNS = [
    *(t.outbox.c[n] for n in ("id", "batch_id", "attempts", "master", "sent_at")),
    *(t.items.c[n] for n in ("item_id", "link", "content")),
    *(t.annotations.c[n] for n in ("revision", "labels", "is_deleted")),
    t.users.c.name,
    *(t.annotations.c[n] for n in ("draft", "draft_version", "source", "proba", "value", "draft_value")),
]
_OF = [t.outbox.c.state == sa.bindparam("state"), t.outbox.c.project_id == sa.bindparam("project_id")]
_NEXT_PROJECT = sa.select(sa.func.min(t.outbox.c.project_id)).where(
    t.outbox.c.state == sa.bindparam("state"), t.outbox.c.project_id > sa.bindparam("last")
)
_BY_STATE = sa.select(*_COLUMNS).select_from(_FROM).where(*_OF).order_by(t.outbox.c.id).limit(sa.bindparam("n"))


def _row(values: Any) -> Row:
    fields = list(values)
    fields[9] = tuple(msgspec.json.decode(fields[9]))
    fields[12] = tuple(msgspec.json.decode(fields[12])) if fields[12] is not None else None
    return Row(*fields)


def projects_with(tx: Tx, state: int) -> list[int]:
    """Return the projects that have rows in this state (one index step a project)."""
    found: list[int] = []
    last = tx.execute(_NEXT_PROJECT, {"state": state, "last": -1}).scalar()
    while last is not None:
        found.append(int(last))
        last = tx.execute(_NEXT_PROJECT, {"state": state, "last": last}).scalar()
    return found


def rows_in(tx: Tx, project_id: int, state: int, n: int) -> list[Row]:
    """Return the oldest `n` rows of a project in one state."""
    return [_row(row) for row in tx.execute(_BY_STATE, {"project_id": project_id, "state": state, "n": n})]


def rows_of_batch(tx: Tx, project_id: int, batch_id: str) -> list[Row]:
    """Return every row that was sent under a batch id, in its order, whatever became of it."""
    query = sa.select(*_COLUMNS).select_from(_FROM).where(t.outbox.c.project_id == project_id, t.outbox.c.batch_id == batch_id)
    return [_row(row) for row in tx.execute(query.order_by(t.outbox.c.id))]


def bind_batch(tx: Tx, row_ids: Sequence[int], batch_id: str, now: float, state: int = SENT) -> None:
    """Give new rows their batch id for ever; they count as sent (`state`: by people, or by rules), to nobody yet."""
    tx.execute(t.outbox.update().where(t.outbox.c.id.in_(row_ids)).values(state=state, batch_id=batch_id, master="", sent_at=now))


def touch_batch(tx: Tx, project_id: int, batch_id: str, master: str, now: float) -> None:
    """Note who acknowledged a batch, and when ('' = it was tried, nobody did)."""
    tx.execute(
        t.outbox.update()
        .where(t.outbox.c.project_id == project_id, t.outbox.c.batch_id == batch_id, t.outbox.c.state.in_(_IN_FLIGHT))
        .values(master=master, sent_at=now, attempts=t.outbox.c.attempts + 1)
    )


def batches_to_send(tx: Tx, project_id: int, master: str, unanswered_before: float, acknowledged_before: float) -> list[str]:
    """Return the batches that must go out (again): tried before `unanswered_before` and acknowledged by nobody or by another
    master, or acknowledged before `acknowledged_before` and still not in the log."""
    c = t.outbox.c
    late = sa.or_(
        sa.and_(c.master != master, c.sent_at < unanswered_before),
        sa.and_(c.master == master, c.sent_at < acknowledged_before),
    )
    query = sa.select(c.batch_id, sa.func.min(c.id)).where(c.state.in_(_IN_FLIGHT), c.project_id == project_id, late)
    return [row[0] for row in tx.execute(query.group_by(c.batch_id).order_by(sa.func.min(c.id)).limit(64))]


def mark_done(tx: Tx, row_ids: Sequence[int]) -> None:
    """The label log has these."""
    if row_ids:
        tx.execute(t.outbox.update().where(t.outbox.c.id.in_(row_ids), t.outbox.c.state.in_(_IN_FLIGHT)).values(state=DONE))


def mark_failed(tx: Tx, reasons: Sequence[tuple[int, str]]) -> None:
    """The cluster refuses these for good, each with its reason."""
    if reasons:
        query = t.outbox.update().where(t.outbox.c.id == sa.bindparam("row")).values(state=FAILED, reason=sa.bindparam("why"))
        tx.execute(query, [{"row": row, "why": why} for row, why in reasons])


def retry_failed(tx: Tx, project_id: int) -> int:
    """Send the refused ones again, under new batch ids (after their cause was removed); return how many."""
    query = t.outbox.update().where(t.outbox.c.project_id == project_id, t.outbox.c.state == FAILED)
    by_rules = sa.select(t.annotations.c.id).where(
        t.annotations.c.id == t.outbox.c.annotation_id, t.annotations.c.source == "rules"
    )
    state = sa.case((by_rules.exists(), RULES_NEW), else_=NEW)
    return int(tx.execute(query.values(state=state, batch_id=None, reason="", attempts=0)).rowcount)


def oldest_waiting(tx: Tx, project_id: int) -> float | None:
    """Return when the oldest label of a person that is not in the cluster's log was given, None = all are in it."""
    found: list[float] = []
    for state in (NEW, SENT):
        query = sa.select(t.outbox.c.created_at).where(t.outbox.c.state == state, t.outbox.c.project_id == project_id)
        first = tx.execute(query.order_by(t.outbox.c.id).limit(1)).scalar()
        found += [first] if first is not None else []
    return min(found, default=None)


def note_wait(tx: Tx, project_id: int, reason: str) -> None:
    """Say why the labels on their way do not arrive, on the oldest of them; '' = they do again."""
    c = t.outbox.c
    is_open = sa.and_(c.state.in_(_OPEN), c.project_id == project_id)
    if reason:
        oldest = sa.select(sa.func.min(c.id)).where(is_open).scalar_subquery()
        tx.execute(t.outbox.update().where(c.id == oldest).values(reason=reason))
    else:
        tx.execute(t.outbox.update().where(is_open, c.reason != "").values(reason=""))


def why_waiting(tx: Tx, project_id: int) -> str:
    """Return why the labels on their way do not arrive, '' = nothing holds them."""
    for state in _OPEN:  # one state a query, for the index
        query = sa.select(t.outbox.c.reason).where(t.outbox.c.state == state, t.outbox.c.project_id == project_id)
        reason = tx.execute(query.order_by(t.outbox.c.id).limit(1)).scalar()
        if reason:
            return str(reason)
    return ""


def waiting(tx: Tx, project_id: int, states: tuple[int, ...] = OF_PEOPLE, most: int = 10_000) -> int:
    """Return how many labels of people (or of `OF_RULES`) are on their way, counted up to `most`."""
    open_states = sa.and_(t.outbox.c.state.in_(states), t.outbox.c.project_id == project_id)
    return int(
        tx.execute(
            sa.select(sa.func.count()).select_from(sa.select(t.outbox.c.id).where(open_states).limit(most).subquery())
        ).scalar_one()
    )


def failures(tx: Tx, project_id: int, n: int) -> tuple[Failure, ...]:
    """Return the newest `n` labels that the cluster refused."""
    query = (
        sa.select(t.items.c.item_id, t.annotations.c.revision, t.outbox.c.reason)
        .select_from(_FROM)
        .where(t.outbox.c.state == FAILED, t.outbox.c.project_id == project_id)
        .order_by(t.outbox.c.id.desc())
        .limit(n)
    )
    return tuple(Failure(*row) for row in tx.execute(query))
