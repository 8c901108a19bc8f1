"""REST for admins: cluster, runs, dead letters, operation log, projects, disk, backups. Shells around `webapp.admin`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import flask
import msgspec
from flask_smorest import Blueprint
from werkzeug.wrappers import Response

from webapp import guard
from webapp.admin import backup, cluster, disk, letters, log, projects
from webapp.db.operations import Filter, Operation
from webapp.rooms import rooms
from webapp.views import admin_schemas as schemas
from webapp.views.api_projects import enter_as_owner
from webapp.views.replies import reply

blueprint = Blueprint("admin", __name__, description="The whole installation; for admins")


@blueprint.get("/admin/cluster")
@blueprint.response(200, schemas.Overview)
def show_cluster() -> Response:
    """Nodes, queues and what is missing, as the registry last told the pilot; no worker is asked."""
    guard.asking_admin()
    return reply(cluster.overview(rooms().database))


@blueprint.get("/admin/runs")
@blueprint.response(200, schemas.Runs)
def list_runs() -> Response:
    """The trainings of all projects: those going on, and the newest that have ended."""
    guard.asking_admin()
    found = cluster.list_runs(rooms().database)
    live = [msgspec.to_builtins(one) | {"eta_s": cluster.eta_s(one.run)} for one in found.live]
    return reply({"live": live, "past": found.past})


@blueprint.get("/admin/runs/<slug>/<int:run_id>/log")
@blueprint.arguments(schemas.LogQuery, location="query")
@blueprint.response(200, schemas.RunLog)
def show_run_log(given: dict[str, int], slug: str, run_id: int) -> Response:
    """The end of a training's log, from the train master."""
    guard.asking_admin()
    return reply(cluster.run_log(rooms().cluster, slug, run_id, given["lines"]))


@blueprint.get("/admin/letters")
@blueprint.response(200, schemas.LettersPage)
def list_letters() -> Response:
    """Labels and items that the cluster gave up, and the age of each project's outbox."""
    guard.asking_admin()
    return reply({"projects": letters.list_letters(rooms().database)})


@blueprint.post("/projects/<slug>/items/retry")
@blueprint.response(200, schemas.Retried)
def retry_items(slug: str) -> Response:
    """Ask the cluster again for the items that it could not read, after the cause was removed. Owners only."""
    return reply({"retried": letters.retry_items(rooms().database, enter_as_owner(slug).project)})


@blueprint.get("/admin/projects")
@blueprint.response(200, schemas.ProjectLines)
def list_lines() -> Response:
    """All projects with owners, counts, size and last activity."""
    guard.asking_admin()
    return reply({"projects": projects.list_lines(rooms().database)})


@blueprint.get("/admin/operations")
@blueprint.arguments(schemas.OperationsPageQuery, location="query")
@blueprint.response(200, schemas.OperationsPage)
def list_operations(given: dict[str, Any]) -> Response:
    """Who did what and when, newest first, page by page."""
    guard.asking_admin()
    limit = given.pop("limit")
    found = log.read_page(rooms().database, Filter(**given), limit)
    return reply({"operations": found, "before": found[-1].id if len(found) == limit else None})


@blueprint.get("/admin/operations.csv")
@blueprint.arguments(schemas.OperationsQuery, location="query")
@blueprint.response(200, description="CSV, newest first.")
def export_operations(given: dict[str, Any]) -> Response:
    """The operation log as a stream of CSV."""
    guard.asking_admin()
    rows = log.export(rooms().database, Filter(**given))
    headers = {"Content-Disposition": 'attachment; filename="operations.csv"'}
    return Response(_csv(rows), content_type="text/csv; charset=utf-8", headers=headers)


def _csv(rows: Iterator[Operation]) -> Iterator[bytes]:
    names = [field.name for field in msgspec.structs.fields(Operation)]
    yield ",".join(names).encode() + b"\r\n"
    for row in rows:
        line = io.StringIO()
        csv.writer(line).writerow([_cell(getattr(row, name)) for name in names])
        yield line.getvalue().encode()


def _cell(value: object) -> object:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


@blueprint.get("/admin/disk")
@blueprint.response(200, schemas.Disk)
def show_disk() -> Response:
    """What takes how much room, as the pilot last measured it."""
    guard.asking_admin()
    return reply(disk.read_disk(rooms().database))


@blueprint.post("/admin/backups")
@blueprint.response(202, schemas.Backup)
def add_backup() -> Response:
    """Ask for a backup of database and settings; the pilot makes it."""
    return reply(backup.ask(rooms().database, guard.asking_admin()), 202)


@blueprint.get("/admin/backups")
@blueprint.response(200, schemas.Backups)
def list_backups() -> Response:
    """The newest backups."""
    guard.asking_admin()
    return reply({"backups": backup.list_all(rooms().database)})


@blueprint.get("/admin/backups/<int:backup_id>/file")
@blueprint.response(200, description="The backup, a tar file.")
def download_backup(backup_id: int) -> Response:
    """Download a backup. It holds accounts and labels: keep it as safe as the database."""
    guard.asking_admin()
    path = backup.file_of(rooms().database, rooms().settings, backup_id)
    return flask.send_file(path, mimetype="application/x-tar", as_attachment=True, download_name=path.name)


@blueprint.delete("/admin/backups/<int:backup_id>")
@blueprint.response(204)
def drop_backup(backup_id: int) -> Response:
    """Delete a backup's file."""
    guard.asking_admin()
    backup.drop(rooms().database, rooms().settings, backup_id)
    return Response(status=204)
