"""Labels and items that the cluster gave up, with their reasons, and how old each project's outbox is.

Owns the list over all projects, and the second chance of items. Must never change a label. Called by the API.
"""

from __future__ import annotations

import time

import msgspec

from webapp.db import events, operations, outbox, projects, retries, scores
from webapp.db.engine import Database, Tx
from webapp.db.outbox import Failure
from webapp.db.projects import Project
from webapp.db.revisions import FAILED

_SHOWN = 50


class Unreadable(msgspec.Struct, frozen=True):
    """An item that the cluster could not read, or that ended its worker."""

    item_id: str
    reason: str
    at: float


class Letters(msgspec.Struct, frozen=True):
    """One project: labels on their way, the age of the oldest in seconds, those refused, items without a draft for a reason."""

    project: str
    title: str
    waiting: int
    age_s: float
    why_waiting: str
    n_refused: int
    refused: tuple[Failure, ...]
    unreadable: tuple[Unreadable, ...]


def list_letters(database: Database) -> tuple[Letters, ...]:
    """Return the projects that have something on its way or given up, by slug."""
    now = time.time()
    with database.read() as tx:
        found = tuple(_of(tx, project, now) for project in projects.list_projects(tx))
    return tuple(one for one in found if one.waiting or one.n_refused or one.unreadable)


def _of(tx: Tx, project: Project, now: float) -> Letters:
    oldest = outbox.oldest_waiting(tx, project.id)
    return Letters(
        project=project.slug,
        title=project.title,
        waiting=outbox.waiting(tx, project.id),
        age_s=round(now - oldest, 1) if oldest is not None else 0.0,
        why_waiting=outbox.why_waiting(tx, project.id),
        n_refused=outbox.waiting(tx, project.id, (FAILED,)),
        refused=outbox.failures(tx, project.id, _SHOWN),
        unreadable=_unreadable(tx, project.id),
    )


def _unreadable(tx: Tx, project_id: int) -> tuple[Unreadable, ...]:
    found: dict[str, Unreadable] = {}
    for event in events.events_of_kind(tx, project_id, "unreadable", _SHOWN):
        for one in event.detail.get("items", ()):
            found.setdefault(one["item_id"], Unreadable(one["item_id"], one["reason"], event.at))
    left = retries.without_answer(tx, project_id, list(found))
    return tuple(one for one in found.values() if one.item_id in left)[:_SHOWN]


def retry_items(database: Database, project: Project) -> int:
    """Let the pilot ask the cluster again for the items that could not be read; return how many."""
    with database.write() as tx:
        n = retries.ask_again(tx, project.id, scores.read_scored(tx, project.id).position, time.time())
        operations.add_operation(tx, "bulk", f"asked the cluster for {n} unreadable items again", project.slug)
    return n
