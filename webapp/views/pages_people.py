"""The pages about people: registration, a new password, all accounts, the people of a project.

Owns these routes of the blueprint `pages`. Must never hold a rule: accounts, tickets and projects decide. Imported by `webapp.app`.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import flask
from flask_babel import format_date
from flask_babel import gettext as _

from labelloop.errors import ConflictError, LabelloopError
from webapp import guard
from webapp.accounts import service as accounts
from webapp.accounts import tickets
from webapp.db.tickets import Ticket
from webapp.db.users import User
from webapp.projects import lifecycle
from webapp.projects import service as projects
from webapp.projects.service import Access
from webapp.rooms import rooms
from webapp.views import sentences
from webapp.views.api_tickets import made_reply, ticket_reply
from webapp.views.pages import Page, card, needs_login, pages
from webapp.views.project_forms import read_number

__all__ = ["pages"]


def _shown(found: Sequence[Ticket]) -> list[dict[str, Any]]:
    until = ((ticket, datetime.datetime.fromtimestamp(ticket.expires_at, datetime.UTC)) for ticket in found)
    return [ticket_reply(ticket) | {"until": when.isoformat(), "day": format_date(when, "medium")} for ticket, when in until]


def _role_names() -> dict[str, str]:
    return {"annotator": _("annotator"), "reviewer": _("reviewer"), "owner": _("owner")}


@pages.route("/register", methods=["GET", "POST"])
@guard.login_limit()
def register() -> Page:
    """Make one's own account, or with one at hand take an invitation to a project."""
    here, form, error = rooms(), flask.request.form, ""
    name = form.get("name", "").strip()
    if flask.request.method == "POST":
        try:
            return flask.redirect(_joined(form))
        except LabelloopError as exc:
            error = sentences.translate(str(exc))
    shown = {"registration": here.settings.web.registration, "code": form.get("code", ""), "name": name}
    return flask.render_template("register.html", error=error, **shown)


def _joined(form: Any) -> str:
    here, code = rooms(), form.get("code", "").strip()
    user: User | None = flask.g.get("user")
    if user is not None:
        slug = tickets.accept(here.database, user, code)
    else:
        user = tickets.register(
            here.database, here.settings.web.registration, form.get("name", "").strip(), form.get("password", ""), code
        )
        guard.begin_session(user)
        slug = ""
    return flask.url_for("pages.project", slug=slug) if slug else flask.url_for("pages.projects_page")


@pages.route("/reset", methods=["GET", "POST"])
@guard.login_limit()
def reset() -> Page:
    """Set a new password by a code from an admin."""
    form, error = flask.request.form, ""
    if flask.request.method == "POST":
        try:
            user = tickets.reset_password(rooms().database, form.get("code", "").strip(), form.get("password", ""))
        except LabelloopError as exc:
            error = sentences.translate(str(exc))
        else:
            guard.begin_session(user)
            return flask.redirect(flask.url_for("pages.projects_page"))
    return flask.render_template("reset.html", error=error, code=form.get("code", ""))


@pages.route("/people", methods=["GET", "POST"])
@needs_login
def people() -> Page:
    """All accounts and the invitations to the app; for admins."""
    user, made, error = guard.asking_admin(), None, ""
    database = rooms().database
    if flask.request.method == "POST":
        try:
            made = _change_accounts(user, flask.request.form)
        except LabelloopError as exc:
            error = sentences.translate(str(exc))
    shown = {"people": accounts.list_people(database), "invitations": _shown(tickets.list_invitations(database, user))}
    typed = flask.request.form if error else {}
    return flask.render_template("people.html", made=made, error=error, roles=_role_names(), typed=typed, **shown)


def _change_accounts(user: User, form: Any) -> dict[str, Any] | None:
    """Do what a form of the page asks for; return the code that it made, if any."""
    database, name = rooms().database, form.get("name", "").strip()
    match form.get("action"):
        case "add":
            accounts.sign_up(database, name, form.get("password", ""), user)
        case "admin" | "not-admin":
            accounts.change_account(database, name, is_admin=form["action"] == "admin")
        case "let-in" | "lock-out":
            accounts.change_account(database, name, is_active=form["action"] == "let-in")
        case "reset":
            return made_reply(*tickets.offer_reset(database, user, name)) | {"name": name}
        case "invite":
            uses, days = int(read_number(form, "uses", 1)), int(read_number(form, "days", 7))
            return made_reply(*tickets.invite(database, user, rooms().settings.web.registration, uses=uses, days=days))
        case "withdraw":
            tickets.withdraw(database, user, int(read_number(form, "invitation", 0)))
    return None


@pages.route("/projects/<slug>/people", methods=["GET", "POST"])
@needs_login
def project_people(slug: str) -> Page:
    """The people of a project and the invitations to it; owners change them."""
    database, user, made, error = rooms().database, guard.asking_user(), None, ""
    access = projects.enter(database, user, slug)
    if flask.request.method == "POST":
        access = projects.enter_as_owner(database, user, slug)
        try:
            if reason := lifecycle.why_read_only(access.project):
                raise ConflictError(reason)
            made = _change_members(user, access, flask.request.form)
        except LabelloopError as exc:
            error = sentences.translate(str(exc))
        access = projects.enter(database, user, slug)
    may_invite = access.is_owner and (user.is_admin or rooms().settings.web.registration != "closed")
    shown = {
        "members": projects.list_members(database, access),
        "invitations": _shown(tickets.list_invitations(database, user, access)) if access.is_owner else (),
        "roles": _role_names(),
    }
    page = {
        "project": card(access.project) | {"may_manage": access.is_owner, "may_review": access.may_review},
        "may_manage": access.is_owner,
        "may_invite": may_invite,
    }
    typed = flask.request.form if error else {}
    return flask.render_template("project_people.html", made=made, error=error, typed=typed, **page, **shown)


def _change_members(user: User, access: Access, form: Any) -> dict[str, Any] | None:
    """Do what a form of the page asks for; return the code that it made, if any."""
    database, name = rooms().database, form.get("name", "").strip()
    match form.get("action"):
        case "set":
            projects.set_member(database, access, name, form.get("role", ""))
        case "drop":
            projects.drop_member(database, access, name)
        case "invite":
            uses, days = int(read_number(form, "uses", 1)), int(read_number(form, "days", 7))
            role, registration = form.get("role", ""), rooms().settings.web.registration
            return made_reply(*tickets.invite(database, user, registration, access, role, uses, days))
        case "withdraw":
            tickets.withdraw(database, user, int(read_number(form, "invitation", 0)), access)
    return None
