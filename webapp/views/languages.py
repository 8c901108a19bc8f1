"""Which language a reader gets: the account's, else the browser tab's choice, else what the browser asks for.

Owns the choice only. Called by flask-babel and the templates.
"""

from __future__ import annotations

import flask
from flask_babel import Babel

from labelloop.settings import WebSettings

LOCALES = ("en", "zh")
DEFAULT = "WEB_DEFAULT_LOCALE"


def current_locale() -> str:
    """Return 'en' or 'zh' for this request."""
    chosen = flask.session.get("locale")
    if chosen in LOCALES:
        return str(chosen)
    user = flask.g.get("user")
    if user is not None and user.locale in LOCALES:
        return str(user.locale)
    return flask.request.accept_languages.best_match(LOCALES) or str(flask.current_app.config[DEFAULT])


def install(app: flask.Flask, settings: WebSettings) -> None:
    """Translate the pages of `app`."""
    app.config[DEFAULT] = settings.default_locale
    Babel(app, locale_selector=current_locale, default_translation_directories="translations")
    app.context_processor(lambda: {"locale": current_locale() if flask.has_request_context() else settings.default_locale})
