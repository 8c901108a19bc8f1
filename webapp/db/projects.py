"""Projects and who belongs to them.

Owns the tables `projects` and `members`. Must never decide who may do what: `webapp.projects` does. The number of a label stays
what it is for the life of a project, whatever becomes of its name (`webapp.kinds.label_set`).
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from labelloop.errors import ConflictError, NotFoundError
from webapp.db import tables as t
from webapp.db.engine import Tx
from webapp.kinds.catalogue import Kind, is_learned, kind_of
from webapp.kinds.label_set import LabelSet, Place, value_now
from webapp.kinds.limits import Limits
from webapp.kinds.values import Value, decode_more, encode_more
from webapp.people.work import Work


class Project(msgspec.Struct, frozen=True, dict=True):
    """One project; `slug` is also the cluster's task name. `spec_revision` grows with what the cluster must know.

    `labels` are those in use, in the order of the pages; `places` those of every number, () = `labels` as they stand. `has_errands`
    says that something waits for somebody in person: a returned label, an audit.
    """

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
    strategy_parameters: dict[str, Any]
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
    work: Work = Work()
    has_errands: bool = False
    places: tuple[Place, ...] = ()
    limits: Limits = Limits()
    archived_at: float | None = None
    deleted_at: float | None = None

    @property
    def is_multilabel(self) -> bool:
        """Return whether an item may carry any number of labels."""
        return self.kind == "multilabel"

    @property
    def kind_rules(self) -> Kind:
        """Return what a value of this project's kind has."""
        return kind_of(self.kind)

    @functools.cached_property
    def limits_now(self) -> Limits:
        """What is asked of a value beyond its kind, with the labels of relations as they are called now."""
        return msgspec.structs.replace(self.limits, relation_labels=self.current(self.limits.relation_labels))

    @property
    def is_learned(self) -> bool:
        """Return whether the cluster trains on this project; otherwise its labels stay in the app."""
        return is_learned(self.category, self.kind)

    @property
    def is_shared(self) -> bool:
        """Return whether items or labels go through more than one pair of hands, so that the desk of opinions is asked first."""
        return self.has_errands or not self.work.is_plain

    @property
    def is_archived(self) -> bool:
        """Return whether the project is only to be read."""
        return self.archived_at is not None

    @functools.cached_property
    def label_set(self) -> LabelSet:
        """The labels with all their numbers and earlier names."""
        return LabelSet(self.labels, self.places or tuple(map(Place, self.labels)))

    @functools.cached_property
    def numbered(self) -> tuple[str, ...]:
        """The name of every number, as the cluster knows them: those that were renamed or merged stay, so no number moves."""
        return tuple(place.name for place in self.label_set.places)

    def current(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return labels, whenever they were written, as they are called now, each once."""
        return self.label_set.current(names)

    def current_more(self, stored: str | None) -> str | None:
        """Return what is stored beside labels with the labels of its marks as they are called now."""
        if stored is None or not self.label_set.left:
            return stored
        return encode_more(value_now(self.label_set, decode_more((), stored)))

    def value_now(self, said: Value) -> Value:
        """Return what was said, whenever that was, with its labels as they are called now."""
        return value_now(self.label_set, said) if self.label_set.left else said

    def read_value(self, labels: str | None, more: str | None) -> Value:
        """Return the value whose columns these are (labels as JSON, None = none), its labels as they are called now."""
        return self.value_now(decode_more(tuple(msgspec.json.decode(labels)) if labels else (), more))

    def label_of(self, number: int) -> str:
        """Return what the label of a number is called now."""
        return self.label_set.places[self.label_set.resolved[number]].name


class Member(msgspec.Struct, frozen=True):
    """One person of a project."""

    user_id: int
    name: str
    role: str


_FIELDS = [f.name for f in msgspec.structs.fields(Project)]
COLUMNS = [t.projects.c[name] for name in _FIELDS]
_AS_JSON = frozenset({"labels", "parameters", "strategy_parameters", "places", "work", "limits"})
_NO_WORK = Work()
_NO_LIMITS = Limits()
IS_KEPT = t.projects.c.deleted_at.is_(None)
_FIND = sa.select(*COLUMNS).where(t.projects.c.slug == sa.bindparam("slug"))
_IS_MEMBER = sa.and_(t.members.c.project_id == t.projects.c.id, t.members.c.user_id == sa.bindparam("user_id"))
_FIND_FOR = (
    sa.select(*COLUMNS, t.members.c.role)
    .select_from(t.projects.outerjoin(t.members, _IS_MEMBER))
    .where(t.projects.c.slug == sa.bindparam("slug"), IS_KEPT)
)
_ROLE = sa.select(t.members.c.role).where(
    t.members.c.project_id == sa.bindparam("project_id"), t.members.c.user_id == sa.bindparam("user_id")
)


def read_project(row: Sequence[Any]) -> Project:
    """Return the project of a row of `COLUMNS`."""
    return _read(tuple(row))


@functools.lru_cache(maxsize=256)
def _read(row: tuple[Any, ...]) -> Project:
    """Return the project of a row; the same row, which most requests find, is read once."""
    values = dict(zip(_FIELDS, row, strict=True))
    values["labels"] = tuple(msgspec.json.decode(values["labels"]))
    values["places"] = msgspec.json.decode(values["places"], type=tuple[Place, ...])
    values["limits"] = _NO_LIMITS if values["limits"] == "{}" else msgspec.json.decode(values["limits"], type=Limits)
    for name in ("parameters", "strategy_parameters"):
        values[name] = msgspec.json.decode(values[name])
    values["work"] = _NO_WORK if values["work"] == "{}" else msgspec.json.decode(values["work"], type=Work)
    return Project(**values)


def _stored(values: dict[str, Any]) -> dict[str, Any]:
    return {k: msgspec.json.encode(v).decode() if k in _AS_JSON else v for k, v in values.items()}


def add_project(tx: Tx, values: dict[str, Any], owner_id: int, now: float) -> Project:
    """Insert a project and make `owner_id` its owner. Raises ConflictError when the slug is taken."""
    slug = values["slug"]
    there = tx.execute(_FIND, {"slug": slug}).first()
    if there is not None:
        if read_project(there).deleted_at is not None:
            raise ConflictError(f"a project called {slug!r} was deleted and can still be brought back: choose another name")
        raise ConflictError(f"a project called {slug!r} exists: choose another name")
    fixed = {"is_paused": False, "spec_revision": 1, "opened_revision": 0, "next_position": 0, "created_at": now}
    try:
        tx.execute(t.projects.insert().values(**_stored(values), **fixed))
    except sa.exc.IntegrityError as exc:
        raise ConflictError(f"a project called {slug!r} exists: choose another name") from exc
    project = find_project(tx, slug)
    set_member(tx, project.id, owner_id, "owner")
    return project


def find_project(tx: Tx, slug: str, is_deleted: bool = False) -> Project:
    """Return the project called `slug`, or the deleted one of this name. Raises NotFoundError."""
    row = tx.execute(_FIND, {"slug": slug}).first()
    project = read_project(row) if row is not None else None
    if project is None or (project.deleted_at is not None) != is_deleted:
        raise NotFoundError(f"no project is called {slug!r}: see the list of projects")
    return project


def find_project_for(tx: Tx, slug: str, user_id: int) -> tuple[Project, str | None]:
    """Return the project called `slug` and the role of a person in it, None = no member. Raises NotFoundError."""
    row = tx.execute(_FIND_FOR, {"slug": slug, "user_id": user_id}).first()
    if row is None:
        raise NotFoundError(f"no project is called {slug!r}: see the list of projects")
    return read_project(row[:-1]), row[-1]


def project_by_id(tx: Tx, project_id: int) -> Project | None:
    """Return the project with this number."""
    row = tx.execute(sa.select(*COLUMNS).where(t.projects.c.id == project_id, IS_KEPT)).first()
    return read_project(row) if row else None


class Which(enum.Enum):
    """Which projects a list has."""

    ACTIVE = enum.auto()
    ARCHIVED = enum.auto()
    DELETED = enum.auto()


_WHICH = {
    Which.ACTIVE: sa.and_(IS_KEPT, t.projects.c.archived_at.is_(None)),
    Which.ARCHIVED: sa.and_(IS_KEPT, t.projects.c.archived_at.is_not(None)),
    Which.DELETED: t.projects.c.deleted_at.is_not(None),
}


def list_projects(tx: Tx, user_id: int | None = None, which: Which = Which.ACTIVE) -> tuple[Project, ...]:
    """Return all projects, or those that `user_id` belongs to, by slug; archived and deleted ones only when asked for."""
    query = sa.select(*COLUMNS).where(_WHICH[which]).order_by(t.projects.c.slug)
    if user_id is not None:
        query = query.join(t.members, t.members.c.project_id == t.projects.c.id).where(t.members.c.user_id == user_id)
    return tuple(read_project(row) for row in tx.execute(query))


def change_project(tx: Tx, project_id: int, values: dict[str, Any], is_spec_change: bool) -> None:
    """Set columns of a project; a change of the spec makes the next revision."""
    stored = _stored(values)
    if is_spec_change:
        stored["spec_revision"] = t.projects.c.spec_revision + 1
    tx.execute(t.projects.update().where(t.projects.c.id == project_id).values(**stored))


def lock_project(tx: Tx, project_id: int) -> None:
    """Let nobody else change the project until the end of the transaction."""
    tx.execute(sa.select(t.projects.c.id).where(t.projects.c.id == project_id).with_for_update())


def mark_opened(tx: Tx, project_id: int, revision: int) -> None:
    """Record that the cluster knows `revision` of the project."""
    tx.execute(t.projects.update().where(t.projects.c.id == project_id).values(opened_revision=revision))


def keep_or_delete(tx: Tx, project_id: int, **times: float | None) -> None:
    """Set `archived_at` or `deleted_at` of a project, None = take it back."""
    tx.execute(t.projects.update().where(t.projects.c.id == project_id).values(**times))


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
