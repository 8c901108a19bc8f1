"""Items that the cluster could not read and that a person wants it to try again.

Owns the table `retries`. An item without an answer is one behind which embedding has gone on and that is in no block. Called by
`webapp.admin.letters` (ask) and the pilot (take).
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from webapp.db import tables as t
from webapp.db.engine import Tx
from webapp.db.items import STORED, UNSEEN, StoredItem


def _without(project_id: int) -> sa.ColumnElement[bool]:
    return sa.and_(t.items.c.project_id == project_id, t.items.c.state.in_(UNSEEN), t.items.c.block_id.is_(None))


def without_answer(tx: Tx, project_id: int, item_ids: Sequence[str]) -> set[str]:
    """Return those of the items that no person has labelled and that have no answer of the cluster."""
    query = sa.select(t.items.c.item_id).where(_without(project_id), t.items.c.item_id.in_(item_ids))
    return set(tx.execute(query).scalars())


def ask_again(tx: Tx, project_id: int, position: int, now: float) -> int:
    """Queue every item up to `position` that has no answer; return how many are new."""
    known = sa.select(t.retries.c.item).where(t.retries.c.item == t.items.c.id).exists()
    wanted = sa.select(t.items.c.id, t.items.c.project_id, sa.literal(now)).where(
        _without(project_id), t.items.c.position <= position, ~known
    )
    asking = t.retries.insert().from_select(["item", "project_id", "asked_at"], wanted)
    return int(tx.execute(asking.execution_options(preserve_rowcount=True)).rowcount)


def next_retries(tx: Tx, project_id: int, n: int) -> tuple[float, list[StoredItem]]:
    """Return up to `n` items asked for at the same moment, and that moment; no items = none wait."""
    oldest = tx.execute(sa.select(sa.func.min(t.retries.c.asked_at)).where(t.retries.c.project_id == project_id)).scalar()
    if oldest is None:
        return 0.0, []
    query = sa.select(*STORED).join(t.retries, t.retries.c.item == t.items.c.id)
    query = query.where(t.retries.c.project_id == project_id, t.retries.c.asked_at == oldest).order_by(t.items.c.id).limit(n)
    return oldest, [StoredItem(*row) for row in tx.execute(query)]


def drop_retries(tx: Tx, numbers: Sequence[int]) -> None:
    """Take items out that were tried again, whatever came of it."""
    tx.execute(t.retries.delete().where(t.retries.c.item.in_(numbers)))
