"""Leases: who holds which item until when, and the draft they were shown.

Owns the table `leases`: the truth about what is out, whatever the ranked queue says. Must never lease an item that is labelled, or
one whose lease lives in other hands. Called by `webapp.labelling` inside a write transaction.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from webapp.db.drafts import Draft, draft_columns, join_drafts, read_draft
from webapp.db.engine import Tx
from webapp.db.items import OPEN
from webapp.db.projects import Project
from webapp.db.tables import items, leases


class Leased(msgspec.Struct, frozen=True):
    """One item in an annotator's hands. `link` is None for inline content (text, or a table row as JSON)."""

    number: int
    item_id: str
    link: str | None
    content: str | None
    name: str | None
    lease_id: str
    expires_at: float
    draft: Draft | None


_TRIES = 5
_ITEM = [items.c.id, items.c.item_id, items.c.link, items.c.content, items.c.name]
_WITH_LEASE = items.outerjoin(leases, leases.c.item == items.c.id)
_FREE = sa.and_(
    items.c.project_id == sa.bindparam("project_id"),
    items.c.state == OPEN,
    sa.or_(leases.c.item.is_(None), leases.c.expires_at <= sa.bindparam("now")),
)
_SELECT = sa.select(*_ITEM, *draft_columns()).select_from(join_drafts(_WITH_LEASE))
_LOCK: dict[str, Any] = {"of": items, "skip_locked": True}
_NAMED = _SELECT.where(_FREE, items.c.item_id.in_(sa.bindparam("item_ids", expanding=True))).with_for_update(**_LOCK)
_FIRST = _SELECT.where(_FREE).order_by(items.c.position).limit(sa.bindparam("n")).with_for_update(**_LOCK)
_OWN = (
    sa.select(*_ITEM, *draft_columns())
    .select_from(join_drafts(leases.join(items, leases.c.item == items.c.id)))
    .where(
        leases.c.project_id == sa.bindparam("project_id"),
        leases.c.user_id == sa.bindparam("user_id"),
        leases.c.expires_at > sa.bindparam("now"),
        items.c.state == OPEN,
        items.c.item_id.not_in(sa.bindparam("holding", expanding=True)),
    )
    .order_by(leases.c.expires_at, items.c.position)
    .limit(sa.bindparam("n"))
)


def _upsert(dialect: Any) -> Any:
    statement = dialect.insert(leases)
    new = statement.excluded
    fields = ("project_id", "user_id", "lease_id", "expires_at", "draft", "draft_version", "draft_confidence")
    return statement.on_conflict_do_update(
        index_elements=[leases.c.item],
        set_={name: new[name] for name in fields},
        where=sa.or_(leases.c.expires_at <= sa.bindparam("now"), leases.c.user_id == new.user_id),
    ).returning(leases.c.item)


_UPSERT = {"sqlite": _upsert(sqlite), "postgresql": _upsert(postgresql)}


def take(
    tx: Tx, project: Project, user_id: int, n: int, now: float, lease_s: float, item_ids: Sequence[str] | None = None
) -> list[Leased]:
    """Lease up to `n` free items to `user_id`: of `item_ids` in their order, or (None) the first by position."""
    if n <= 0 or (item_ids is not None and not item_ids):
        return []
    given: dict[str, Any] = {"project_id": project.id, "now": now}
    if item_ids is None:
        return _take_first(tx, project, user_id, n, given, lease_s)
    place = {item_id: i for i, item_id in enumerate(item_ids)}
    rows = sorted(tx.execute(_NAMED, {**given, "item_ids": list(item_ids)}).all(), key=lambda row: place[row[1]])[:n]
    return _hand_out(tx, project, user_id, rows, now, lease_s)


def _take_first(tx: Tx, project: Project, user_id: int, n: int, given: dict[str, Any], lease_s: float) -> list[Leased]:
    """Lease the first free items; one that somebody else leased since the statement's snapshot (PostgreSQL) is left to them."""
    got: list[Leased] = []
    for _ in range(_TRIES):
        rows = tx.execute(_FIRST, {**given, "n": n - len(got)}).all()
        got += _hand_out(tx, project, user_id, rows, given["now"], lease_s)
        if len(got) == n or not rows:
            break
    return got


