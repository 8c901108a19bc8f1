"""REST: the ML-backend protocol of Label Studio, per project. Shells around `webapp.labelstudio.service`.

Label Studio adds `/health`, `/setup`, `/predict`, `/versions` to the address it is given, and sends an API token as the password of
basic auth; its webhook goes to `/webhook` with a header of its own. Protocol: https://labelstud.io/guide/ml_create
"""

from __future__ import annotations

from typing import Any

import flask
from flask_smorest import Blueprint
from werkzeug.wrappers import Response

from webapp import guard
from webapp.labelstudio import service
from webapp.projects import cluster
from webapp.rooms import rooms
from webapp.views import label_studio_schemas as schemas
from webapp.views.api_projects import enter, enter_as_owner
from webapp.views.replies import reply

blueprint = Blueprint("label-studio", __name__, description="A project as the ML backend of a Label Studio")
MOST_BYTES = 32 * 2**20


@blueprint.before_request
def _limit() -> None:
    flask.request.max_content_length = MOST_BYTES


@blueprint.get("/projects/<slug>/label-studio/health")
@blueprint.response(200, schemas.StudioHealth)
def health(slug: str) -> Response:
    """Whether the project is there for who asks."""
    enter(slug)
    return reply({"status": "UP", "model_class": "labelloop"})


@blueprint.post("/projects/<slug>/label-studio/setup")
@blueprint.arguments(schemas.StudioSetUp)
@blueprint.response(200, schemas.StudioReady)
def set_up(given: dict[str, Any], slug: str) -> Response:
    """Check that a labeling configuration fits the project: one control of its kind, the same labels."""
    return reply({"model_version": service.set_up(rooms(), enter(slug).project, given["schema"])})


@blueprint.post("/projects/<slug>/label-studio/predict")
@blueprint.arguments(schemas.StudioPredict)
@blueprint.response(200, schemas.StudioPredictions)
def predict(given: dict[str, Any], slug: str) -> Response:
    """Predict tasks with the serving version."""
    return reply({"results": service.predict(rooms(), enter(slug).project, given["label_config"], given["tasks"])})


@blueprint.get("/projects/<slug>/label-studio/versions")
@blueprint.response(200, schemas.StudioVersions)
def list_versions(slug: str) -> Response:
    """The names of all versions, newest first."""
    return reply({"versions": [one["version"] for one in cluster.list_versions(rooms().database, enter(slug).project)]})


@blueprint.post("/projects/<slug>/label-studio/webhook")
@blueprint.arguments(schemas.StudioHook)
@blueprint.response(200, schemas.StudioTaken)
def take_in(given: dict[str, Any], slug: str) -> Response:
    """Take in what annotators said in Label Studio, so that the cluster learns it. Owners only."""
    return reply(service.take_in(rooms(), enter_as_owner(slug).project, guard.asking_user(), given))
