"""Codes that open a door once: invitations to the app or to a project, and links for a new password.

Owns who may make them and what they are good for. A code is 256 random bits, shown once and kept as its SHA-256; a page carries it
behind the '#' of its address, where no server and no proxy logs it. Called by the API and the pages.
"""

from __future__ import annotations

import secrets
import time

from labelloop.errors import ForbiddenError, InvalidInputError, NotFoundError, UnauthenticatedError
from webapp.accounts import service
from webapp.db import events, operations, projects, tickets, users
from webapp.db.engine import Database, Tx
from webapp.db.tickets import Ticket
from webapp.db.users import User
from webapp.projects.service import Access, Role

DAY_S = 86400.0
MOST_DAYS = 90
MOST_USES = 1000
RESET_S = DAY_S
REGISTRATIONS = ("closed", "invitation", "open")


def invite(
    database: Database, user: User, registration: str, access: Access | None = None, role: str = "", uses: int = 1, days: int = 7
) -> tuple[Ticket, str]:
    """Return an invitation and its code: to the app by an admin, to a project (`access`, `role`) by its owners.

    Raises ForbiddenError, InvalidInputError (role, uses, days), and ForbiddenError where only admins may add people.
    """
    if access is None and not user.is_admin:
        raise ForbiddenError("only an admin may do this: ask the admin of this installation")
    if access is not None and not access.is_owner:
        raise ForbiddenError(f"only an owner of project {access.project.slug!r} may do this: ask one of its owners")
    if registration == "closed" and not user.is_admin:
        raise ForbiddenError("only an admin may add people: ask the admin of this installation")
    if access is not None and role not in tuple(Role):
        raise InvalidInputError(f"role {role!r}: use one of {', '.join(Role)}")
    if not 1 <= uses <= MOST_USES or not 1 <= days <= MOST_DAYS:
        raise InvalidInputError(f"{uses} people for {days} days: use 1 to {MOST_USES} people and 1 to {MOST_DAYS} days")
    code, now = secrets.token_urlsafe(32), time.time()
    project_id = access.project.id if access else None
    with database.write() as tx:
        tickets.drop_stale(tx, now)
        slug = access.project.slug if access else ""
        operations.add_operation(tx, "people", f"made an invitation for {uses} over {days} days", slug)
        made = tickets.add_ticket(
            tx,
            "invitation",
            service.secret_hash(code),
            user.name,
            now,
            now + days * DAY_S,
            uses=uses,
            project_id=project_id,
            role=role if access else "",
        )
    return made, code


def list_invitations(database: Database, user: User, access: Access | None = None) -> tuple[Ticket, ...]:
    """Return the invitations that are good: all of them for an admin, those to one project for its owners."""
    if access is None and not user.is_admin:
        raise ForbiddenError("only an admin may do this: ask the admin of this installation")
    with database.read() as tx:
        return tickets.list_invitations(tx, time.time(), access.project.id if access else None)


def withdraw(database: Database, user: User, ticket_id: int, access: Access | None = None) -> None:
    """Take an invitation back. Raises NotFoundError for one that does not exist or is not this person's business."""
    with database.write() as tx:
        found = tickets.find_invitation(tx, ticket_id)
        is_ours = access is not None and access.is_owner and found is not None and found.project_id == access.project.id
        if found is None or not (user.is_admin or is_ours):
            raise NotFoundError(f"there is no invitation number {ticket_id}")
        tickets.drop_ticket(tx, ticket_id)
        operations.add_operation(tx, "people", f"withdrew invitation {ticket_id}", found.project)


def register(database: Database, registration: str, name: str, password: str, code: str = "") -> User:
    """Create an account for whoever asks: with an invitation, or without where registration is open.

    Raises InvalidInputError (name or password), ForbiddenError (closed, or no invitation), UnauthenticatedError (a code that is not
    good), ConflictError (the name is taken; the invitation stays good).
    """
    if registration == "closed":
        raise ForbiddenError("only an admin may add people: ask the admin of this installation")
    if registration == "invitation" and not code:
        raise ForbiddenError("an invitation is needed: ask an admin or a project's owner for one")
    if not service.has_users(database):
        raise ForbiddenError("the first account is the administrator's: log in first")
    password_hash = service.hash_password(name, password)
    with database.write() as tx:
        ticket = _good_ticket(tx, "invitation", code) if code else None
        user = users.add_user(tx, name, password_hash, False, secrets.token_urlsafe(24), time.time())
        operations.add_operation(tx, "account", f"{name} registered" + (" with an invitation" if ticket else ""))
        if ticket is not None:
            _accept(tx, user, ticket)
        return user


def accept(database: Database, user: User, code: str) -> str:
    """Let somebody who has an account into the project of an invitation; return its slug, '' = it was to the app alone."""
    with database.write() as tx:
        ticket = _good_ticket(tx, "invitation", code)
        _accept(tx, user, ticket)
        return ticket.project


def _good_ticket(tx: Tx, kind: tickets.Kind, code: str) -> Ticket:
    ticket = tickets.find_ticket(tx, kind, service.secret_hash(code), time.time())
    if ticket is None or not tickets.spend_ticket(tx, ticket.id):
        raise UnauthenticatedError("this code is not good any more: ask for a new one")
    return ticket


def _accept(tx: Tx, user: User, ticket: Ticket) -> None:
    if ticket.project_id is None or projects.role_of(tx, ticket.project_id, user.id) == Role.OWNER:
        return
    projects.set_member(tx, ticket.project_id, user.id, ticket.role)
    text = f"{user.name} came in as {ticket.role}, invited by {ticket.made_by}"
    events.add_event(tx, ticket.project_id, "people", text, user.id, time.time())


def offer_reset(database: Database, by: User, name: str) -> tuple[Ticket, str]:
    """Return a code with which `name` sets a new password within a day. Raises ForbiddenError, NotFoundError."""
    if not by.is_admin:
        raise ForbiddenError("only an admin may do this: ask the admin of this installation")
    code, now = secrets.token_urlsafe(32), time.time()
    with database.write() as tx:
        user = users.find_user(tx, name)
        if user is None:
            raise NotFoundError(f"no account is called {name!r}")
        operations.add_operation(tx, "account", f"made a link for a new password of {name}")
        return tickets.add_ticket(tx, "reset", service.secret_hash(code), by.name, now, now + RESET_S, user_id=user.id), code


def reset_password(database: Database, code: str, password: str) -> User:
    """Set a new password by a code; all sessions of the account end. Raises UnauthenticatedError, InvalidInputError."""
    password_hash = service.hash_password("", password)
    with database.write() as tx:
        ticket = _good_ticket(tx, "reset", code)
        assert ticket.user_id is not None
        users.change_user(tx, ticket.user_id, password_hash=password_hash, session_key=secrets.token_urlsafe(24))
        user = users.find_user_by_id(tx, ticket.user_id)
        operations.add_operation(tx, "account", f"{user.name if user else ''} set a new password by an admin's link")
    assert user is not None
    return user
