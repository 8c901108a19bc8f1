"""What people said, from one project's items to the same items of its copy.

Owns no table. Called by `webapp.pilot.copying` inside its transactions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from webapp.db import items, tallies
from webapp.db import tables as t
from webapp.db.engine import Tx
from webapp.db.items import LABELLED
from webapp.db.projects import Project
from webapp.db.revisions import RULES_NEW
from webapp.kinds.catalogue import is_learned

_A = t.annotations.c
_COPIED = ("labels", "value", "user_id", "seconds", "created_at", "source")


def labels_of(tx: Tx, numbers: Sequence[int]) -> dict[int, Mapping[str, Any]]:
    """Return what is said of each of the items, by its number."""
    query = sa.select(_A.item, *(_A[name] for name in _COPIED)).join(t.items, t.items.c.annotation_id == _A.id)
    return {row["item"]: dict(row) for row in tx.execute(query.where(t.items.c.id.in_(numbers))).mappings()}


def add_labels(tx: Tx, copy: Project, said: Mapping[str, Mapping[str, Any]], now: float) -> None:
    """Write what people said of items that have no label yet: first revisions, outbox rows, states and counts."""
    if not said:
        return
    stored = items.items_by_id(tx, copy.id, list(said))
    fresh = {item_id: item.number for item_id, item in stored.items() if item.revision == 0}
    if not fresh:
        return
    fixed = {"project_id": copy.id, "revision": 1, "is_deleted": False, "is_corrected": False, "window_no": 0}
    rows = [{**fixed, "item": number, **{name: said[item_id][name] for name in _COPIED}} for item_id, number in fresh.items()]
    tx.execute(t.annotations.insert(), rows)
    made = tx.execute(sa.select(_A.item, _A.id).where(_A.item.in_(list(fresh.values())), _A.revision == 1)).all()
    tx.execute(_LABELLED, [{"number": item, "current": number} for item, number in made])
    if is_learned(copy.category, copy.kind):
        out = {"project_id": copy.id, "state": RULES_NEW, "attempts": 0, "created_at": now}
        tx.execute(t.outbox.insert(), [{"annotation_id": number, **out} for _, number in made])
    tallies.add(tx, copy.id, tallies.Tally(labels=len(made)))


_LABELLED = (
    t.items.update()
    .where(t.items.c.id == sa.bindparam("number"))
    .values(state=LABELLED, revision=1, annotation_id=sa.bindparam("current"))
)
