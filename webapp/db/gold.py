"""Items whose answer is known: which they are, who gets one next, who is right how often.

Owns the table `gold`. Must never tell an annotator that an item is one: it is handed out, answered and taken back like all others.
Called by `webapp.people` inside write transactions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from webapp.db import leases, opinions
from webapp.db import tables as t
from webapp.db.engine import Tx
from webapp.db.items import LABELLED
from webapp.db.leases import Leased
from webapp.db.projects import Project
from webapp.kinds.values import Value

_G, _O = t.gold.c, t.opinions.c
_BUCKETS = 1_000_003


class GoldItem(msgspec.Struct, frozen=True):
    """One item with its known answer."""

    item_id: str
    said: Value
    number: int


def mark(tx: Tx, project_id: int, user_id: int, item_ids: Sequence[str], now: float, *, only_new: bool = False) -> int:
    """Make the labels that the named items have now the known answers; return how many items that are.

    `only_new`: of those that got their first label at `now`, in this transaction; what was there before stays as it is.
    """
    found = sa.select(t.items.c.id, t.annotations.c.labels, t.annotations.c.value).join(
        t.annotations, t.annotations.c.id == t.items.c.annotation_id
    )
    n = 0
    for start in range(0, len(item_ids), 1000):
        names = t.items.c.item_id.in_(list(item_ids[start : start + 1000]))
        chosen = found.where(t.items.c.project_id == project_id, t.items.c.state == LABELLED, names)
        if only_new:
            chosen = chosen.where(t.annotations.c.revision == 1, t.annotations.c.created_at == now)
        rows = tx.execute(chosen).all()
        numbers = [row[0] for row in rows]
        tx.execute(t.gold.delete().where(_G.item.in_(numbers)))
        fixed = {"project_id": project_id, "user_id": user_id, "created_at": now}
        if rows:
            tx.execute(t.gold.insert(), [{"item": r[0], "labels": r[1], "value": r[2], **fixed} for r in rows])
        n += len(rows)
    return n


def unmark(tx: Tx, project_id: int, item_ids: Sequence[str]) -> int:
    """Make gold items ordinary labelled ones again; answers given to them stay in the figures."""
    named = sa.select(t.items.c.id).where(t.items.c.project_id == project_id, t.items.c.item_id.in_(list(item_ids)))
    return int(tx.execute(t.gold.delete().where(_G.item.in_(named))).rowcount)


def page(tx: Tx, project: Project, after: int, n: int) -> list[GoldItem]:
    """Return up to `n` gold items behind a number."""
    query = sa.select(t.items.c.item_id, _G.labels, _G.value, _G.item).join(t.items, t.items.c.id == _G.item)
    rows = tx.execute(query.where(_G.project_id == project.id, _G.item > after).order_by(_G.item).limit(n))
    return [GoldItem(row[0], project.read_value(row[1], row[2]), row[3]) for row in rows]


def count(tx: Tx, project_id: int) -> int:
    """Return how many gold items a project has."""
    return int(tx.execute(sa.select(sa.func.count()).select_from(t.gold).where(_G.project_id == project_id)).scalar_one())


def truth_of(tx: Tx, project: Project, item: int) -> Value | None:
    """Return the known answer of an item, None = it is no gold item (any more)."""
    row = tx.execute(sa.select(_G.labels, _G.value).where(_G.item == item)).first()
    return project.read_value(row[0], row[1]) if row else None


def take(tx: Tx, project: Project, user_id: int, n: int, now: float, lease_s: float) -> list[Leased]:
    """Lease up to `n` gold items that `user_id` has not seen nor labelled, in an order of their own for each person."""
    if n <= 0:
        return []
    source = leases.join_shown(t.gold.join(t.items, t.items.c.id == _G.item))
    seen = sa.exists().where(_O.item == _G.item, _O.user_id == user_id)
    labelled = sa.exists().where(t.annotations.c.item == _G.item, t.annotations.c.user_id == user_id)
    shuffled: Any = (_G.item * 7919 + user_id * 104_729) % _BUCKETS
    query = sa.select(*leases.item_columns()).select_from(source).where(_G.project_id == project.id, ~seen, ~labelled)
    rows = tx.execute(query.order_by(shuffled).limit(n)).all()
    found = [leases.read_leased(project, row, now + lease_s) for row in rows]
    return opinions.hand_out(tx, project, user_id, found, opinions.GOLD, now)


def score(tx: Tx, project_id: int, user_id: int) -> tuple[int, int]:
    """Return on how many gold items a person was right, and how many they answered."""
    mine = (_O.project_id == project_id, _O.user_id == user_id, _O.purpose == opinions.GOLD, _O.state == opinions.GIVEN)
    is_right = sa.func.sum(sa.case((_O.is_right, 1), else_=0))
    row = tx.execute(sa.select(is_right, sa.func.count()).where(*mine)).one()
    return int(row[0] or 0), int(row[1])
