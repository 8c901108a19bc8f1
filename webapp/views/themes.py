"""Light or dark: the choice of this browser, else the account's, else the device's.

Owns the choice and its switch, a route of the blueprint `pages`. Imported by `webapp.app`.
"""

from __future__ import annotations

import flask

from labelloop.errors import InvalidInputError
from webapp.accounts import service as accounts
from webapp.rooms import rooms
from webapp.views.pages import Page, next_address, pages

THEMES = ("", "light", "dark")


def current_theme() -> str:
    """Return 'light', 'dark', or '' = as the device has it."""
    chosen = flask.session.get("theme") if flask.has_request_context() else ""
    if chosen in THEMES:
        return str(chosen)
    user = flask.g.get("user")
    return str(user.theme) if user is not None and user.theme in THEMES else ""


def install(app: flask.Flask) -> None:
    """Let the templates know the colours."""
    app.context_processor(lambda: {"theme": current_theme()})


@pages.post("/theme")
def set_theme() -> Page:
    """Keep the colours of this browser, and of the account where there is one."""
    theme = flask.request.form.get("theme", "")
    if theme not in THEMES:
        raise InvalidInputError(f"theme {theme[:80]!r}: use light, dark, or nothing for the device's")
    flask.session["theme"] = theme
    if flask.g.user is not None:
        accounts.set_theme(rooms().database, flask.g.user, theme)
    return flask.redirect(next_address())
