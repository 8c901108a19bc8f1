"""REST: sessions, accounts, API tokens. Shells around `webapp.accounts.service`."""

from __future__ import annotations

from typing import Any

import flask
from flask_smorest import Blueprint
from werkzeug.wrappers import Response

from labelloop.errors import ForbiddenError
from webapp import guard
from webapp.accounts import service
from webapp.db.users import User
from webapp.rooms import rooms
from webapp.views import account_schemas as schemas
from webapp.views.replies import person_reply, reply

blueprint = Blueprint("accounts", __name__, description="Sessions, accounts and API tokens")


def _session_reply(user: User) -> Response:
    return reply({**person_reply(user), "csrf": guard.csrf_token()})


@blueprint.get("/session")
@blueprint.response(200, schemas.Session)
def show_session() -> Response:
    """Who is logged in, and the CSRF token of the session."""
    return _session_reply(guard.asking_user())


@blueprint.post("/session")
@guard.login_limit()
@blueprint.arguments(schemas.Credentials)
@blueprint.response(200, schemas.Session)
def open_session(given: dict[str, str]) -> Response:
    """Log in with a cookie. Needs no CSRF token, takes JSON only."""
    user = service.enter(rooms().database, given["name"], given["password"], flask.request.remote_addr or "")
    guard.begin_session(user)
    return _session_reply(user)


@blueprint.delete("/session")
@blueprint.response(204)
def close_session() -> Response:
    """Log out."""
    guard.end_session()
    return Response(status=204)


@blueprint.post("/users")
@guard.login_limit()
@blueprint.arguments(schemas.NewUser)
@blueprint.response(201, schemas.Person)
def add_user(given: dict[str, Any]) -> Response:
    """Create an account. The first one needs nobody and becomes admin; every other one is made by an admin."""
    user = service.sign_up(rooms().database, given["name"], given["password"], flask.g.get("user"), given["is_admin"])
    return reply(person_reply(user), 201)


@blueprint.get("/users")
@blueprint.response(200, schemas.People)
def list_users() -> Response:
    """All accounts; for admins."""
    guard.asking_admin()
    return reply({"users": [person_reply(user) for user in service.list_people(rooms().database)]})


@blueprint.post("/password")
@guard.login_limit()
@blueprint.arguments(schemas.PasswordChange)
@blueprint.response(200, schemas.Person)
def change_password(given: dict[str, str]) -> Response:
    """Change one's own password; all other sessions end."""
    user = service.change_password(rooms().database, guard.asking_user(), given["old"], given["new"])
    if flask.request.authorization is None:
        guard.begin_session(user)
    return reply(person_reply(user))


@blueprint.post("/tokens")
@guard.login_limit()
@blueprint.arguments(schemas.NewToken)
@blueprint.response(201, schemas.Token)
def add_token(given: dict[str, str]) -> Response:
    """Create an API token, as who is logged in or with name and password. The secret is shown this once."""
    database = rooms().database
    if given["name"] or given["password"]:
        address = flask.request.remote_addr or ""
        user = service.enter(database, given["name"], given["password"], address, "showed name and password for an API token")
    else:
        user = guard.asking_user()
    token, secret = service.make_token(database, user, given["label"] or "script")
    return reply({"id": token.id, "label": token.name, "token": secret}, 201)


@blueprint.get("/tokens")
@blueprint.response(200, schemas.Tokens)
def list_tokens() -> Response:
    """One's own API tokens, without their secrets."""
    tokens = service.list_tokens(rooms().database, guard.asking_user())
    return reply({"tokens": [{"id": t.id, "label": t.name, "created_at": t.created_at} for t in tokens]})


@blueprint.delete("/tokens/<int:token_id>")
@blueprint.response(204)
def drop_token(token_id: int) -> Response:
    """Revoke one of one's own API tokens."""
    service.drop_token(rooms().database, guard.asking_user(), token_id)
    return Response(status=204)


@blueprint.patch("/users/<name>")
@blueprint.arguments(schemas.AccountChange)
@blueprint.response(200, schemas.Person)
def change_account(given: dict[str, bool], name: str) -> Response:
    """Make an account admin or not, let it in or lock it out; for admins. There is always one admin left."""
    guard.asking_admin()
    return reply(person_reply(service.change_account(rooms().database, name, **given)))


@blueprint.put("/users/<name>/active")
@blueprint.response(204)
def let_in(name: str) -> Response:
    """Let an account in again; for admins."""
    guard.asking_admin()
    service.change_account(rooms().database, name, is_active=True)
    return Response(status=204)


@blueprint.delete("/users/<name>/active")
@blueprint.response(204)
def lock_out(name: str) -> Response:
    """Lock an account out; its labels stay. For admins."""
    if guard.asking_admin().name == name:
        raise ForbiddenError("you cannot lock yourself out: ask another admin")
    service.change_account(rooms().database, name, is_active=False)
    return Response(status=204)
