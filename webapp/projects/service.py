"""Projects as functions: create, change, people, and who may do what.

Owns the rules: an admin may do everything; an owner everything in the project; an annotator labels and looks. A person outside a
project is told that it does not exist. Called by the API and the pages.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from labelloop import messages as m
from labelloop.errors import ConflictError, ForbiddenError, InvalidInputError, NotFoundError
from labelloop.ids import parse_task
from webapp.db import events, projects, tallies, users
from webapp.db.engine import Database, Tx
from webapp.db.events import Event
from webapp.db.projects import Member, Project
from webapp.db.tallies import Tally
from webapp.db.users import User


class Role(enum.StrEnum):
    """What a person is in a project."""

    OWNER = "owner"
    ANNOTATOR = "annotator"


class Access(msgspec.Struct, frozen=True):
    """A project as one person may use it."""

    project: Project
    role: Role

    @property
    def is_owner(self) -> bool:
        """Return whether this person may change the project."""
        return self.role is Role.OWNER


STRATEGIES = ("auto", "random", "least_confidence", "margin", "entropy", "typiclust")
_DEFAULTS: dict[str, Any] = {
    "title": "",
    "kind": "multiclass",
    "target": 0.95,
    "budget": 0,
    "epoch": 0,
    "strategy": "auto",
    "algorithm": "auto",
    "encoder": "auto",
    "is_comparer_on": True,
    "retrain_labels": 0,
    "parameters": {},
    "instructions": "",
}
_SPEC_FIELDS = frozenset(
    {"labels", "target", "budget", "epoch", "algorithm", "encoder", "is_comparer_on", "retrain_labels", "parameters"}
)
_FIXED_FIELDS = frozenset({"slug", "category", "kind"})


def create_project(database: Database, user: User, values: Mapping[str, Any]) -> Project:
    """Create a project owned by `user`. Raises InvalidInputError naming the field, ConflictError when the slug is taken."""
    full = {**_DEFAULTS, **values}
    parse_task(str(full.get("slug", "")))
    full["title"] = full["title"] or full["slug"]
    check_values(full)
    with database.write() as tx:
        project = projects.add_project(tx, full, user.id, time.time())
        events.add_event(tx, project.id, "project", f"{user.name} created the project", user.id, time.time())
        return project


def check_values(values: Mapping[str, Any]) -> None:
    """Raise InvalidInputError naming the first value that a project may not have."""
    if values["category"] not in m.CATEGORIES:
        raise InvalidInputError(f"category {values['category']!r}: use one of {', '.join(m.CATEGORIES)}")
    if values["kind"] not in ("multiclass", "multilabel"):
        raise InvalidInputError(f"kind {values['kind']!r}: use multiclass or multilabel")
    labels = values["labels"]
    if not 2 <= len(labels) <= 1000 or len(set(labels)) != len(labels):
        raise InvalidInputError(f"labels {list(labels)[:5]!r}...: give 2 to 1000 different labels")
    for label in labels:
        if not 1 <= len(label) <= 100 or label != label.strip() or any(ord(c) < 32 for c in label):
            raise InvalidInputError(f"label {label[:110]!r}: use 1 to 100 characters without spaces at the ends")
    if values["strategy"] not in STRATEGIES:
        raise InvalidInputError(f"strategy {values['strategy']!r}: use one of {', '.join(STRATEGIES)}")
    _check_numbers(values)


def _check_numbers(values: Mapping[str, Any]) -> None:
    if not 0 < values["target"] <= 1:
        raise InvalidInputError(f"target {values['target']!r}: use a share above 0 and up to 1")
    for name in ("budget", "epoch", "retrain_labels"):
        if not 0 <= values[name] <= 10**9:
            raise InvalidInputError(f"{name} {values[name]!r}: use a whole number from 0 on")


def enter(database: Database, user: User, slug: str) -> Access:
    """Return the project as `user` may use it. Raises NotFoundError for outsiders too."""
    with database.read() as tx:
        return _enter(tx, user, slug)


def enter_as_owner(database: Database, user: User, slug: str) -> Access:
    """Return the project of which `user` is owner. Raises NotFoundError, ForbiddenError."""
    access = enter(database, user, slug)
    if not access.is_owner:
        raise ForbiddenError(f"only an owner of project {slug!r} may do this: ask one of its owners")
    return access


def _enter(tx: Tx, user: User, slug: str) -> Access:
    project = projects.find_project(tx, slug)
    if user.is_admin:
        return Access(project, Role.OWNER)
    role = projects.role_of(tx, project.id, user.id)
    if role is None:
        raise NotFoundError(f"no project is called {slug!r}: see the list of projects")
    return Access(project, Role(role))


def list_projects(database: Database, user: User) -> tuple[Project, ...]:
    """Return the projects that `user` may see."""
    with database.read() as tx:
        return projects.list_projects(tx, None if user.is_admin else user.id)


def list_counted(database: Database, user: User) -> list[tuple[Project, Tally]]:
    """Return the projects that `user` may see with their counts."""
    with database.read() as tx:
        found = projects.list_projects(tx, None if user.is_admin else user.id)
        return [(project, tallies.total(tx, project.id)) for project in found]


def count(database: Database, project: Project) -> Tally:
    """Return the counts of a project."""
    with database.read() as tx:
        return tallies.total(tx, project.id)


def events_after(database: Database, project: Project, after: int, n: int) -> tuple[Event, ...]:
    """Return up to `n` events behind number `after`, oldest first; `after` < 0 = the newest ones."""
    with database.read() as tx:
        return events.events_after(tx, project.id, after, n)


def change_project(database: Database, access: Access, user: User, values: Mapping[str, Any]) -> Project:
    """Change settings. Raises InvalidInputError; ConflictError for what is fixed or for labels that would be taken away."""
    project = access.project
    for name in _FIXED_FIELDS & values.keys():
        if values[name] != getattr(project, name):
            raise ConflictError(f"{name} is fixed when a project is made: create another project for {values[name]!r}")
    full = msgspec.structs.asdict(project) | dict(values)
    check_values(full)
    if tuple(full["labels"])[: len(project.labels)] != project.labels:
        raise ConflictError("labels may only be added, behind those there are: the others keep their place")
    changed = {k: v for k, v in values.items() if k not in _FIXED_FIELDS and v != getattr(project, k)}
    if "labels" in changed:
        changed["labels"] = tuple(changed["labels"])
        if changed["labels"] == project.labels:
            del changed["labels"]
    if not changed:
        return project
    with database.write() as tx:
        projects.change_project(tx, project.id, changed, bool(_SPEC_FIELDS & changed.keys()))
        text = f"{user.name} changed {', '.join(sorted(changed))}"
        events.add_event(tx, project.id, "settings", text, user.id, time.time())
        return projects.find_project(tx, project.slug)


def drop_project(database: Database, access: Access) -> None:
    """Delete a project with its items and labels; the cluster's copy of the labels stays in the datastore."""
    with database.write() as tx:
        projects.drop_project(tx, access.project.id)


