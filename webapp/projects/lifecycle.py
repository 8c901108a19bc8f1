"""The life of a project: copied, archived, brought back, deleted and restored.

Owns who may do it (owners and admins) and what each step means: an archived project is only read and in no list of work; a
deleted one is gone from every list at once, can be restored for `web.keep_deleted_s`, then the pilot drops it with media and
uploads. Called by the API and the pages.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from labelloop.errors import ConflictError, ForbiddenError, NotFoundError
from webapp.db import events, imports, project_jobs, projects, rule_sets, tallies
from webapp.db.engine import Database, Tx
from webapp.db.project_jobs import ProjectJob
from webapp.db.projects import Project, Which
from webapp.db.users import User
from webapp.projects import service
from webapp.projects.service import Access, Role

_COPIED = (
    *("category", "kind", "target", "budget", "epoch", "strategy", "strategy_parameters", "algorithm", "encoder"),
    *("is_comparer_on", "retrain_labels", "parameters", "instructions", "labels", "limits"),
)


class Kept(msgspec.Struct, frozen=True):
    """A project that is archived, or deleted and may come back until `until` (None = it is archived)."""

    project: Project
    until: float | None
    may_restore: bool


def why_read_only(project: Project) -> str:
    """Return why nothing of a project may be changed, '' = it may."""
    return f"project {project.slug!r} is archived: bring it back to change anything" if project.is_archived else ""


def archive(database: Database, access: Access, user: User) -> Project:
    """Make a project read-only and take it out of the lists. Raises ConflictError when it is archived."""
    if access.project.is_archived:
        raise ConflictError(f"project {access.project.slug!r} is archived already")
    return _set(database, access.project, user, "archived the project", archived_at=time.time())


def unarchive(database: Database, access: Access, user: User) -> Project:
    """Bring an archived project back. Raises ConflictError when it is not archived."""
    if not access.project.is_archived:
        raise ConflictError(f"project {access.project.slug!r} is not archived")
    return _set(database, access.project, user, "brought the project back", archived_at=None)


def delete(database: Database, access: Access, user: User) -> Project:
    """Take a project out of every list; until it is really dropped, `restore` brings it back as it was."""
    now = time.time()
    with database.write() as tx:
        imports.cancel_all(tx, access.project.id, "the project was deleted", now)
    return _set(database, access.project, user, "deleted the project", deleted_at=now)


def restore(database: Database, user: User, slug: str) -> Project:
    """Bring a deleted project back. Raises NotFoundError (also for outsiders, and when it is too late), ForbiddenError."""
    with database.read() as tx:
        project = _find_deleted(tx, user, slug)
    return _set(database, project, user, "restored the project", deleted_at=None)


def _find_deleted(tx: Tx, user: User, slug: str) -> Project:
    try:
        project = projects.find_project(tx, slug, is_deleted=True)
    except NotFoundError as exc:
        if _is_member(tx, user, slug):
            raise ConflictError(f"project {slug!r} is not deleted") from exc
        raise
    role = Role.OWNER if user.is_admin else projects.role_of(tx, project.id, user.id)
    if role is None:
        raise NotFoundError(f"no project is called {slug!r}: see the list of projects")
    if role != Role.OWNER:
        raise ForbiddenError(f"only an owner of project {slug!r} may do this: ask one of its owners")
    return project


def _is_member(tx: Tx, user: User, slug: str) -> bool:
    project = projects.find_project(tx, slug)
    role = Role.OWNER if user.is_admin else projects.role_of(tx, project.id, user.id)
    if role is not None and role != Role.OWNER:
        raise ForbiddenError(f"only an owner of project {slug!r} may do this: ask one of its owners")
    return role is not None


def _set(database: Database, project: Project, user: User, what: str, **times: float | None) -> Project:
    with database.write() as tx:
        projects.keep_or_delete(tx, project.id, **times)
        events.add_event(tx, project.id, "project", f"{user.name} {what}", user.id, time.time())
        return projects.find_project(tx, project.slug, is_deleted=times.get("deleted_at") is not None)


def list_kept(database: Database, user: User, keep_s: float) -> tuple[list[Kept], list[Kept]]:
    """Return the archived projects that `user` may see, and the deleted ones that they may restore."""
    mine = None if user.is_admin else user.id
    with database.read() as tx:
        archived = [Kept(one, None, _owns(tx, user, one)) for one in projects.list_projects(tx, mine, Which.ARCHIVED)]
        deleted = [
            Kept(one, one.deleted_at + keep_s, True)
            for one in projects.list_projects(tx, mine, Which.DELETED)
            if one.deleted_at is not None and _owns(tx, user, one)
        ]
    return archived, deleted


def _owns(tx: Tx, user: User, project: Project) -> bool:
    return user.is_admin or projects.role_of(tx, project.id, user.id) == Role.OWNER


def copy(
    database: Database, access: Access, user: User, slug: str, title: str, *, with_items: bool, with_labels: bool
) -> tuple[Project, ProjectJob | None]:
    """Make a project with the settings and rules of another, owned by `user`; items and labels come in the background.

    Raises InvalidInputError, ConflictError.
    """
    source = access.project
    with database.read() as tx:
        if any(job.state in project_jobs.LIVE for job in project_jobs.list_jobs(tx, source.id)):
            raise ConflictError(f"labels of {source.slug!r} are being changed in the background: wait for the end, then copy it")
        rules, count = rule_sets.read_rules(tx, source.id), tallies.total(tx, source.id)
    values: dict[str, Any] = {name: getattr(source, name) for name in _COPIED}
    made = service.create_project(database, user, values | {"slug": slug, "title": title or f"{source.title} (2)"})
    with database.write() as tx:
        if rules.revision:
            rule_sets.save_rules(tx, made.id, msgspec.structs.replace(rules, revision=0))
        events.add_event(tx, made.id, "project", f"{user.name} copied it from {source.slug}", user.id, time.time())
        if not (with_items or with_labels):
            return made, None
        detail = {"source": source.id, "labels": with_labels}
        return made, project_jobs.add_job(tx, made.id, user.id, "copy", detail, count.items, time.time())
