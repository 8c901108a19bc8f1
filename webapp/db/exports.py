"""Items with their labels, page by page, for export: plain tuples, no object an item, short transactions.

Called by `webapp.transfer.export`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from webapp.db import tables as t
from webapp.db.engine import Database

PAGE = 5000
COLUMNS = ("id", "name", "link", "content", "revision", "labels", "annotator", "seconds", "draft", "draft_version", "labelled_at")


def labelled_pages(database: Database, project_id: int, states: tuple[int, ...]) -> Iterator[list[Any]]:
    """Yield pages of rows in the order of `COLUMNS`: items in each of `states`, by position; each page is read in one go."""
    joined = t.items.outerjoin(t.annotations, t.annotations.c.id == t.items.c.annotation_id)
    query = (
        sa.select(
            t.items.c.position,
            *(t.items.c[n] for n in ("item_id", "name", "link", "content", "revision")),
            t.annotations.c.labels,
            t.users.c.name,
            *(t.annotations.c[n] for n in ("seconds", "draft", "draft_version", "created_at")),
        )
        .select_from(joined.outerjoin(t.users, t.users.c.id == t.annotations.c.user_id))
        .where(
            t.items.c.project_id == project_id,
            t.items.c.state == sa.bindparam("state"),
            t.items.c.position > sa.bindparam("after"),
        )
        .order_by(t.items.c.position)
        .limit(PAGE)
    )
    for state in states:
        after = -1
        while True:
            with database.read() as tx:
                rows = tx.execute(query, {"state": state, "after": after}).all()
            if not rows:
                break
            after = rows[-1][0]
            yield [row[1:] for row in rows]
