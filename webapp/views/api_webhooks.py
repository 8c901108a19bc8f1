"""REST: webhooks of a project (its owners) and of the whole app (admins). Shells around `webapp.webhooks.service`."""

from __future__ import annotations

from typing import Any

import msgspec
from flask_smorest import Blueprint
from werkzeug.wrappers import Response

from webapp import guard
from webapp.db.webhooks import STATES, Delivery, Webhook
from webapp.rooms import rooms
from webapp.views import admin_schemas as schemas
from webapp.views.api_projects import enter_as_owner
from webapp.views.replies import reply
from webapp.webhooks.service import Desk

blueprint = Blueprint("webhooks", __name__, description="Tell other systems what happens")


def desk_of(slug: str) -> Desk:
    """Return the webhooks that this person may manage: a project's, or with slug '' those of the whole app."""
    here = rooms()
    if slug:
        return Desk(here.database, here.settings, enter_as_owner(slug).project)
    guard.asking_admin()
    return Desk(here.database, here.settings, None)


def hook_reply(hook: Webhook, secret: str = "") -> dict[str, Any]:
    """Return a webhook as JSON shows it."""
    shown = {name: getattr(hook, name) for name in ("id", "url", "events", "made_by", "created_at")}
    return shown | ({"secret": secret} if secret else {})


def delivery_reply(delivery: Delivery) -> dict[str, Any]:
    """Return a delivery as JSON shows it, without its body."""
    hidden = ("webhook_id", "payload", "state")
    return {k: v for k, v in msgspec.structs.asdict(delivery).items() if k not in hidden} | {"state": STATES[delivery.state]}


@blueprint.get("/admin/webhooks", endpoint="list_app_webhooks")
@blueprint.get("/projects/<slug>/webhooks", endpoint="list_webhooks")
@blueprint.response(200, schemas.Webhooks)
def list_webhooks(slug: str = "") -> Response:
    """The webhooks, without their keys."""
    return reply({"webhooks": [hook_reply(hook) for hook in desk_of(slug).list_all()]})


@blueprint.post("/admin/webhooks", endpoint="add_app_webhook")
@blueprint.post("/projects/<slug>/webhooks", endpoint="add_webhook")
@blueprint.arguments(schemas.NewWebhook)
@blueprint.response(201, schemas.WebhookReply)
def add_webhook(given: dict[str, Any], slug: str = "") -> Response:
    """Add a webhook; the key of its signatures is in this answer and nowhere else."""
    return reply(hook_reply(*desk_of(slug).add(guard.asking_user(), given["url"], given["events"])), 201)


@blueprint.delete("/admin/webhooks/<int:hook_id>", endpoint="drop_app_webhook")
@blueprint.delete("/projects/<slug>/webhooks/<int:hook_id>", endpoint="drop_webhook")
@blueprint.response(204)
def drop_webhook(hook_id: int, slug: str = "") -> Response:
    """Delete a webhook with what it has not said yet."""
    desk_of(slug).drop(hook_id)
    return Response(status=204)


@blueprint.post("/admin/webhooks/<int:hook_id>/secret", endpoint="renew_app_secret")
@blueprint.post("/projects/<slug>/webhooks/<int:hook_id>/secret", endpoint="renew_secret")
@blueprint.response(200, schemas.Secret)
def renew_secret(hook_id: int, slug: str = "") -> Response:
    """Give a webhook another key; the old one is of no use any more."""
    return reply({"secret": desk_of(slug).renew_secret(hook_id)})


@blueprint.post("/admin/webhooks/<int:hook_id>/test", endpoint="test_app_webhook")
@blueprint.post("/projects/<slug>/webhooks/<int:hook_id>/test", endpoint="test_webhook")
@blueprint.response(202, schemas.Queued)
def test_webhook(hook_id: int, slug: str = "") -> Response:
    """Send a test message."""
    return reply({"uid": desk_of(slug).try_out(hook_id)}, 202)


@blueprint.get("/admin/webhooks/<int:hook_id>/deliveries", endpoint="list_app_deliveries")
@blueprint.get("/projects/<slug>/webhooks/<int:hook_id>/deliveries", endpoint="list_deliveries")
@blueprint.arguments(schemas.DeliveriesQuery, location="query")
@blueprint.response(200, schemas.Deliveries)
def list_deliveries(given: dict[str, int], hook_id: int, slug: str = "") -> Response:
    """The messages of a webhook and how they fared, newest first."""
    found = desk_of(slug).list_deliveries(hook_id, given["before"], given["limit"])
    before = found[-1].id if len(found) == given["limit"] else None
    return reply({"deliveries": [delivery_reply(one) for one in found], "before": before})


@blueprint.post("/admin/webhooks/<int:hook_id>/deliveries/<int:delivery_id>/send", endpoint="send_app_again")
@blueprint.post("/projects/<slug>/webhooks/<int:hook_id>/deliveries/<int:delivery_id>/send", endpoint="send_again")
@blueprint.response(204)
def send_again(hook_id: int, delivery_id: int, slug: str = "") -> Response:
    """Send a message again, under its old id."""
    desk_of(slug).send_again(hook_id, delivery_id)
    return Response(status=204)
