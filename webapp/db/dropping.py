"""Really deletes a project: a bounded number of rows a transaction, children before parents, the project itself last.

Must never lock out annotators of other projects: on SQLite a transaction that writes is alone. Called by the pilot's upkeep.
"""

from __future__ import annotations

import sqlalchemy as sa

from webapp.db.engine import Database
from webapp.db.tables import metadata, projects

ROWS_AT_ONCE = 5000
_BELOW = [table for table in reversed(metadata.sorted_tables) if "project_id" in table.c]


def drop_some(database: Database, project_id: int) -> bool:
    """Delete the next rows of a project; False when nothing of it is left."""
    for table in _BELOW:
        key = sa.tuple_(*table.primary_key.columns)
        some = sa.select(*table.primary_key.columns).where(table.c.project_id == project_id).limit(ROWS_AT_ONCE)
        with database.read() as tx:
            if tx.execute(some.limit(1)).first() is None:
                continue
        with database.write() as tx:
            tx.execute(table.delete().where(key.in_(some)))
        return True
    with database.write() as tx:
        tx.execute(projects.delete().where(projects.c.id == project_id))
    return False