def list_members(database: Database, access: Access) -> tuple[Member, ...]:
    """Return the people of a project."""
    with database.read() as tx:
        return projects.list_members(tx, access.project.id)


def set_member(database: Database, access: Access, name: str, role: str) -> None:
    """Give the account `name` a role in the project. Raises NotFoundError, InvalidInputError."""
    if role not in tuple(Role):
        raise InvalidInputError(f"role {role!r}: use {' or '.join(Role)}")
    with database.write() as tx:
        user = users.find_user(tx, name)
        if user is None:
            raise NotFoundError(f"no account is called {name!r}: an admin can create it")
        projects.set_member(tx, access.project.id, user.id, role)


def drop_member(database: Database, access: Access, name: str) -> None:
    """Take a person out of the project. Raises NotFoundError."""
    with database.write() as tx:
        user = users.find_user(tx, name)
        if user is None or not projects.drop_member(tx, access.project.id, user.id):
            raise NotFoundError(f"{name!r} is not in project {access.project.slug!r}")


def spec_of(project: Project) -> m.TaskSpec:
    """Return the project as the cluster sees it."""
    extra = m.TaskExtraInfo(
        kind="multilabel" if project.is_multilabel else "multiclass",
        labels=project.labels,
        target=project.target,
        budget=project.budget,
        epoch=project.epoch,
        algorithm=project.algorithm,
        encoder=project.encoder,
        is_comparer_on=project.is_comparer_on,
        retrain_labels=project.retrain_labels,
        parameters=project.parameters,
    )
    category = msgspec.convert(project.category, m.Category)
    return m.TaskSpec(task=project.slug, category=category, extra=extra, revision=project.spec_revision)
