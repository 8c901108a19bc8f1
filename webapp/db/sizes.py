"""How large the database is, as a whole and project by project.

Owns the queries about size; they read counts, never rows. Called by `webapp.admin`.
"""

from __future__ import annotations

import sqlalchemy as sa

from webapp.db import tables as t
from webapp.db.engine import Tx


def database_bytes(tx: Tx) -> int:
    """Return what the database takes on its disk."""
    if tx.dialect.name == "postgresql":
        return int(tx.execute(sa.select(sa.func.pg_database_size(sa.func.current_database()))).scalar_one())
    pages = int(tx.exec_driver_sql("PRAGMA page_count").scalar_one())
    return pages * int(tx.exec_driver_sql("PRAGMA page_size").scalar_one())


def owners_of(tx: Tx) -> dict[int, list[str]]:
    """Return the owners of each project, by name."""
    query = (
        sa.select(t.members.c.project_id, t.users.c.name)
        .join(t.users, t.users.c.id == t.members.c.user_id)
        .where(t.members.c.role == "owner")
        .order_by(t.users.c.name)
    )
    found: dict[int, list[str]] = {}
    for project_id, name in tx.execute(query):
        found.setdefault(project_id, []).append(name)
    return found


def last_activity(tx: Tx, project_id: int) -> float | None:
    """Return when somebody last labelled in a project or did something to it, None = never."""
    o = t.outbox.c
    query = sa.select(o.created_at).where(o.project_id == project_id, o.state == sa.bindparam("state"))
    query = query.order_by(o.id.desc()).limit(1)
    newest = [tx.execute(query, {"state": state}).scalar() for state in range(6)]  # one state a query, for the index
    event = sa.select(t.events.c.at).where(t.events.c.project_id == project_id).order_by(t.events.c.id.desc()).limit(1)
    newest.append(tx.execute(event).scalar())
    return max((at for at in newest if at is not None), default=None)
