"""REST: versions, training, prediction: the few calls that go on to the cluster while a person waits."""

from __future__ import annotations

from typing import Any

from flask_smorest import Blueprint
from werkzeug.wrappers import Response

from webapp import guard
from webapp.projects import cluster
from webapp.rooms import rooms
from webapp.views import cluster_schemas
from webapp.views.api_projects import enter, enter_as_owner
from webapp.views.replies import reply

blueprint = Blueprint("cluster", __name__, description="Versions, training, prediction")


@blueprint.get("/cluster")
@blueprint.response(200, cluster_schemas.Decision)
def show_cluster() -> Response:
    """Whether the loop can turn: `trouble` is '' when pilot, train and inference nodes are there."""
    guard.asking_user()
    return reply(cluster.state_of(rooms().database))


@blueprint.get("/projects/<slug>/versions")
@blueprint.response(200, cluster_schemas.Versions)
def list_versions(slug: str) -> Response:
    """Every published version, newest first, as the pilot last heard of them."""
    return reply({"versions": cluster.list_versions(rooms().database, enter(slug).project)})


@blueprint.post("/projects/<slug>/predict")
@blueprint.arguments(cluster_schemas.PredictRequest)
@blueprint.response(200, cluster_schemas.Predictions)
def predict(given: dict[str, Any], slug: str) -> Response:
    """Predict items that need not be in the project, with the serving version or a named one."""
    return reply(cluster.predict(rooms().cluster, enter(slug).project, given["items"], given["version"]))


@blueprint.post("/projects/<slug>/train")
@blueprint.arguments(cluster_schemas.TrainRequest)
@blueprint.response(200, cluster_schemas.Decision)
def train(given: dict[str, Any], slug: str) -> Response:
    """Start a training now. Owners only."""
    return reply(cluster.train(rooms(), enter_as_owner(slug).project, guard.asking_user(), given))


@blueprint.post("/projects/<slug>/cancel")
@blueprint.arguments(cluster_schemas.CancelRequest)
@blueprint.response(200, cluster_schemas.Decision)
def cancel(given: dict[str, Any], slug: str) -> Response:
    """Cancel a training. Owners only."""
    return reply(cluster.cancel(rooms(), enter_as_owner(slug).project, guard.asking_user(), given["run"]))


@blueprint.post("/projects/<slug>/promote")
@blueprint.arguments(cluster_schemas.PromoteRequest)
@blueprint.response(200, cluster_schemas.Decision)
def promote(given: dict[str, Any], slug: str) -> Response:
    """Serve a version from now on, whatever the gate said. Owners only."""
    return reply(cluster.promote(rooms(), enter_as_owner(slug).project, guard.asking_user(), given["version"]))


@blueprint.post("/projects/<slug>/rollback")
@blueprint.response(200, cluster_schemas.Decision)
def rollback(slug: str) -> Response:
    """Serve the version before this one again. Owners only."""
    return reply(cluster.rollback(rooms(), enter_as_owner(slug).project, guard.asking_user()))


@blueprint.post("/projects/<slug>/resend")
@blueprint.response(200, cluster_schemas.Decision)
def resend(slug: str) -> Response:
    """Send the labels again that the cluster refused, after their cause was removed. Owners only."""
    return reply(cluster.resend(rooms().database, enter_as_owner(slug).project))
