"""Items with their labels, page by page, for export: plain driver tuples, short transactions, the next page read while one is
written.

Called by `webapp.transfer.export`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from webapp.db.engine import Database

PAGE = 5000
COLUMNS = (
    *("id", "name", "link", "content", "revision", "labels", "user", "seconds", "draft", "draft_version", "labelled_at"),
    *("source", "proba", "value", "draft_value"),
)
_QUERY = (
    "SELECT i.position, i.item_id, i.name, i.link, i.content, i.revision, "
    "a.labels, a.user_id, a.seconds, a.draft, a.draft_version, "
    "a.created_at, a.source, a.proba, a.value, a.draft_value FROM items i LEFT JOIN annotations a ON a.id = i.annotation_id "
    "WHERE i.project_id = {p} AND i.state = {p} AND i.position > {p} ORDER BY i.position LIMIT {p}"
)


def labelled_pages(database: Database, project_id: int, states: tuple[int, ...]) -> Iterator[list[tuple[Any, ...]]]:
    """Yield pages of rows: position, then `COLUMNS`; items in each of `states`, by position. Each page is read in one go."""
    query = _QUERY.format(p="?" if database.is_sqlite else "%s")
    for state in states:
        after = -1
        while True:
            rows = _fetch(database, query, (project_id, state, after, PAGE))
            if not rows:
                break
            after = rows[-1][0]
            yield rows


def _fetch(database: Database, query: str, given: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    with database.read() as tx:
        cursor: Any = tx.connection.cursor()
        try:
            cursor.execute(query, given)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
        finally:
            cursor.close()
    return rows


def names_of_users(database: Database) -> dict[int, str]:
    """Return the name of every account by its number."""
    with database.read() as tx:
        return {row[0]: row[1] for row in tx.exec_driver_sql("SELECT id, name FROM users")}
