"""The Flask application of one process, put together.

Owns Flask's configuration and the order in which guard, API, pages and error answers are installed. Called by `webapp.create_app`.
"""

from __future__ import annotations

import datetime

import flask

from labelloop.settings import Settings
from webapp import guard, problems
from webapp.cluster_door import ClusterDoor
from webapp.rooms import open_rooms, secret_key
from webapp.transfer import uploads
from webapp.views import languages, pages_admin, pages_items, pages_lifecycle, pages_people, pages_work, themes
from webapp.views.api import register_api
from webapp.views.pages import error_page


def build_app(settings: Settings, cluster: ClusterDoor | None = None) -> flask.Flask:
    """Return the app for one process; call it after the fork. `cluster` None = started without a registry: labels still go in."""
    rooms = open_rooms(settings, cluster)
    app = flask.Flask("webapp")
    app.request_class = uploads.UploadRequest
    app.extensions["labelloop"] = rooms
    app.config.update(
        SECRET_KEY=secret_key(settings),
        MAX_CONTENT_LENGTH=settings.web.max_upload_bytes,
        MAX_FORM_PARTS=100_000,
        SESSION_COOKIE_NAME="labelloop",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=settings.web.is_secure_cookie,
        PERMANENT_SESSION_LIFETIME=datetime.timedelta(seconds=settings.web.session_s),
        WTF_CSRF_CHECK_DEFAULT=False,
        WTF_CSRF_TIME_LIMIT=None,
        RATELIMIT_DEFAULT=settings.web.rate_limit,
        RATELIMIT_STORAGE_URI=guard.limiter_url(rooms),
        RATELIMIT_STRATEGY="fixed-window",
    )
    guard.install(app)
    register_api(app)
    languages.install(app, settings.web)
    for part in (pages_lifecycle, pages_admin, pages_items, pages_work):
        assert part.pages is pages_people.pages  # all add their routes to it
    themes.install(app)
    app.register_blueprint(pages_people.pages)
    problems.install(app, error_page)
    return app
