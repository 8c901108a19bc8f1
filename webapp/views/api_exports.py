"""REST: formats, and exports in the background. Shells around `webapp.transfer`."""

from __future__ import annotations

import time
from typing import Any

import flask
from flask_smorest import Blueprint
from werkzeug.wrappers import Response

from webapp import guard
from webapp.db.export_jobs import ExportJob
from webapp.rooms import export_dir, rooms
from webapp.transfer import exports, formats
from webapp.views import transfer_schemas as schemas
from webapp.views.api_projects import enter, enter_as_owner
from webapp.views.replies import reply

blueprint = Blueprint("exports", __name__, description="Exports in the background")
SHOWN_PROBLEMS = 100


def export_reply(slug: str, job: ExportJob, may_see_labels: bool = True) -> dict[str, Any]:
    """Return an export as JSON shows it; what could not be carried speaks of labels."""
    is_done = job.state == "done"
    share = 1.0 if is_done else job.done / job.total if job.total else 0.0
    return {
        "id": job.id,
        "format": job.format,
        "options": job.options,
        "state": job.state,
        "share": round(min(share, 1.0), 4),
        "items": job.done,
        "refused": job.refused,
        "problems": job.problems[:SHOWN_PROBLEMS] if may_see_labels else [],
        "size_bytes": job.size_bytes,
        "file": f"/api/v1/projects/{slug}/exports/{job.id}/file" if is_done else "",
        "reason": job.reason,
        "created_at": job.created_at,
        "updated_at": job.updated_at,
    }


@blueprint.get("/projects/<slug>/formats")
@blueprint.response(200, schemas.Formats)
def list_formats(slug: str) -> Response:
    """The formats that can bring this project items and carry its labels."""
    project = enter(slug).project
    found = [{"name": one.name, "title": one.title, "is_source": one.is_source} for one in formats.imports_of(project)]
    return reply({"imports": found, "exports": [{"name": one.name, "title": one.title} for one in formats.exports_of(project)]})


@blueprint.post("/projects/<slug>/exports")
@blueprint.arguments(schemas.ExportRequest)
@blueprint.response(202, schemas.Export)
def add_export(given: dict[str, Any], slug: str) -> Response:
    """Export in the background, in any format that can carry the labels. Owners only."""
    project = enter_as_owner(slug).project
    form = given.pop("format")
    job = exports.queue_export(rooms().database, project, guard.asking_user().id, form, given)
    return reply(export_reply(slug, job), 202)


@blueprint.get("/projects/<slug>/exports")
@blueprint.response(200, schemas.Exports)
def list_exports(slug: str) -> Response:
    """The newest exports, with the items that could not be carried (the first 100 of each)."""
    access = enter(slug)
    found = exports.list_exports(rooms().database, access.project)
    return reply({"exports": [export_reply(slug, job, access.may_see_labels) for job in found]})


@blueprint.get("/projects/<slug>/exports/<int:job_id>")
@blueprint.response(200, schemas.Export)
def show_export(slug: str, job_id: int) -> Response:
    """One export."""
    access = enter(slug)
    return reply(export_reply(slug, exports.show_export(rooms().database, access.project, job_id), access.may_see_labels))


@blueprint.delete("/projects/<slug>/exports/<int:job_id>")
@blueprint.response(200, schemas.Export)
def end_export(slug: str, job_id: int) -> Response:
    """Cancel an export that runs; forget one that has ended, with its file. Owners only."""
    here, project = rooms(), enter_as_owner(slug).project
    return reply(export_reply(slug, exports.end_export(here.database, export_dir(here.settings), project, job_id)))


@blueprint.get("/projects/<slug>/exports/<int:job_id>/file")
@blueprint.response(200, description="The file. A download that broke off can go on (Range).")
def download_export(slug: str, job_id: int) -> Response:
    """The file of an export that is done; not for an annotator whose own opinion is asked for."""
    here, access = rooms(), enter(slug)
    project = access.project
    access.check_may_see_labels()
    path, form, made_at = exports.file_of(here.database, export_dir(here.settings), project, job_id)
    name = f"{slug}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime(made_at))}.{form.ending}"
    return flask.send_file(
        path, form.media_type, as_attachment=True, download_name=name, conditional=True, etag=f"{slug}-{job_id}-{made_at:.6f}"
    )
