"""REST: items, imports, export, uploaded files. Shells around `webapp.transfer`."""

from __future__ import annotations

import time
from typing import Any

import flask
from flask_smorest import Blueprint
from werkzeug.wrappers import Response

from webapp import guard
from webapp.rooms import import_reach, rooms, upload_dir
from webapp.transfer import drafts, jobs, uploads
from webapp.transfer import export as exporting
from webapp.views import schemas, transfer_schemas
from webapp.views.api_projects import enter, enter_as_owner
from webapp.views.replies import content_reply, import_reply, reply, revision_reply

blueprint = Blueprint("data", __name__, description="Items in, labels out")
media = flask.Blueprint("media", __name__)


@blueprint.post("/projects/<slug>/items")
@blueprint.arguments(schemas.ItemsRequest)
@blueprint.response(200, schemas.ItemsAdded)
def add_items(given: dict[str, Any], slug: str) -> Response:
    """Add up to 10,000 items at once; an id that is there already stays as it is. Owners only."""
    access = enter_as_owner(slug)
    added, known, failed = jobs.add_objects(rooms().database, access.project, guard.asking_user().id, given["items"])
    return reply({"added": added, "known": known, "failed": failed})


@blueprint.post("/projects/<slug>/drafts")
@blueprint.arguments(schemas.DraftsRequest)
@blueprint.response(200, schemas.DraftsAdded)
def add_drafts(given: dict[str, Any], slug: str) -> Response:
    """Send drafts of another model for up to 10,000 items at once; the project's own model goes before them. Owners only."""
    saved, failed = drafts.add_drafts(rooms().database, enter_as_owner(slug).project, given["drafts"])
    return reply({"saved": saved, "failed": failed})


@blueprint.get("/projects/<slug>/items")
@blueprint.arguments(schemas.ItemsQuery, location="query")
@blueprint.response(200, schemas.ItemsPage)
def list_items(given: dict[str, Any], slug: str) -> Response:
    """Items in one state, page by page in the order they came."""
    access, store = enter(slug), rooms().media
    project = access.project
    if given["state"] != "open":
        access.check_may_see_labels()
    found = jobs.page_items(rooms().database, project, given["state"], given["after"], given["limit"])
    lines = [
        {"item_id": i.item_id, "name": i.name, "revision": i.revision, **content_reply(project, store, i.link, i.content)}
        for i in found
    ]
    return reply({"items": lines, "after": found[-1].position if len(found) == given["limit"] else None})


@blueprint.get("/projects/<slug>/items/<path:item_id>")
@blueprint.response(200, description="The item with every revision of its label.")
def show_item(slug: str, item_id: str) -> Response:
    """One item with its history."""
    access, store = enter(slug), rooms().media
    project = access.project
    item, history = jobs.item_with_history(rooms().database, project, item_id)
    known = history if access.may_see_labels else ()
    past = [revision_reply(revision) | {"labels_now": project.current(revision.labels)} for revision in known]
    return reply(
        {"item_id": item.item_id, "name": item.name, **content_reply(project, store, item.link, item.content), "history": past}
    )


@blueprint.post("/projects/<slug>/imports")
@blueprint.arguments(schemas.ImportOptions, location="form", content_type="multipart/form-data")
@blueprint.response(202, schemas.Import)
def add_import(given: dict[str, Any], slug: str) -> Response:
    """Upload files (multipart, field `file`, one or several): a zip or images, CSV, JSONL, Parquet, a text file of links; with
    `kind` also COCO, Pascal VOC, YOLO, CoNLL, Label Studio. They are imported in the background. Owners only."""
    access, here = enter_as_owner(slug), rooms()
    files = [file for field in flask.request.files for file in flask.request.files.getlist(field)]
    queued = uploads.queue_uploads(here.database, upload_dir(here.settings), access.project, guard.asking_user().id, files, given)
    return reply({**import_reply(queued[0]), "imports": [import_reply(job) for job in queued]}, 202)


@blueprint.get("/projects/<slug>/imports")
@blueprint.response(200, schemas.Imports)
def list_imports(slug: str) -> Response:
    """The newest imports with their refused rows (the first 100 of each)."""
    found = jobs.list_imports(rooms().database, enter(slug).project, 100)
    return reply({"imports": [import_reply(job, errors) for job, errors in found]})


@blueprint.get("/projects/<slug>/imports/<int:job_id>")
@blueprint.response(200, schemas.Import)
def show_import(slug: str, job_id: int) -> Response:
    """One import with its refused rows (the first 1,000)."""
    job, errors = jobs.show_import(rooms().database, enter(slug).project, job_id)
    return reply(import_reply(job, errors))


@blueprint.post("/projects/<slug>/imports/<int:job_id>/cancel")
@blueprint.response(200, schemas.Import)
def cancel_import(slug: str, job_id: int) -> Response:
    """End an import; what is in stays in. Owners only."""
    return reply(import_reply(jobs.cancel_import(rooms().database, enter_as_owner(slug).project, job_id)))


@blueprint.post("/projects/<slug>/imports/source")
@blueprint.arguments(transfer_schemas.SourceRequest)
@blueprint.response(202, schemas.Import)
def add_source(given: dict[str, Any], slug: str) -> Response:
    """Import what lies elsewhere, in the background: a folder on the server, what an address lists, a SQL table. Owners only."""
    access, here = enter_as_owner(slug), rooms()
    kind, options = given.pop("kind"), given
    reach = import_reach(here.settings)
    job = uploads.queue_source(here.database, reach, access.project, guard.asking_user().id, kind, options)
    return reply(import_reply(job), 202)


@blueprint.get("/projects/<slug>/export")
@blueprint.arguments(schemas.ExportQuery, location="query")
@blueprint.response(200, description="A stream of CSV or JSON lines.")
def export(given: dict[str, str], slug: str) -> Response:
    """All labels, as a stream."""
    access = enter(slug)
    project = access.project
    access.check_may_see_labels()
    jobs.note_export(rooms().database, project, given["format"])
    pieces = exporting.export(rooms().database, project, given["format"], given["which"])
    name = f"{slug}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.{given['format']}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(pieces, content_type=exporting.FORMATS[given["format"]], headers=headers)


@media.get("/media/<slug>/<name>")
def show_media(slug: str, name: str) -> Response:
    """An uploaded file, for those who may see its project; its name is its hash, so it never changes."""
    path, kind = rooms().media.find(enter(slug).project.slug, name)
    etag = name.partition(".")[0]
    if flask.request.if_none_match.contains(etag):
        response = Response(status=304)
        response.set_etag(etag)
    else:
        response = flask.send_file(path, mimetype=kind, conditional=True, etag=etag)
    response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    return response
