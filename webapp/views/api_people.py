"""REST: how people work together, items of known answer, reviews. Shells around `webapp.people`."""

from __future__ import annotations

from typing import Any

import msgspec
from flask_smorest import Blueprint
from werkzeug.wrappers import Response

from webapp import guard
from webapp.kinds import checks
from webapp.people import bulk, differences, quality, service
from webapp.people import review as reviewing
from webapp.people.review import Question
from webapp.people.work import Work
from webapp.rooms import rooms
from webapp.views import people_schemas as schemas
from webapp.views.api_projects import enter_as_owner, enter_as_reviewer
from webapp.views.replies import content_reply, flat, item_reply, reply

blueprint = Blueprint("people", __name__, description="Overlap, known answers, reviews")


def work_reply(work: Work) -> dict[str, Any]:
    """Return the settings of how people work as JSON shows them, all of them."""
    return {field.name: getattr(work, field.name) for field in msgspec.structs.fields(Work) if field.name != "slots"}


@blueprint.get("/projects/<slug>/work")
@blueprint.response(200, schemas.WorkReply)
def show_work(slug: str) -> Response:
    """How the people of a project work together. Reviewers and owners."""
    return reply(work_reply(enter_as_reviewer(slug).project.work))


@blueprint.put("/projects/<slug>/work")
@blueprint.arguments(schemas.Work)
@blueprint.response(200, schemas.WorkReply)
def change_work(given: dict[str, Any], slug: str) -> Response:
    """Change overlap, blind passes, known answers, assignment, review; what is not named stays. Owners only."""
    return reply(work_reply(service.save_work(rooms().database, enter_as_owner(slug), guard.asking_user(), given)))


@blueprint.post("/projects/<slug>/gold")
@blueprint.arguments(schemas.GoldChange)
@blueprint.response(200, schemas.Gold)
def mark_gold(given: dict[str, Any], slug: str) -> Response:
    """Make labelled items ones whose answer is known, or ordinary ones again. Owners only."""
    access = enter_as_owner(slug)
    done, total = service.mark_gold(rooms().database, access, guard.asking_user(), given["item_ids"], given["is_gold"])
    return reply({"changed": done, "total": total})


@blueprint.get("/projects/<slug>/gold")
@blueprint.arguments(schemas.PageQuery, location="query")
@blueprint.response(200, schemas.Gold)
def list_gold(given: dict[str, int], slug: str) -> Response:
    """The items whose answer is known, page by page. Reviewers and owners."""
    found, total = service.page_gold(rooms().database, enter_as_reviewer(slug), given["after"], given["limit"])
    lines = [{"item_id": one.item_id, "labels": one.said.labels} for one in found]
    return reply({"items": lines, "total": total, "after": found[-1].number if len(found) == given["limit"] else None})


@blueprint.get("/projects/<slug>/reviews")
@blueprint.response(200, schemas.Counts)
def count_reviews(slug: str) -> Response:
    """How many labels wait for a reviewer. Reviewers and owners."""
    return reply({"waiting": reviewing.read_counts(rooms().database, enter_as_reviewer(slug).project)})


@blueprint.post("/projects/<slug>/reviews/next")
@blueprint.arguments(schemas.ReviewNext)
@blueprint.response(200, schemas.Reviews)
def next_reviews(given: dict[str, Any], slug: str) -> Response:
    """Lease the next labels to be judged, with who gave them, the draft, and what reviewers did before. Reviewers and owners."""
    here, access = rooms(), enter_as_reviewer(slug)
    project, user, lease_s = access.project, guard.asking_user(), here.settings.web.lease_s
    if given["item_id"]:
        found = reviewing.open_item(here.database, project, user.id, given["item_id"], lease_s)
    else:
        found = reviewing.take(here.database, project, user.id, given["n"], given["reason"], given["holding"], lease_s)
    items = [item_reply(project, here.media, one.item) | question_reply(one) for one in found]
    reason = "" if items else "no label waits for a review"
    return reply({"items": items, "reason": reason, "waiting": reviewing.read_counts(here.database, project)})


