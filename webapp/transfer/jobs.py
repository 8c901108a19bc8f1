"""Items and imports as the API asks for them.

Called by the data views.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from labelloop.errors import InvalidInputError, NotFoundError
from webapp.db import gold, imports, items, operations, revisions
from webapp.db.engine import Database
from webapp.db.imports import ImportJob, RowError
from webapp.db.items import LABELLED, OPEN, RULED, NewItem, StoredItem
from webapp.db.projects import Project
from webapp.db.revisions import Annotation
from webapp.transfer import rows
from webapp.transfer.drops import drop_upload

_STATES = {"open": OPEN, "labelled": LABELLED, "rules": RULED}


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
            failed.append(RowError(line, _whole(str(given.get("id") or "")[:200]), _whole(str(exc))))
    now = time.time()
    with database.write() as tx:
        added = items.add_items(tx, project, new, user_id, now)
        gold.mark(tx, project.id, user_id, [one.item_id for one in new if one.is_gold], now, only_new=True)
    return added, len(new) - added, failed


def _whole(text: str) -> str:
    """Return a text with a mark in place of half characters, which no answer can carry."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def page_items(database: Database, project: Project, state: str, after: int, n: int) -> list[StoredItem]:
    """Return items in one state behind a position."""
    with database.read() as tx:
        return items.page_items(tx, project.id, _STATES[state], after, n)


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


def cancel_import(database: Database, project: Project, job_id: int) -> ImportJob:
    """End an import that has not ended; what is in stays in. Raises NotFoundError."""
    with database.write() as tx:
        before = imports.find_job(tx, project.id, job_id)
        job = imports.cancel_job(tx, project.id, job_id, time.time())
    if before.state == "waiting":  # a running one's process sees it at the next chunk, and takes its files away
        drop_upload(Path(job.path))
    return job


def note_export(database: Database, project: Project, form: str) -> None:
    """Write down that somebody takes labels out."""
    with database.write() as tx:
        operations.add_operation(tx, "export", f"exported labels as {form}", project.slug)
