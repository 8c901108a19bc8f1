"""REST: registration, invitations, links for a new password. Shells around `webapp.accounts.tickets`."""

from __future__ import annotations

from typing import Any

import flask
import msgspec
from flask_smorest import Blueprint
from werkzeug.wrappers import Response

from webapp import guard
from webapp.accounts import tickets
from webapp.db.tickets import Ticket
from webapp.projects.service import enter_as_owner
from webapp.rooms import rooms
from webapp.views import account_schemas as schemas
from webapp.views.api_projects import enter_as_owner as enter_to_change
from webapp.views.replies import person_reply, reply

blueprint = Blueprint("tickets", __name__, description="Registration, invitations and links for a new password")


def made_reply(ticket: Ticket, code: str) -> dict[str, Any]:
    """Return a new code with the page that takes it."""
    page = "pages.reset" if ticket.kind == "reset" else "pages.register"
    return ticket_reply(ticket) | {"code": code, "url": f"{flask.url_for(page, _external=True)}#{code}"}


def ticket_reply(ticket: Ticket) -> dict[str, Any]:
    """Return what may be shown of a code."""
    shown = msgspec.structs.asdict(ticket)
    return {name: shown[name] for name in ("id", "project", "role", "made_by", "uses_left", "expires_at")}


@blueprint.post("/registration")
@guard.login_limit()
@blueprint.arguments(schemas.Registration)
@blueprint.response(201, schemas.Person)
def register(given: dict[str, str]) -> Response:
    """Create one's own account: with an invitation, or without where registration is open."""
    here = rooms()
    user = tickets.register(here.database, here.settings.web.registration, given["name"], given["password"], given["code"])
    return reply(person_reply(user), 201)


@blueprint.post("/invitations/accept")
@guard.login_limit()
@blueprint.arguments(schemas.Code)
@blueprint.response(200, schemas.Joined)
def accept(given: dict[str, str]) -> Response:
    """Take an invitation as somebody who has an account."""
    return reply({"project": tickets.accept(rooms().database, guard.asking_user(), given["code"])})


@blueprint.post("/invitations")
@blueprint.arguments(schemas.NewInvitation)
@blueprint.response(201, schemas.MadeTicket)
def invite(given: dict[str, Any]) -> Response:
    """Make an invitation to the app; for admins. Its code is shown this once."""
    user = guard.asking_admin()
    return reply(made_reply(*tickets.invite(rooms().database, user, rooms().settings.web.registration, **given)), 201)


@blueprint.get("/invitations")
@blueprint.response(200, schemas.Tickets)
def list_invitations() -> Response:
    """All invitations that are good; for admins."""
    found = tickets.list_invitations(rooms().database, guard.asking_admin())
    return reply({"invitations": [ticket_reply(ticket) for ticket in found]})


@blueprint.delete("/invitations/<int:ticket_id>")
@blueprint.response(204)
def withdraw(ticket_id: int) -> Response:
    """Take any invitation back; for admins."""
    tickets.withdraw(rooms().database, guard.asking_admin(), ticket_id)
    return Response(status=204)


@blueprint.post("/projects/<slug>/invitations")
@blueprint.arguments(schemas.NewProjectInvitation)
@blueprint.response(201, schemas.MadeTicket)
def invite_into(given: dict[str, Any], slug: str) -> Response:
    """Make an invitation to a project; for its owners. Its code is shown this once."""
    user, access = guard.asking_user(), enter_to_change(slug)
    return reply(made_reply(*tickets.invite(rooms().database, user, rooms().settings.web.registration, access, **given)), 201)


@blueprint.get("/projects/<slug>/invitations")
@blueprint.response(200, schemas.Tickets)
def list_invitations_into(slug: str) -> Response:
    """The invitations to a project that are good; for its owners."""
    user = guard.asking_user()
    found = tickets.list_invitations(rooms().database, user, enter_as_owner(rooms().database, user, slug))
    return reply({"invitations": [ticket_reply(ticket) for ticket in found]})


@blueprint.delete("/projects/<slug>/invitations/<int:ticket_id>")
@blueprint.response(204)
def withdraw_from(slug: str, ticket_id: int) -> Response:
    """Take an invitation to a project back; for its owners."""
    user = guard.asking_user()
    tickets.withdraw(rooms().database, user, ticket_id, enter_as_owner(rooms().database, user, slug))
    return Response(status=204)


@blueprint.post("/users/<name>/reset")
@blueprint.response(201, schemas.MadeTicket)
def offer_reset(name: str) -> Response:
    """Make a link with which an account sets a new password within a day; for admins. Its code is shown this once."""
    return reply(made_reply(*tickets.offer_reset(rooms().database, guard.asking_admin(), name)), 201)


@blueprint.post("/password/reset")
@guard.login_limit()
@blueprint.arguments(schemas.NewPassword)
@blueprint.response(200, schemas.Person)
def reset_password(given: dict[str, str]) -> Response:
    """Set a new password by a code from an admin; all sessions of the account end."""
    return reply(person_reply(tickets.reset_password(rooms().database, given["code"], given["password"])))
