"""Projects and who belongs to them.

Owns the tables `projects` and `members`. Must never decide who may do what: `webapp.projects` does. Labels are only ever appended,
so the number of a label stays what it is for the life of a project.
"""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from labelloop.errors import ConflictError, NotFoundError
from webapp.db import tables as t
from webapp.db.engine import Tx


class Project(msgspec.Struct, frozen=True):
    """One project; `slug` is also the cluster's task name. `spec_revision` grows with what the cluster must know."""

    id: int
    slug: str
    title: str
    category: str
    kind: str
    labels: tuple[str, ...]
    target: float
    budget: int
    epoch: int
    strategy: str
    algorithm: str
    encoder: str
    is_comparer_on: bool
    retrain_labels: int
    parameters: dict[str, Any]
    instructions: str
    is_paused: bool
    spec_revision: int
    opened_revision: int
    next_position: int
    created_at: float

    @property
    def is_multilabel(self) -> bool:
        """Return whether an item may carry any number of labels."""
        return self.kind == "multilabel"


class Member(msgspec.Struct, frozen=True):
    """One person of a project."""

    user_id: int
    name: str
    role: str


_FIELDS = [f.name for f in msgspec.structs.fields(Project)]
_COLUMNS = [t.projects.c[name] for name in _FIELDS]
_AS_JSON = frozenset({"labels", "parameters"})
_FIND = sa.select(*_COLUMNS).where(t.projects.c.slug == sa.bindparam("slug"))
_ROLE = sa.select(t.members.c.role).where(
    t.members.c.project_id == sa.bindparam("project_id"), t.members.c.user_id == sa.bindparam("user_id")
)


def _project(row: Any) -> Project:
    values = dict(zip(_FIELDS, row, strict=True))
    values["labels"] = tuple(msgspec.json.decode(values["labels"]))
    values["parameters"] = msgspec.json.decode(values["parameters"])
    return Project(**values)


def _stored(values: dict[str, Any]) -> dict[str, Any]:
    return {k: msgspec.json.encode(v).decode() if k in _AS_JSON else v for k, v in values.items()}


def add_project(tx: Tx, values: dict[str, Any], owner_id: int, now: float) -> Project:
    """Insert a project and make `owner_id` its owner. Raises ConflictError when the slug is taken."""
    slug = values["slug"]
    if tx.execute(_FIND, {"slug": slug}).first() is not None:
        raise ConflictError(f"a project called {slug!r} exists: choose another name")
    fixed = {"is_paused": False, "spec_revision": 1, "opened_revision": 0, "next_position": 0, "created_at": now}
    try:
        tx.execute(t.projects.insert().values(**_stored(values), **fixed))
    except sa.exc.IntegrityError as exc:
        raise ConflictError(f"a project called {slug!r} exists: choose another name") from exc
    project = find_project(tx, slug)
    set_member(tx, project.id, owner_id, "owner")
    return project


def find_project(tx: Tx, slug: str) -> Project:
    """Return the project called `slug`. Raises NotFoundError."""
    row = tx.execute(_FIND, {"slug": slug}).first()
    if row is None:
        raise NotFoundError(f"no project is called {slug!r}: see the list of projects")
    return _project(row)


def project_by_id(tx: Tx, project_id: int) -> Project | None:
    """Return the project with this number."""
    row = tx.execute(sa.select(*_COLUMNS).where(t.projects.c.id == project_id)).first()
    return _project(row) if row else None


def list_projects(tx: Tx, user_id: int | None = None) -> tuple[Project, ...]:
    """Return all projects, or those that `user_id` belongs to, by slug."""
    query = sa.select(*_COLUMNS).order_by(t.projects.c.slug)
    if user_id is not None:
        query = query.join(t.members, t.members.c.project_id == t.projects.c.id).where(t.members.c.user_id == user_id)
    return tuple(_project(row) for row in tx.execute(query))


def change_project(tx: Tx, project_id: int, values: dict[str, Any], is_spec_change: bool) -> None:
    """Set columns of a project; a change of the spec makes the next revision."""
    stored = _stored(values)
    if is_spec_change:
        stored["spec_revision"] = t.projects.c.spec_revision + 1
    tx.execute(t.projects.update().where(t.projects.c.id == project_id).values(**stored))


def mark_opened(tx: Tx, project_id: int, revision: int) -> None:
    """Record that the cluster knows `revision` of the project."""
    tx.execute(t.projects.update().where(t.projects.c.id == project_id).values(opened_revision=revision))


def drop_project(tx: Tx, project_id: int) -> None:
    """Delete a project with everything below it (children first, so that no foreign key is searched row by row)."""
    children = (t.outbox, t.leases, t.head_drafts, t.blocks, t.annotations, t.items)
    for table in (*children, t.tallies, t.rankings, t.scoring, t.versions, t.live, t.events):
        tx.execute(table.delete().where(table.c.project_id == project_id))
    tx.execute(t.projects.delete().where(t.projects.c.id == project_id))


def set_member(tx: Tx, project_id: int, user_id: int, role: str) -> None:
    """Give `user_id` a role in the project, replacing the one held."""
    tx.execute(t.members.delete().where(t.members.c.project_id == project_id, t.members.c.user_id == user_id))
    tx.execute(t.members.insert().values(project_id=project_id, user_id=user_id, role=role))


def drop_member(tx: Tx, project_id: int, user_id: int) -> bool:
    """Take a person out of the project; False when they were not in it."""
    gone = tx.execute(t.members.delete().where(t.members.c.project_id == project_id, t.members.c.user_id == user_id))
    return bool(gone.rowcount)


def role_of(tx: Tx, project_id: int, user_id: int) -> str | None:
    """Return the role of a person in the project, None = no member."""
    return tx.execute(_ROLE, {"project_id": project_id, "user_id": user_id}).scalar()


def list_members(tx: Tx, project_id: int) -> tuple[Member, ...]:
    """Return the people of a project by name."""
    query = (
        sa.select(t.users.c.id, t.users.c.name, t.members.c.role)
        .join(t.members, t.members.c.user_id == t.users.c.id)
        .where(t.members.c.project_id == project_id)
        .order_by(t.users.c.name)
    )
    return tuple(Member(*row) for row in tx.execute(query))