def question_reply(one: Question) -> dict[str, Any]:
    """Return what is asked about a label, beside the item."""
    steps = [{"by": s.by, "action": s.action, **flat(s.said), "comment": s.comment, "at": s.at} for s in one.steps]
    return {
        **flat(one.said),
        "author": one.author,
        "reason": one.reason,
        "agreement": one.agreement,
        "heard": [{"by": heard.by, **flat(heard.said)} for heard in one.heard],
        "steps": steps,
    }


@blueprint.post("/projects/<slug>/reviews")
@blueprint.arguments(schemas.Judgement)
@blueprint.response(200, schemas.Judged)
def judge(given: dict[str, Any], slug: str) -> Response:
    """Accept, correct or return a label under its lease, or reopen one's own decision. Reviewers and owners."""
    here, project = rooms(), enter_as_reviewer(slug).project
    state = reviewing.judge(
        here.database,
        project,
        guard.asking_user().id,
        given["item_id"],
        given["lease"],
        given["action"],
        checks.read_value(project.kind_rules, given),
        given["comment"],
        here.settings.web.lease_s,
    )
    return reply({"item_id": given["item_id"], "state": state})


@blueprint.get("/projects/<slug>/quality")
@blueprint.response(200, schemas.Quality)
def show_quality(slug: str) -> Response:
    """How far people agree, in all, per label and per pair, and how each of them does. Reviewers and owners."""
    return reply(quality.read_quality(rooms().database, enter_as_reviewer(slug).project))


@blueprint.get("/projects/<slug>/differences")
@blueprint.arguments(schemas.DifferencesQuery, location="query")
@blueprint.response(200, schemas.Differences)
def list_differences(given: dict[str, Any], slug: str) -> Response:
    """Items on which the model and people, or people among each other, differ, page by page. Reviewers and owners."""
    here, project = rooms(), enter_as_reviewer(slug).project
    found, after = differences.read_differences(
        here.database, project, given["between"], given["least_confidence"], given["after"], given["limit"]
    )
    lines = []
    for line in found:
        item = line.pop("item")
        shown = {"item_id": item.item_id, "name": item.name, **content_reply(project, here.media, item.link, item.content)}
        lines.append(shown | line)
    return reply({"items": lines, "after": after})


@blueprint.get("/projects/<slug>/bulk")
@blueprint.response(200, schemas.BulkState)
def list_bulk(slug: str) -> Response:
    """The newest bulk acceptances, each with the error that its audit measured. Reviewers and owners."""
    return reply({"jobs": bulk.read_jobs(rooms().database, enter_as_reviewer(slug).project)})


@blueprint.post("/projects/<slug>/bulk")
@blueprint.arguments(schemas.NewBulk)
@blueprint.response(202, schemas.BulkJob)
def accept_bulk(given: dict[str, Any], slug: str) -> Response:
    """Accept all drafts that are sure enough, in the background; a sample goes to people without the draft. Owners only."""
    access, user = enter_as_owner(slug), guard.asking_user()
    return reply(bulk.job_reply(bulk.accept(rooms().database, access, user, given["least_confidence"], given["audit"])), 202)


@blueprint.post("/projects/<slug>/bulk/cancel")
@blueprint.arguments(schemas.BulkKey)
@blueprint.response(200, schemas.BulkJob)
def cancel_bulk(given: dict[str, int], slug: str) -> Response:
    """Stop a bulk acceptance; what it accepted stays until it is undone. Owners only."""
    return reply(bulk.job_reply(bulk.cancel(rooms().database, enter_as_owner(slug), given["id"])))


@blueprint.post("/projects/<slug>/bulk/undo")
@blueprint.arguments(schemas.BulkKey)
@blueprint.response(202, schemas.BulkJob)
def undo_bulk(given: dict[str, int], slug: str) -> Response:
    """Take back every label of a bulk acceptance that no person has touched since, in the background. Owners only."""
    return reply(bulk.job_reply(bulk.undo(rooms().database, enter_as_owner(slug), guard.asking_user(), given["id"])), 202)
