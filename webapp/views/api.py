"""The REST API: puts its parts together and describes them at /api/v1/openapi.json.

Must never hold a view. Called by `webapp.app`.
"""

from __future__ import annotations

import flask
import flask_smorest
from werkzeug.wrappers import Response

from webapp.views import (
    api_accounts,
    api_admin,
    api_cluster,
    api_data,
    api_exports,
    api_label_studio,
    api_labelling,
    api_lifecycle,
    api_people,
    api_projects,
    api_rules,
    api_tickets,
    api_webhooks,
    schemas,
)
from webapp.views.api_contract import complete
from webapp.views.replies import reply


class LabelloopApi(flask_smorest.Api):
    """The API with the app's own form of errors."""

    ERROR_SCHEMA = schemas.Problem

    def _openapi_json(self) -> Response:
        return reply(complete(self.spec.to_dict()))


def register_api(app: flask.Flask) -> None:
    """Add every endpoint below /api/v1, and /media."""
    app.config.update(
        API_TITLE="labelloop",
        API_VERSION="v1",
        OPENAPI_VERSION="3.0.3",
        OPENAPI_URL_PREFIX="/api/v1",
        OPENAPI_JSON_PATH="openapi.json",
        API_SPEC_OPTIONS={
            "components": {
                "securitySchemes": {
                    "token": {"type": "http", "scheme": "bearer"},
                    "cookie": {"type": "apiKey", "in": "cookie", "name": "labelloop"},
                }
            },
            "security": [{"token": []}, {"cookie": []}],
        },
    )
    api = LabelloopApi(app)
    of_items = (api_labelling, api_data, api_exports, api_rules, api_people, api_label_studio)
    for part in (api_accounts, api_tickets, api_projects, api_lifecycle, *of_items, api_cluster, api_admin, api_webhooks):
        api.register_blueprint(part.blueprint, url_prefix="/api/v1")
    app.register_blueprint(api_data.media)