def take_own(tx: Tx, project: Project, user_id: int, n: int, now: float, lease_s: float, holding: Sequence[str]) -> list[Leased]:
    """Lease again what `user_id` holds already, except what the client says it is `holding`; drafts are the newest."""
    given = {"project_id": project.id, "user_id": user_id, "now": now, "holding": list(holding), "n": n}
    return _hand_out(tx, project, user_id, tx.execute(_OWN, given).all(), now, lease_s)


def _hand_out(tx: Tx, project: Project, user_id: int, rows: Sequence[Any], now: float, lease_s: float) -> list[Leased]:
    out = []
    for number, item_id, link, content, name, *draft in rows:
        lease = secrets.token_urlsafe(12)
        out.append(Leased(number, item_id, link, content, name, lease, now + lease_s, read_draft(project, draft)))
    if not out:
        return []
    got = tx.execute(_UPSERT[tx.dialect.name], [_row(project.id, user_id, leased, now) for leased in out])
    won = {row[0] for row in got}
    return [leased for leased in out if leased.number in won]


def _row(project_id: int, user_id: int, leased: Leased, now: float) -> dict[str, Any]:
    draft = leased.draft
    return {
        "item": leased.number,
        "project_id": project_id,
        "user_id": user_id,
        "lease_id": leased.lease_id,
        "expires_at": leased.expires_at,
        "draft": msgspec.json.encode(draft.labels).decode() if draft else None,
        "draft_version": draft.version if draft else None,
        "draft_confidence": draft.confidence if draft else None,
        "now": now,
    }


def live_leases(tx: Tx, project_id: int, now: float) -> dict[str, float]:
    """Return item id → expiry of every live lease of the project."""
    query = (
        sa.select(items.c.item_id, leases.c.expires_at)
        .join(items, items.c.id == leases.c.item)
        .where(leases.c.project_id == project_id, leases.c.expires_at > now)
    )
    return {row[0]: row[1] for row in tx.execute(query)}


def out_until(tx: Tx, project_id: int, item_id: str) -> float | None:
    """Return until when an item is leased (0 = it is free), None when it is labelled or unknown."""
    query = sa.select(leases.c.expires_at).select_from(_WITH_LEASE).where(items.c.project_id == project_id)
    row = tx.execute(query.where(items.c.item_id == item_id, items.c.state == OPEN)).first()
    return None if row is None else float(row[0] or 0.0)


def extend(tx: Tx, project_id: int, user_id: int, lease_ids: Sequence[str], expires_at: float) -> list[str]:
    """Move the end of `user_id`'s leases that are still theirs; return their items."""
    mine = sa.and_(leases.c.project_id == project_id, leases.c.user_id == user_id, leases.c.lease_id.in_(lease_ids))
    found = tx.execute(sa.select(items.c.item_id).join(leases, leases.c.item == items.c.id).where(mine)).scalars().all()
    tx.execute(leases.update().where(mine).values(expires_at=expires_at))
    return list(found)


def drop_lease(tx: Tx, project_id: int, user_id: int, lease_id: str) -> str | None:
    """Give a lease back; return the item's id, None when `user_id` holds no such lease."""
    query = sa.select(leases.c.item, items.c.item_id).join(items, items.c.id == leases.c.item)
    row = tx.execute(
        query.where(leases.c.project_id == project_id, leases.c.user_id == user_id, leases.c.lease_id == lease_id)
    ).first()
    if row is None:
        return None
    tx.execute(leases.delete().where(leases.c.item == row[0]))
    return str(row[1])


def drop_expired(tx: Tx, before: float) -> None:
    """Forget leases that ended before `before`: nobody will answer them."""
    tx.execute(leases.delete().where(leases.c.expires_at < before))
