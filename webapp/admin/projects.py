"""All projects as an admin sees them: owners, items, labels, size, last activity.

Must never change a project: the buttons of the page call the API of projects. Called by the API.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from webapp.admin.disk import Measured
from webapp.db import projects, readings, sizes, tallies
from webapp.db.engine import Database
from webapp.db.projects import Project, Which


class ProjectLine(msgspec.Struct, frozen=True):
    """One project; `media_bytes` its uploads, `last_at` seconds since 1970 (None = nothing has happened in it).

    A project that is `deleted` can still be restored.
    """

    slug: str
    title: str
    owners: list[str]
    items: int
    labels: int
    media_bytes: int
    last_at: float | None
    is_paused: bool
    state: Literal["open", "paused", "archived", "deleted"]


def list_lines(database: Database) -> tuple[ProjectLine, ...]:
    """Return all projects by slug: those at work first, then the archived, then the deleted ones."""
    with database.read() as tx:
        _, measured, _ = readings.read_reading(tx, "disk", Measured)
        owners, found = sizes.owners_of(tx), [one for which in Which for one in projects.list_projects(tx, which=which)]
        rows = [(one, tallies.total(tx, one.id), sizes.last_activity(tx, one.id)) for one in found]
    return tuple(
        ProjectLine(
            slug=one.slug,
            title=one.title,
            owners=owners.get(one.id, []),
            items=count.items,
            labels=count.labels,
            media_bytes=measured.media.get(one.slug, 0) if measured else 0,
            last_at=last_at,
            is_paused=one.is_paused,
            state=_state(one),
        )
        for one, count, last_at in rows
    )


def _state(project: Project) -> Literal["open", "paused", "archived", "deleted"]:
    if project.deleted_at is not None:
        return "deleted"
    if project.is_archived:
        return "archived"
    return "paused" if project.is_paused else "open"
