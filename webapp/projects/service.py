"""Projects as functions: create, change, people, and who may do what.

Owns the rules: an admin may do everything; an owner everything in the project; a reviewer judges labels
besides; an annotator labels and looks. A person outside a
project is told that it does not exist. Called by the API and the pages.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from labelloop import messages as m
from labelloop.errors import ConflictError, ForbiddenError, InvalidInputError, NotFoundError
from labelloop.ids import parse_task
from webapp.db import events, operations, projects, tallies, users
from webapp.db.engine import Database, Tx
from webapp.db.entries import Entry
from webapp.db.events import Event
from webapp.db.projects import Member, Project
from webapp.db.tallies import Tally
from webapp.db.users import User
from webapp.kinds import catalogue
from webapp.kinds.limits import Limits, read_limits
from webapp.people import shares, withdrawing
from webapp.projects import strategies


class Role(enum.StrEnum):
    """What a person is in a project."""

    OWNER = "owner"
    REVIEWER = "reviewer"
    ANNOTATOR = "annotator"


class Access(msgspec.Struct, frozen=True):
    """A project as one person may use it."""

    project: Project
    role: Role

    @property
    def is_owner(self) -> bool:
        """Return whether this person may change the project."""
        return self.role is Role.OWNER

    @property
    def may_review(self) -> bool:
        """Return whether this person may judge the labels of others and see how good they are."""
        return self.role is not Role.ANNOTATOR

    @property
    def may_see_labels(self) -> bool:
        """Return whether this person may look at labels of others: not an annotator whose own opinion is asked for."""
        return self.may_review or not self.project.work.is_blind

    def check_may_see_labels(self) -> None:
        """Raise ForbiddenError to an annotator who would see what others said."""
        if not self.may_see_labels:
            raise ForbiddenError("people give their opinions here without seeing those of others: ask a reviewer for the labels")


_DEFAULTS: dict[str, Any] = {
    "title": "",
    "kind": "",
    "target": 0.95,
    "budget": 0,
    "epoch": 0,
    "strategy": "auto",
    "strategy_parameters": {},
    "algorithm": "auto",
    "encoder": "auto",
    "is_comparer_on": True,
    "retrain_labels": 0,
    "parameters": {},
    "instructions": "",
    "limits": Limits(),
}
NOT_LEARNED = "the cluster has no model for this kind of project: labels stay in the app, drafts come with imports"
_SPEC_FIELDS = frozenset(
    {"labels", "target", "budget", "epoch", "algorithm", "encoder", "is_comparer_on", "retrain_labels", "parameters"}
)
_FIXED_FIELDS = frozenset({"slug", "category", "kind"})


def create_project(database: Database, user: User, values: Mapping[str, Any]) -> Project:
    """Create a project owned by `user`. Raises InvalidInputError naming the field, ConflictError when the slug is taken."""
    full = {**_DEFAULTS, **values}
    parse_task(str(full.get("slug", "")))
    full["title"] = full["title"] or full["slug"]
    full["kind"] = full["kind"] or catalogue.kinds_of(str(full.get("category", "")))[0]
    full["limits"] = check_values(full)
    with database.write() as tx:
        project = projects.add_project(tx, full, user.id, time.time())
        events.add_event(tx, project.id, "project", f"{user.name} created the project", user.id, time.time())
        return project


def check_values(values: Mapping[str, Any]) -> Limits:
    """Return the limits in the form in which they are kept. Raises InvalidInputError naming the first value that a project may not
    have."""
    catalogue.check_pair(values["category"], values["kind"])
    check_label_names(catalogue.kind_of(values["kind"]), values["labels"])
    strategies.check_choice(values)
    _check_numbers(values)
    return read_limits(catalogue.kind_of(values["kind"]), values["labels"], values["limits"])


def check_label_names(kind: catalogue.Kind, labels: Sequence[str]) -> None:
    """Raise InvalidInputError naming the label that a project of this kind may not have, or how many it needs."""
    if not kind.least_labels and labels:
        raise InvalidInputError(f"labels {list(labels)[:5]!r}: a project of kind {kind.name!r} has none, leave labels out")
    if not kind.least_labels <= len(labels) <= 1000 or len(set(labels)) != len(labels):
        raise InvalidInputError(f"labels {list(labels)[:5]!r}...: give {kind.least_labels} to 1000 different labels")
    for label in labels:
        if not 1 <= len(label) <= 100 or label != label.strip() or any(ord(c) < 32 for c in label):
            raise InvalidInputError(f"label {label[:110]!r}: use 1 to 100 characters without spaces at the ends")


def _check_numbers(values: Mapping[str, Any]) -> None:
    if not 0 < values["target"] <= 1:
        raise InvalidInputError(f"target {values['target']!r}: use a share above 0 and up to 1")
    for name in ("budget", "epoch", "retrain_labels"):
        if not 0 <= values[name] <= 10**9:
            raise InvalidInputError(f"{name} {values[name]!r}: use a whole number from 0 on")


def enter(database: Database, user: User, slug: str, entry: Entry | None = None) -> Access:
    """Return the project as `user` may use it; `entry` = what was just found of both. Raises NotFoundError for outsiders too."""
    if entry is not None:
        return _access(user, slug, entry.project, entry.role)
    with database.read() as tx:
        return _enter(tx, user, slug)


def enter_as_owner(database: Database, user: User, slug: str, entry: Entry | None = None) -> Access:
    """Return the project of which `user` is owner. Raises NotFoundError, ForbiddenError."""
    access = enter(database, user, slug, entry)
    if not access.is_owner:
        raise ForbiddenError(f"only an owner of project {slug!r} may do this: ask one of its owners")
    return access


def enter_as_reviewer(database: Database, user: User, slug: str) -> Access:
    """Return the project whose labels `user` may judge. Raises NotFoundError, ForbiddenError."""
    access = enter(database, user, slug)
    if not access.may_review:
        raise ForbiddenError(f"only a reviewer or an owner of project {slug!r} may do this: ask one of its owners")
    return access


def _enter(tx: Tx, user: User, slug: str) -> Access:
    return _access(user, slug, *projects.find_project_for(tx, slug, user.id))


def _access(user: User, slug: str, project: Project | None, role: str | None) -> Access:
    if project is None or (role is None and not user.is_admin):
        raise NotFoundError(f"no project is called {slug!r}: see the list of projects")
    return Access(project, Role.OWNER if role is None or user.is_admin else Role(role))


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
    if values.get("strategy", project.strategy) != project.strategy:
        values = {"strategy_parameters": {}, **values}  # another strategy has other parameters
    full = msgspec.structs.asdict(project) | {"limits": project.limits_now} | dict(values)
    limits = check_values(full)
    if "limits" in values:
        values = {**values, "limits": limits}
    if tuple(full["labels"])[: len(project.labels)] != project.labels:
        raise ConflictError("labels may only be added here, behind those there are: to rename or merge, use the page Labels")
    changed = {k: v for k, v in values.items() if k not in _FIXED_FIELDS and v != getattr(project, k)}
    if "labels" in changed:
        changed["labels"] = tuple(changed["labels"])
        if changed["labels"] == project.labels:
            del changed["labels"]
        elif project.places:
            changed["places"] = project.label_set.add(changed["labels"][len(project.labels) :]).places
    if not changed:
        return project
    with database.write() as tx:
        projects.change_project(tx, project.id, changed, bool(_SPEC_FIELDS & changed.keys()))
        text = f"{user.name} changed {', '.join(sorted(changed.keys() - {'places'}))}"
        events.add_event(tx, project.id, "settings", text, user.id, time.time())
        if changed.get("is_paused"):
            events.add_event(tx, project.id, "stop", "the project is paused by its owner", None, time.time())
        return projects.find_project(tx, project.slug)


def list_members(database: Database, access: Access) -> tuple[Member, ...]:
    """Return the people of a project."""
    with database.read() as tx:
        return projects.list_members(tx, access.project.id)


def set_member(database: Database, access: Access, name: str, role: str) -> None:
    """Give the account `name` a role in the project. Raises NotFoundError, InvalidInputError."""
    if role not in tuple(Role):
        raise InvalidInputError(f"role {role!r}: use one of {', '.join(Role)}")
    with database.write() as tx:
        user = users.find_user(tx, name)
        if user is None:
            raise NotFoundError(f"no account is called {name!r}: an admin can create it")
        _keep_an_owner(tx, access.project, user.id, role)
        projects.set_member(tx, access.project.id, user.id, role)
        shares.deal_again(tx, access.project)
        operations.add_operation(tx, "people", f"{name} is {role} now", access.project.slug)


def drop_member(database: Database, access: Access, name: str) -> None:
    """Take a person out of the project. Raises NotFoundError."""
    with database.write() as tx:
        user = users.find_user(tx, name)
        if user is not None:
            _keep_an_owner(tx, access.project, user.id, "")
        if user is None or not projects.drop_member(tx, access.project.id, user.id):
            raise NotFoundError(f"{name!r} is not in project {access.project.slug!r}")
        withdrawing.leave(tx, access.project, user.id, time.time())
        shares.deal_again(tx, access.project)
        operations.add_operation(tx, "people", f"{name} is out of the project", access.project.slug)


def _keep_an_owner(tx: Tx, project: Project, user_id: int, role: str) -> None:
    owners = [member.user_id for member in projects.list_members(tx, project.id) if member.role == Role.OWNER]
    if owners == [user_id] and role != Role.OWNER:
        raise ConflictError(f"project {project.slug!r} would have no owner: make somebody else owner first")


def spec_of(project: Project) -> m.TaskSpec:
    """Return the project as the cluster sees it. Raises ConflictError for one that the cluster cannot learn."""
    if not project.is_learned:
        raise ConflictError(NOT_LEARNED)
    has_regions = project.category in m.REGION_CATEGORIES
    extra = m.TaskExtraInfo(
        kind="regions" if has_regions else "multilabel" if project.is_multilabel else "multiclass",
        labels=project.numbered,
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
