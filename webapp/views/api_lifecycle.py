"""REST: labels renamed and merged, projects copied, archived, brought back and restored. Shells around `webapp.projects`."""

from __future__ import annotations

from typing import Any

from flask_smorest import Blueprint
from werkzeug.wrappers import Response

from webapp import guard
from webapp.projects import labels, lifecycle
from webapp.projects.lifecycle import Kept
from webapp.rooms import rooms
from webapp.views import lifecycle_schemas as schemas
from webapp.views import schemas as common
from webapp.views.api_projects import enter, enter_as_owner, enter_read_only
from webapp.views.replies import project_reply, reply

blueprint = Blueprint("lifecycle", __name__, description="Labels and life of a project")


@blueprint.get("/projects/<slug>/labels")
@blueprint.response(200, schemas.LabelsState)
def show_labels(slug: str) -> Response:
    """The labels with their earlier names, what may be undone, and how far the work in the background is."""
    return reply(labels.state(rooms().database, enter(slug).project))


@blueprint.post("/projects/<slug>/labels/rename")
@blueprint.arguments(schemas.Rename)
@blueprint.response(202, schemas.Job)
def rename_label(given: dict[str, Any], slug: str) -> Response:
    """Call a label something else, at once; what was said under the old name is written anew in the background. Owners only."""
    job = labels.rename(rooms().database, enter_as_owner(slug).project, guard.asking_user(), given["label"], given["name"])
    return reply(labels.job_reply(job), 202)


@blueprint.post("/projects/<slug>/labels/merge")
@blueprint.arguments(schemas.Merge)
@blueprint.response(202, schemas.Job)
def merge_labels(given: dict[str, Any], slug: str) -> Response:
    """Let some labels be one, at once; what they said is written anew in the background. Owners only."""
    job = labels.merge(rooms().database, enter_as_owner(slug).project, guard.asking_user(), given["labels"], given["into"])
    return reply(labels.job_reply(job), 202)


@blueprint.post("/projects/<slug>/labels/undo")
@blueprint.response(202, schemas.Job)
def undo_labels(slug: str) -> Response:
    """Take back the last rename or merge that stands. Owners only."""
    return reply(labels.job_reply(labels.take_back(rooms().database, enter_as_owner(slug).project, guard.asking_user())), 202)


@blueprint.post("/projects/<slug>/copy")
@blueprint.arguments(schemas.Copy)
@blueprint.response(201, common.Project)
def copy_project(given: dict[str, Any], slug: str) -> Response:
    """Make another project with the settings of this one; items and labels follow in the background. Owners only."""
    wishes = {"with_items": given["items"] or given["labels"], "with_labels": given["labels"]}
    made, _job = lifecycle.copy(
        rooms().database, enter_read_only(slug, as_owner=True), guard.asking_user(), given["slug"], given["title"], **wishes
    )
    return reply(project_reply(made, None, "owner"), 201)


@blueprint.post("/projects/<slug>/archive")
@blueprint.response(200, common.Project)
def archive_project(slug: str) -> Response:
    """Make a project read-only and take it out of the lists. Owners only."""
    access = enter_read_only(slug, as_owner=True)
    return reply(project_reply(lifecycle.archive(rooms().database, access, guard.asking_user()), None, access.role))


@blueprint.delete("/projects/<slug>/archive")
@blueprint.response(200, common.Project)
def unarchive_project(slug: str) -> Response:
    """Bring an archived project back. Owners only."""
    access = enter_read_only(slug, as_owner=True)
    return reply(project_reply(lifecycle.unarchive(rooms().database, access, guard.asking_user()), None, access.role))


@blueprint.post("/projects/<slug>/restore")
@blueprint.response(200, common.Project)
def restore_project(slug: str) -> Response:
    """Bring a deleted project back, while it is kept. Owners only."""
    return reply(project_reply(lifecycle.restore(rooms().database, guard.asking_user(), slug), None, "owner"))


@blueprint.get("/archive")
@blueprint.response(200, schemas.Archive)
def list_archive() -> Response:
    """Archived projects, and deleted ones that one may still bring back."""
    here = rooms()
    archived, deleted = lifecycle.list_kept(here.database, guard.asking_user(), here.settings.web.keep_deleted_s)
    return reply({"archived": [_kept(one) for one in archived], "deleted": [_kept(one) for one in deleted]})


def _kept(one: Kept) -> dict[str, Any]:
    return {"slug": one.project.slug, "title": one.project.title, "until": one.until, "may_restore": one.may_restore}
