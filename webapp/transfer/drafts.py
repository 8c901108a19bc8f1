"""Drafts that another model makes of items which are there already: a pre-annotation sent when it is ready, not with its import.

Owns their place: behind any draft of the project's own model, and in front of an earlier one that was sent. Called by the drafts
endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labelloop.errors import InvalidInputError
from webapp.db import items, scores
from webapp.db.engine import Database
from webapp.db.imports import RowError
from webapp.db.items import NewDraft, NewItem, StoredItem
from webapp.db.projects import Project
from webapp.transfer import said


def add_drafts(database: Database, project: Project, objects: Sequence[Mapping[str, Any]]) -> tuple[int, list[RowError]]:
    """Keep a draft for each of the named items; return how many, and those refused with their line and reason."""
    found: dict[int, NewDraft] = {}
    failed: list[RowError] = []
    with database.write() as tx:
        known = items.items_by_id(tx, project.id, [str(given.get("item_id", "")) for given in objects])
        for line, given in enumerate(objects, 1):
            name = str(given.get("item_id", ""))
            try:
                number, draft = _draft(project, known.get(name), name, given)
                found[number] = draft
            except InvalidInputError as exc:
                failed.append(RowError(line, name[:200], str(exc)))
        scores.save_head(tx, project.id, 0, list(found.items()))
    return len(found), failed


def _draft(project: Project, item: StoredItem | None, name: str, given: Mapping[str, Any]) -> tuple[int, NewDraft]:
    if item is None:
        raise InvalidInputError(f"no item is called {name[:80]!r}: import it first, with its draft if you like")
    bare = NewItem(item.item_id, link=item.link, content=item.content)
    return item.number, said.checked_draft(project, bare, said.read_draft(project, given))
