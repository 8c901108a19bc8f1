"""The next labels of rules that a person shall look at, leased to them, most doubtful first.

Owns no table: it walks `rule_votes` along its index of confidence. Must never hand out an item that is in other hands. Called by
`webapp.rules.review` inside a write transaction.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from webapp.db import leases
from webapp.db.engine import Tx
from webapp.db.items import RULED
from webapp.db.leases import Leased
from webapp.db.projects import Project
from webapp.db.tables import items, rule_votes
from webapp.db.tables import leases as leased

_V = rule_votes.c
_COLUMNS = [items.c.id, items.c.item_id, items.c.link, items.c.content, items.c.name, _V.said, _V.confidence]
_FROM = rule_votes.join(items, items.c.id == _V.item).outerjoin(leased, leased.c.item == items.c.id)
_ABSTAINS = b"\xff\xff"
Rows = Sequence[Any]


def jobs_with_votes(tx: Tx, project_id: int) -> set[int]:
    """Return the applications whose votes are there: one, or two while the newer one runs (one index step each)."""
    found: set[int] = set()
    query = sa.select(sa.func.min(_V.job_id)).where(_V.project_id == project_id, _V.job_id > sa.bindparam("last"))
    last = tx.execute(query, {"last": -1}).scalar()
    while last is not None:
        found.add(int(last))
        last = tx.execute(query, {"last": last}).scalar()
    return found


def take_ruled(
    tx: Tx,
    project: Project,
    user_id: int,
    n: int,
    now: float,
    lease_s: float,
    *,
    holding: Sequence[str] | None = None,
    is_conflict: bool = False,
    columns: Mapping[int, int] | None = None,
) -> list[Leased]:
    """Lease up to `n` items that only rules have labelled. With `holding` one's own other leases count as free.

    `is_conflict`: only those that rules fight over. `columns`: only those on which a rule votes, by its column in each application.
    """
    query = sa.select(*_COLUMNS).select_from(_FROM).where(_V.project_id == project.id, _V.confidence.is_not(None))
    query = query.where(items.c.state == RULED, _is_free(user_id, holding, now))
    if is_conflict:
        query = query.where(_V.is_conflict)
    if columns is not None:
        query = query.where(sa.or_(*(_has_vote(job_id, column) for job_id, column in columns.items())))
    rows = tx.execute(query.order_by(_V.confidence, _V.item).limit(n).with_for_update(of=items, skip_locked=True)).all()
    return leases.hold_all(tx, project, user_id, [_lease(project, row, now + lease_s) for row in rows], now)


def _is_free(user_id: int, holding: Sequence[str] | None, now: float) -> sa.ColumnElement[bool]:
    is_out_no_more = sa.or_(leased.c.item.is_(None), leased.c.expires_at <= now)
    if holding is None:
        return is_out_no_more
    return sa.or_(is_out_no_more, sa.and_(leased.c.user_id == user_id, items.c.item_id.not_in(list(holding))))


def _has_vote(job_id: int, column: int) -> sa.ColumnElement[bool]:
    vote = sa.func.substr(_V.votes, 2 * column + 1, 2, type_=sa.LargeBinary())
    return sa.and_(_V.job_id == job_id, vote != _ABSTAINS)


def _lease(project: Project, row: Rows, expires_at: float) -> Leased:
    number, item_id, link, content, name, said, confidence = row
    draft = leases.draft_of_rules(project, said, confidence)
    return Leased(number, item_id, link, content, name, secrets.token_urlsafe(12), expires_at, draft)
