"""Leases: who holds which item until when, and the draft they were shown.

Owns the table `leases`: the truth about what is out, whatever the ranked queue says. Must never lease an item that a person
labelled, or one whose lease lives in other hands. Called by `webapp.labelling` and `webapp.rules` inside a write transaction.
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
from webapp.db.items import OPEN, RULED, UNSEEN
from webapp.db.projects import Project
from webapp.db.revisions import RULES
from webapp.db.tables import items, leases, rule_votes
from webapp.kinds.values import Value


class Note(msgspec.Struct, frozen=True):
    """Why an item came back: what the reviewer `by` wrote, and what its annotator had said."""

    comment: str
    by: str
    said: Value


class Leased(msgspec.Struct, frozen=True):
    """One item in an annotator's hands. `link` is None for inline content (text, or a table row as JSON). `note` comes with an item
    that a reviewer returned."""

    number: int
    item_id: str
    link: str | None
    content: str | None
    name: str | None
    lease_id: str
    expires_at: float
    draft: Draft | None
    note: Note | None = None


_TRIES = 5
_ITEM = [items.c.id, items.c.item_id, items.c.link, items.c.content, items.c.name]
_WITH_LEASE = items.outerjoin(leases, leases.c.item == items.c.id)
_OF_PROJECT = items.c.project_id == sa.bindparam("project_id")
_NOT_OUT = sa.or_(leases.c.item.is_(None), leases.c.expires_at <= sa.bindparam("now"))
_OF_RULES = [rule_votes.c.said, rule_votes.c.confidence]
_DRAFTS = [*_OF_RULES, *draft_columns()]


def _join_drafts(source: sa.FromClause) -> sa.FromClause:
    return join_drafts(source.outerjoin(rule_votes, rule_votes.c.item == items.c.id))


_SELECT = sa.select(*_ITEM, *_DRAFTS).select_from(_join_drafts(_WITH_LEASE)).where(_OF_PROJECT)
_LOCK: dict[str, Any] = {"of": items, "skip_locked": True}
_IS_NAMED = items.c.item_id.in_(sa.bindparam("item_ids", expanding=True))
_NAMED = _SELECT.where(_NOT_OUT, items.c.state.in_(UNSEEN), _IS_NAMED).with_for_update(**_LOCK)
_ONE = _SELECT.where(_NOT_OUT, items.c.state.in_(UNSEEN), items.c.item_id == sa.bindparam("item_id")).with_for_update(**_LOCK)
_FREE = _SELECT.where(_NOT_OUT, items.c.state == sa.bindparam("state"))
_FIRST = _FREE.order_by(items.c.position).limit(sa.bindparam("n")).with_for_update(**_LOCK)
_OWN = (
    sa.select(*_ITEM, *_DRAFTS)
    .select_from(_join_drafts(leases.join(items, leases.c.item == items.c.id)))
    .where(
        leases.c.project_id == sa.bindparam("project_id"),
        leases.c.user_id == sa.bindparam("user_id"),
        leases.c.expires_at > sa.bindparam("now"),
        items.c.state.in_(UNSEEN),
        items.c.item_id.not_in(sa.bindparam("holding", expanding=True)),
    )
    .order_by(leases.c.expires_at, items.c.position)
    .limit(sa.bindparam("n"))
)


def _upsert(dialect: Any) -> Any:
    statement = dialect.insert(leases)
    new = statement.excluded
    fields = ("project_id", "user_id", "lease_id", "expires_at", "draft", "draft_version", "draft_confidence", "draft_value")
    return statement.on_conflict_do_update(
        index_elements=[leases.c.item],
        set_={name: new[name] for name in fields},
        where=sa.or_(leases.c.expires_at <= sa.bindparam("now"), leases.c.user_id == new.user_id),
    ).returning(leases.c.item)


_UPSERT = {"sqlite": _upsert(sqlite), "postgresql": _upsert(postgresql)}


def take(
    tx: Tx, project: Project, user_id: int, n: int, now: float, lease_s: float, item_ids: Sequence[str] | None = None
) -> list[Leased]:
    """Lease up to `n` free items to `user_id`: of `item_ids` in their order, or (None) the first by position, those that rules
    labelled behind the others."""
    if n <= 0 or (item_ids is not None and not item_ids):
        return []
    given: dict[str, Any] = {"project_id": project.id, "now": now}
    if item_ids is None:
        first = _take_first(tx, project, user_id, n, {**given, "state": OPEN}, lease_s)
        if len(first) == n:
            return first
        return first + _take_first(tx, project, user_id, n - len(first), {**given, "state": RULED}, lease_s)
    if len(item_ids) == 1:  # after each answer; a list would be spelled out anew each time
        rows = list(tx.execute(_ONE, {**given, "item_id": item_ids[0]}))
        return _hand_out(tx, project, user_id, rows, now, lease_s)
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


def take_places(
    tx: Tx,
    project: Project,
    user_id: int,
    n: int,
    now: float,
    lease_s: float,
    item_ids: Sequence[str],
    places: Sequence[int],
    of: int,
) -> list[Leased]:
    """Lease up to `n` free items whose position, modulo `of`, is one of `places`: those of `item_ids` first, then by position."""
    if n <= 0 or not places:
        return []
    mine = (items.c.position % of).in_(list(places))
    given: dict[str, Any] = {"project_id": project.id, "now": now}
    named = tx.execute(_NAMED.where(mine), {**given, "item_ids": list(item_ids)}).all() if item_ids else []
    place = {item_id: i for i, item_id in enumerate(item_ids)}
    got = _hand_out(tx, project, user_id, sorted(named, key=lambda row: place[row[1]])[:n], now, lease_s)
    for state in UNSEEN:
        rows = tx.execute(_FIRST.where(mine), {**given, "state": state, "n": n - len(got)}).all() if len(got) < n else []
        got += _hand_out(tx, project, user_id, rows, now, lease_s)
    return got


def take_own(tx: Tx, project: Project, user_id: int, n: int, now: float, lease_s: float, holding: Sequence[str]) -> list[Leased]:
    """Lease again what `user_id` holds already, except what the client says it is `holding`; drafts are the newest."""
    given = {"project_id": project.id, "user_id": user_id, "now": now, "holding": list(holding), "n": n}
    return _hand_out(tx, project, user_id, tx.execute(_OWN, given).all(), now, lease_s)


def _hand_out(tx: Tx, project: Project, user_id: int, rows: Sequence[Any], now: float, lease_s: float) -> list[Leased]:
    return hold_all(tx, project, user_id, [read_leased(project, row, now + lease_s) for row in rows], now)


def item_columns() -> list[sa.ColumnElement[Any]]:
    """Return the columns that `read_leased` wants, for a query over `items` joined by `join_shown`."""
    return [*_ITEM, *_DRAFTS]


def join_shown(source: sa.FromClause) -> sa.FromClause:
    """Return `source` (which has `items`) joined with all that a draft may come from."""
    return _join_drafts(source)


def read_leased(project: Project, row: Sequence[Any], expires_at: float) -> Leased:
    """Return one row of `item_columns` under a new lease."""
    number, item_id, link, content, name, said, confidence, *draft = row
    shown = read_draft(project, draft) or draft_of_rules(project, said, confidence)
    return Leased(number, item_id, link, content, name, secrets.token_urlsafe(12), expires_at, shown)


def draft_of_rules(project: Project, said: int | None, confidence: float | None) -> Draft | None:
    """Return the label that rules gave an item as a draft; None where they gave none that still stands."""
    return None if said is None or confidence is None else Draft((project.label_of(said),), RULES, confidence, None, False)


def hold_all(tx: Tx, project: Project, user_id: int, out: Sequence[Leased], now: float) -> list[Leased]:
    """Write leases; return those that were won."""
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
        "draft_value": draft.value if draft else None,
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
    """Return until when an item is leased (0 = it is free), None when a person labelled it or it is unknown."""
    query = sa.select(leases.c.expires_at).select_from(_WITH_LEASE).where(items.c.project_id == project_id)
    row = tx.execute(query.where(items.c.item_id == item_id, items.c.state.in_(UNSEEN))).first()
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


def drop_leases(tx: Tx, numbers: Sequence[int]) -> None:
    """End the leases on items, whoever has them."""
    tx.execute(leases.delete().where(leases.c.item.in_(list(numbers))))


def drop_all_of(tx: Tx, project_id: int, user_id: int) -> None:
    """Give back all that a person has in hand in a project."""
    tx.execute(leases.delete().where(leases.c.project_id == project_id, leases.c.user_id == user_id))


def drop_expired(tx: Tx, before: float) -> None:
    """Forget leases that ended before `before`: nobody will answer them."""
    tx.execute(leases.delete().where(leases.c.expires_at < before))
