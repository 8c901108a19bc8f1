"""Who asks, and may they: sessions, API tokens, CSRF, rate limits, security headers.

Owns what happens before and after every request. Rules: a request with an Authorization header is judged by its token alone; one
with a session cookie needs the CSRF token for anything that changes; the few calls open to nobody take JSON only, which another
site cannot send. Called by `create_app`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import flask
import flask_login
from flask_limiter import Limiter
from flask_wtf.csrf import CSRFProtect, generate_csrf
from werkzeug.datastructures import Authorization
from werkzeug.wrappers import Response

from labelloop.errors import ForbiddenError, UnauthenticatedError, UnreachableError
from webapp.accounts import service as accounts
from webapp.db import operations
from webapp.db.entries import Entry
from webapp.db.users import User
from webapp.queue import url_finder
from webapp.rooms import rooms

logger = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")
API = "/api/v1/"
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob: http: https:; connect-src 'self'; "
    "media-src 'self' data: blob: http: https:; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "manifest-src 'self'"
)
_HEADERS = {
    "Content-Security-Policy": _CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
csrf = CSRFProtect()
login_manager = flask_login.LoginManager()


class Person(flask_login.UserMixin):
    """An account as Flask-Login and the templates see it."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.name = user.name
        self.is_admin = user.is_admin
        self.locale = user.locale

    def get_id(self) -> str:
        """Return the session key, which changes with the password and so ends sessions."""
        return self.user.session_key


@login_manager.user_loader
def _load_person(session_key: str) -> Person | None:
    flask.g.entry = entry = accounts.entry_of_session(rooms().database, session_key, _slug_asked())
    return Person(entry.user) if entry else None


def _slug_asked() -> str:
    """Return the project of an address of the API, '' = none."""
    is_api = flask.request.path.startswith(API)
    return str((flask.request.view_args or {}).get("slug", "")) if is_api else ""


def take_entry(slug: str) -> Entry | None:
    """Return what was found of the project together with who asks; once, for what is read later may have changed meanwhile."""
    entry: Entry | None = flask.g.pop("entry", None)
    return entry if entry is not None and entry.user is flask.g.get("user") and slug == _slug_asked() else None


def _asker() -> str:
    user = flask.g.get("user")
    return f"user {user.id}" if user is not None else f"address {flask.request.remote_addr}"


def _address() -> str:
    return f"address {flask.request.remote_addr}"


limiter = Limiter(_asker, in_memory_fallback_enabled=True)


def login_limit(exempt_when: Callable[[], bool] | None = None) -> Any:
    """Return the decorator for views that take a password; `exempt_when`: the request is one without."""
    return limiter.limit(lambda: rooms().settings.web.login_rate_limit, key_func=_address, exempt_when=exempt_when)


def install(app: flask.Flask) -> None:
    """Put the guard before every request of `app` and the headers behind it."""
    app.before_request(_admit)
    csrf.init_app(app)
    login_manager.init_app(app)
    limiter.init_app(app)
    app.after_request(_seal)


def limiter_url(app_rooms: Any) -> str:
    """Return where rate limits are counted: beside the ranked queue, or in this process while there is none."""
    try:
        return str(url_finder(app_rooms.settings)())
    except UnreachableError as exc:
        logger.warning("rate limits are counted in each process: %s", exc)
        return "memory://"


def _admit() -> None:
    request = flask.request
    flask.g.user = None
    if request.endpoint == "static":
        return
    _act_as(None)
    if request.authorization is not None and request.path.startswith(API):
        flask.g.user = _token_user()
        _act_as(flask.g.user)
        return
    person = flask_login.current_user
    flask.g.user = person.user if person.is_authenticated else None
    _act_as(flask.g.user)
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    if flask.g.user is None and request.path.startswith(API):
        if not request.is_json:
            raise UnauthenticatedError("log in, or send an API token as 'Authorization: Bearer ...'")
        return
    csrf.protect()


def _act_as(user: User | None) -> None:
    """Let the operation log know who does what this request does."""
    operations.act_as(user.id if user else None, user.name if user else "", flask.request.remote_addr or "")


def _token_user() -> User:
    given = flask.request.authorization
    token = _token_in(given) if given is not None else None
    flask.g.entry = entry = accounts.entry_of_token(rooms().database, token, _slug_asked()) if token else None
    if entry is None:
        raise UnauthenticatedError("this API token is not known or was revoked: make another on the account page")
    return entry.user


def _token_in(given: Authorization) -> str | None:
    """Return the token as a bearer token, or as the password of basic auth (for clients that know nothing else)."""
    return given.password if given.type == "basic" else given.token if given.type == "bearer" else None


def _seal(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if flask.request.path.startswith(API):
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def asking_user() -> User:
    """Return who asks. Raises UnauthenticatedError when it is nobody."""
    user: User | None = flask.g.get("user")
    if user is None:
        raise UnauthenticatedError("log in, or send an API token as 'Authorization: Bearer ...'")
    return user


def asking_admin() -> User:
    """Return who asks. Raises ForbiddenError unless it is an admin."""
    user = asking_user()
    if not user.is_admin:
        raise ForbiddenError("only an admin may do this: ask the admin of this installation")
    return user


def begin_session(user: User) -> None:
    """Log `user` in with a cookie; a CSRF token made before is of no use any more."""
    flask.session.clear()
    flask.session.permanent = True
    flask_login.login_user(Person(user))
    flask.g.user = user
    _act_as(user)


def end_session() -> None:
    """Log out."""
    flask_login.logout_user()
    flask.session.clear()


def csrf_token() -> str:
    """Return the CSRF token of this session."""
    return str(generate_csrf())


def exempt_from_limits(view: Callable[P, R]) -> Callable[P, R]:
    """Leave a view out of the rate limits (media files, static pages)."""
    return functools.wraps(view)(limiter.exempt(view))
