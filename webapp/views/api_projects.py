"""REST: projects, their people, their status and events. Shells around `webapp.projects`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import flask
import msgspec
from flask_smorest import Blueprint
from werkzeug.wrappers import Response

from labelloop.errors import ConflictError
from webapp import guard
from webapp.projects import lifecycle, service, status, strategies
from webapp.projects.service import Access
from webapp.rooms import rooms
from webapp.views import schemas
from webapp.views.replies import project_reply, reply
from webapp.views.streams import one_stream

blueprint = Blueprint("projects", __name__, description="Projects, people, status")
STREAM_S = 20.0
STREAM_POLL_S = 0.25
_EVENT_NUMBER = re.compile(r"[0-9]{1,18}")


def enter(slug: str) -> Access:
    """Return the project of the address as the asking person may use it. Raises ConflictError to change an archived one."""
    return _changeable(enter_read_only(slug))


def enter_as_owner(slug: str) -> Access:
    """Return the project of the address, of which the asking person is owner. Raises ConflictError to change an archived one."""
    return _changeable(enter_read_only(slug, as_owner=True))


def enter_as_reviewer(slug: str) -> Access:
    """Return the project of the address, whose labels the asking person may judge. Raises ConflictError where it is archived."""
    return _changeable(service.enter_as_reviewer(rooms().database, guard.asking_user(), slug))


def enter_read_only(slug: str, as_owner: bool = False) -> Access:
    """Return the project of the address, archived or not, for what leaves it as it is."""
    find = service.enter_as_owner if as_owner else service.enter
    return find(rooms().database, guard.asking_user(), slug, guard.take_entry(slug))


def _changeable(access: Access) -> Access:
    reason = lifecycle.why_read_only(access.project)
    if reason and flask.request.method not in ("GET", "HEAD", "OPTIONS"):
        raise ConflictError(reason)
    return access


@blueprint.get("/projects")
@blueprint.response(200, schemas.Projects)
def list_projects() -> Response:
    """The projects one may see, with their counts."""
    database, user = rooms().database, guard.asking_user()
    counted = service.list_counted(database, user)
    return reply({"projects": [project_reply(project, tally) for project, tally in counted]})


@blueprint.post("/projects")
@blueprint.arguments(schemas.NewProject)
@blueprint.response(201, schemas.Project)
def add_project(given: dict[str, Any]) -> Response:
    """Create a project; who creates it owns it."""
    return reply(project_reply(service.create_project(rooms().database, guard.asking_user(), given), None, "owner"), 201)


@blueprint.get("/strategies")
@blueprint.response(200, schemas.Strategies)
def list_strategies() -> Response:
    """The orders of asking that a project may choose, with the parameters of each."""
    guard.asking_user()
    return reply({"strategies": strategies.list_strategies()})


@blueprint.get("/projects/<slug>")
@blueprint.response(200, schemas.Project)
def show_project(slug: str) -> Response:
    """One project."""
    access = enter(slug)
    return reply(project_reply(access.project, service.count(rooms().database, access.project), access.role))


@blueprint.patch("/projects/<slug>")
@blueprint.arguments(schemas.ProjectChange)
@blueprint.response(200, schemas.Project)
def change_project(given: dict[str, Any], slug: str) -> Response:
    """Change settings; labels may only be added. Owners only."""
    access = enter_as_owner(slug)
    project = service.change_project(rooms().database, access, guard.asking_user(), given)
    return reply(project_reply(project, None, access.role))


@blueprint.delete("/projects/<slug>")
@blueprint.response(204)
def drop_project(slug: str) -> Response:
    """Delete a project: gone from every list at once, really dropped after `web.keep_deleted_s`. Owners only."""
    lifecycle.delete(rooms().database, enter_read_only(slug, as_owner=True), guard.asking_user())
    return Response(status=204)


@blueprint.get("/projects/<slug>/members")
@blueprint.response(200, schemas.Members)
def list_members(slug: str) -> Response:
    """The people of a project."""
    members = service.list_members(rooms().database, enter(slug))
    return reply({"members": [{"name": member.name, "role": member.role} for member in members]})


@blueprint.post("/projects/<slug>/members")
@blueprint.arguments(schemas.Member)
@blueprint.response(204)
def set_member(given: dict[str, str], slug: str) -> Response:
    """Give an account a role in the project. Owners only."""
    service.set_member(rooms().database, enter_as_owner(slug), given["name"], given["role"])
    return Response(status=204)


@blueprint.delete("/projects/<slug>/members/<name>")
@blueprint.response(204)
def drop_member(slug: str, name: str) -> Response:
    """Take a person out of the project. Owners only."""
    service.drop_member(rooms().database, enter_as_owner(slug), name)
    return Response(status=204)


@blueprint.get("/projects/<slug>/status")
@blueprint.response(200, description="Counts, corrections, curve, version, next training, run, outbox, trouble.")
def show_status(slug: str) -> Response:
    """All that the project's page shows; cheap enough to be asked every second."""
    here = rooms()
    return reply(status.read_status(here.database, here.queue, enter(slug).project))


@blueprint.get("/projects/<slug>/events")
@blueprint.arguments(schemas.EventsQuery, location="query")
@blueprint.response(200, schemas.Events)
def show_events(given: dict[str, int], slug: str) -> Response:
    """What happened, oldest first, behind number `after`. With 'Accept: text/event-stream' a short stream of them and of the
    status whenever it changes; the browser's EventSource comes back by itself when it ends."""
    access = enter(slug)
    if flask.request.accept_mimetypes.best == "text/event-stream":
        return _stream(access, given["after"])
    found = service.events_after(rooms().database, access.project, given["after"], given["limit"])
    return reply({"events": found, "after": found[-1].id if found else given["after"]})


def _stream(access: Access, after: int) -> Response:
    last = flask.request.headers.get("Last-Event-ID", "")
    start = int(last) if _EVENT_NUMBER.fullmatch(last) else after
    here = rooms()
    body = one_stream(_happenings(here.database, here.queue, access.project, start), here.settings.web.threads // 4)
    return Response(body, mimetype="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


def _happenings(database: Any, queue: Any, project: Any, after: int) -> Iterator[bytes]:
    until_s, seen = time.monotonic() + STREAM_S, b""
    while time.monotonic() < until_s:
        for event in service.events_after(database, project, after, 50):
            after = event.id
            yield b"id: %d\nevent: happened\ndata: %s\n\n" % (event.id, msgspec.json.encode(event))
        now = msgspec.json.encode(status.read_status(database, queue, project))
        if now != seen:
            seen = now
            yield b"event: status\ndata: %s\n\n" % now
        time.sleep(STREAM_POLL_S)
