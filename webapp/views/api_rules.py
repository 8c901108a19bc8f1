"""REST: rules, their preview and application, and the review of their labels. Shells around `webapp.rules`."""

from __future__ import annotations

from typing import Any

from flask_smorest import Blueprint
from werkzeug.wrappers import Response

from webapp import guard
from webapp.rooms import rooms
from webapp.rules import preview as previewing
from webapp.rules import review as reviewing
from webapp.rules import service
from webapp.rules.wording import check_stored
from webapp.views import rule_schemas as schemas
from webapp.views.api_projects import enter, enter_as_owner
from webapp.views.replies import preview_reply, reply, review_reply

blueprint = Blueprint("rules", __name__, description="Labels from rules: write, try out, apply, review")


@blueprint.get("/projects/<slug>/rules")
@blueprint.response(200, schemas.RuleSet)
def show_rules(slug: str) -> Response:
    """The project's rules; `revision` goes back with a change. Owners only."""
    return reply(service.read(rooms().database, enter_as_owner(slug).project))


@blueprint.put("/projects/<slug>/rules")
@blueprint.arguments(schemas.RulesChange)
@blueprint.response(200, schemas.RuleSet)
def save_rules(given: dict[str, Any], slug: str) -> Response:
    """Replace the rules; half-written ones may be saved. 409 when somebody else changed them since `revision`. Owners only."""
    return reply(service.save(rooms().database, enter_as_owner(slug).project, guard.asking_user(), given))


@blueprint.post("/projects/<slug>/rules/preview")
@blueprint.arguments(schemas.RulesPreview)
@blueprint.response(200, schemas.Preview)
def preview_rules(given: dict[str, Any], slug: str) -> Response:
    """What rules, saved or not, would do on a sample of up to 2,000 items: figures a rule, and examples. Owners only."""
    here, project = rooms(), enter_as_owner(slug).project
    rules = check_stored(given["rules"])
    return reply(
        preview_reply(project, here.media, previewing.preview(here.database, here.cluster, project, rules, given["method"]))
    )


@blueprint.get("/projects/<slug>/rules/state")
@blueprint.response(200, schemas.RulesState)
def show_rules_state(slug: str) -> Response:
    """How far the last application is, how many labels are of rules, and how many of those that people looked at were wrong."""
    return reply(service.state(rooms().database, enter(slug).project))


@blueprint.post("/projects/<slug>/rules/apply")
@blueprint.response(202, schemas.RuleJob)
def apply_rules(slug: str) -> Response:
    """Label all items by the saved rules, in the background; what people labelled stays. Owners only."""
    job = service.apply(rooms().database, enter_as_owner(slug).project, guard.asking_user())
    return reply(service.job_reply(job), 202)


@blueprint.post("/projects/<slug>/rules/withdraw")
@blueprint.response(202, schemas.RuleJob)
def withdraw_rules(slug: str) -> Response:
    """Take back every label that only rules gave, in the background. Owners only."""
    job = service.withdraw(rooms().database, enter_as_owner(slug).project, guard.asking_user())
    return reply(service.job_reply(job), 202)


@blueprint.post("/projects/<slug>/rules/cancel")
@blueprint.arguments(schemas.RuleJobKey)
@blueprint.response(200, schemas.RuleJob)
def cancel_rules(given: dict[str, int], slug: str) -> Response:
    """Stop an application; the labels it has written stay until rules are applied again or withdrawn. Owners only."""
    job = service.cancel(rooms().database, enter_as_owner(slug).project, guard.asking_user(), given["id"])
    return reply(service.job_reply(job))


@blueprint.post("/projects/<slug>/rules/review")
@blueprint.arguments(schemas.ReviewRequest)
@blueprint.response(200, schemas.ReviewBatch)
def review_rules(given: dict[str, Any], slug: str) -> Response:
    """Lease items that only rules have labelled, most doubtful first; answer them with `POST …/annotations`."""
    here, project = rooms(), enter(slug).project
    lease_s = here.settings.web.lease_s
    found = reviewing.take(
        here.database, project, guard.asking_user().id, given["n"], given["by"], given["rule"], given["holding"], lease_s
    )
    return reply(review_reply(project, here.media, found))
