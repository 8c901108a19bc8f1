"""How fast people label, and how their labels spread over the project's labels.

Owns two questions: the pace looks at the newest annotations of the installation only, whatever the project's size; the spread is
one pass over a project's labels, which its caller keeps for a while. Called by `webapp.projects.outlook`.
"""

from __future__ import annotations

from collections import Counter

import msgspec
import sqlalchemy as sa

from webapp.db import tables as t
from webapp.db.engine import Tx
from webapp.db.items import LABELLED

NEWEST = 5000
_A = t.annotations.c


def recent_labels(tx: Tx, project_id: int, since: float) -> tuple[int, float | None]:
    """Return how many labels people gave under a lease since then, and when the first of them was; of the newest `NEWEST` alone."""
    newest = sa.select(sa.func.max(_A.id)).scalar_subquery()
    mine = sa.and_(_A.id > newest - NEWEST, _A.project_id == project_id, _A.lease_id.is_not(None), _A.created_at >= since)
    row = tx.execute(sa.select(sa.func.count(), sa.func.min(_A.created_at)).where(mine)).one()
    return int(row[0]), row[1]


def spread_of_labels(tx: Tx, project_id: int) -> Counter[str]:
    """Return how many items people gave each label, by the names that were written."""
    mine = sa.and_(t.items.c.project_id == project_id, t.items.c.state == LABELLED)
    query = sa.select(_A.labels, sa.func.count()).select_from(t.items.join(t.annotations, _A.id == t.items.c.annotation_id))
    found: Counter[str] = Counter()
    for labels, n in tx.execute(query.where(mine).group_by(_A.labels)):
        for label in msgspec.json.decode(labels, type=list[str]):
            found[label] += n
    return found
