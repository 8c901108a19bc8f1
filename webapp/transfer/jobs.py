"""Items and imports as the API asks for them.

Called by the data views.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from labelloop.errors import InvalidInputError, NotFoundError
from webapp.db import imports, items, revisions
from webapp.db.engine import Database
from webapp.db.imports import ImportJob, RowError
from webapp.db.items import LABELLED, OPEN, NewItem, StoredItem
from webapp.db.projects import Project
from webapp.db.revisions import Annotation
from webapp.transfer import rows


def add_objects(
    database: Database, project: Project, user_id: int, objects: Sequence[Mapping[str, Any]]
) -> tuple[int, int, list[RowError]]:
    """Add JSON objects as items; return how many are new, how many were there, and those refused with their reason."""
    new: list[NewItem] = []
    failed: list[RowError] = []
    for line, given in enumerate(objects, 1):
        try:
            new.append(rows.item_from_object(project, given))
        except InvalidInputError as exc:
            failed.append(RowError(line, str(given.get("id") or "")[:200], str(exc)))
    with database.write() as tx:
        added = items.add_items(tx, project, new, user_id, time.time())
    return added, len(new) - added, failed


def page_items(database: Database, project: Project, state: str, after: int, n: int) -> list[StoredItem]:
    """Return items in one state behind a position."""
    with database.read() as tx:
        return items.page_items(tx, project.id, LABELLED if state == "labelled" else OPEN, after, n)


def item_with_history(database: Database, project: Project, item_id: str) -> tuple[StoredItem, tuple[Annotation, ...]]:
    """Return an item and every revision of its label. Raises NotFoundError."""
    with database.read() as tx:
        item = items.find_item(tx, project.id, item_id)
        if item is None:
            raise NotFoundError(f"project {project.slug!r} has no item {item_id!r}")
        return item, revisions.history_of(tx, item.number)


def list_imports(database: Database, project: Project, errors: int) -> list[tuple[ImportJob, tuple[RowError, ...]]]:
    """Return the newest imports, each with its first refused rows."""
    with database.read() as tx:
        found = imports.list_jobs(tx, project.id)
        return [(job, imports.errors_of(tx, job.id, errors) if job.failed else ()) for job in found]


def show_import(database: Database, project: Project, job_id: int) -> tuple[ImportJob, tuple[RowError, ...]]:
    """Return one import with its refused rows. Raises NotFoundError."""
    with database.read() as tx:
        return imports.find_job(tx, project.id, job_id), imports.errors_of(tx, job_id)
