"""REST: next items, answers, undo, skip, leases. Shells around `webapp.labelling.service`; the path that must be fast."""

from __future__ import annotations

from typing import Any

from flask_smorest import Blueprint
from werkzeug.wrappers import Response

from webapp import guard
from webapp.kinds import checks
from webapp.labelling.answers import Answer
from webapp.people import review
from webapp.rooms import rooms
from webapp.views import schemas
from webapp.views.api_projects import enter
from webapp.views.replies import batch_reply, item_reply, reply, saved_reply

_MORE = frozenset(checks.FIELDS) - {"labels"}
blueprint = Blueprint("labelling", __name__, description="Take the next items, answer, undo")


@blueprint.post("/projects/<slug>/next")
@blueprint.arguments(schemas.NextRequest)
@blueprint.response(200, schemas.Batch)
def take_next(given: dict[str, Any], slug: str) -> Response:
    """Lease the next items, with the drafts to be corrected."""
    here, project = rooms(), enter(slug).project
    batch = here.labelling.take_next(project, guard.asking_user().id, given["n"], given["holding"])
    return reply(batch_reply(project, here.media, batch))


@blueprint.post("/projects/<slug>/annotations")
@blueprint.arguments(schemas.AnswerRequest())  # made once: marshmallow copies every field when it makes one
@blueprint.response(200, schemas.Answered)
def answer(given: dict[str, Any], slug: str) -> Response:
    """Save an answer, and take `next` more items in the same call."""
    here, project = rooms(), enter(slug).project
    value = checks.read_value(project.kind_rules, given) if given.keys() & _MORE else None
    said = Answer(given["item_id"], tuple(given["labels"]), given["lease"], given["seconds"], given["key"], value)
    answered = here.labelling.answer(project, guard.asking_user().id, said, given["next"], given["holding"])
    return reply({"saved": saved_reply(answered.saved), **batch_reply(project, here.media, answered.next)})


@blueprint.delete("/projects/<slug>/annotations/<path:item_id>")
@blueprint.response(200, schemas.Undone)
def undo(slug: str, item_id: str) -> Response:
    """Withdraw an item's label; the item comes back under a new lease."""
    here, access = rooms(), enter(slug)
    saved, batch = here.labelling.undo(access.project, guard.asking_user().id, item_id, access.is_owner)
    item = item_reply(access.project, here.media, batch.items[0]) if batch.items else None
    return reply({"saved": saved_reply(saved), "item": item})


@blueprint.post("/projects/<slug>/skip")
@blueprint.arguments(schemas.Skip)
@blueprint.response(204)
def skip(given: dict[str, str], slug: str) -> Response:
    """Give a lease back without an answer."""
    rooms().labelling.give_back(enter(slug).project, guard.asking_user().id, given["lease"])
    return Response(status=204)


@blueprint.post("/projects/<slug>/leases")
@blueprint.arguments(schemas.Leases)
@blueprint.response(200, schemas.Extended)
def extend(given: dict[str, list[str]], slug: str) -> Response:
    """Hold one's own leases for another full time (a person who thinks for long)."""
    access, user = enter(slug), guard.asking_user()
    expires_at = rooms().labelling.extend(access.project, user.id, given["leases"])
    if access.may_review:
        review.extend(rooms().database, access.project, user.id, given["leases"], expires_at)
    return reply({"expires_at": expires_at})
