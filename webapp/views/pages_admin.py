"""The pages of admins, and those of webhooks.

Owns these routes of the blueprint `pages`. Must never hold a rule, nor ask the cluster: their scripts ask the API, which reads
what the pilot last wrote. Imported by `webapp.app`.
"""

from __future__ import annotations

import datetime
from typing import Any

import flask
from flask_babel import format_datetime

from webapp import guard
from webapp.admin import log
from webapp.db.operations import Filter, Operation
from webapp.projects import service as projects
from webapp.rooms import rooms
from webapp.views import admin_texts, log_texts, sentences
from webapp.views.languages import current_locale
from webapp.views.pages import Page, card, needs_login, page_data
from webapp.views.pages_people import pages

__all__ = ["pages"]
_LOG_ROWS = 100


def _sentences() -> list[tuple[str, str]]:
    locale = current_locale()
    return [*sentences.patterns(locale), *admin_texts.patterns(locale)]


def _show(view: str) -> Page:
    guard.asking_admin()
    data = page_data(admin_texts.admin_texts(), view=view) | {"sentences": _sentences()}
    return flask.render_template(f"admin_{view}.html", page_data=data)


@pages.get("/admin/cluster")
@needs_login
def admin_cluster() -> Page:
    """Show nodes, queues and what is missing."""
    return _show("cluster")


@pages.get("/admin/runs")
@needs_login
def admin_runs() -> Page:
    """Show the trainings of all projects."""
    return _show("runs")


@pages.get("/admin/letters")
@needs_login
def admin_letters() -> Page:
    """Show what the cluster gave up."""
    return _show("letters")


@pages.get("/admin/projects")
@needs_login
def admin_projects() -> Page:
    """Show all projects."""
    return _show("projects")


@pages.get("/admin/disk")
@needs_login
def admin_disk() -> Page:
    """Show disk use and backups."""
    return _show("disk")


@pages.get("/admin/log")
@needs_login
def admin_log() -> Page:
    """Show who did what."""
    guard.asking_admin()
    given, database = flask.request.args, rooms().database
    wanted = {name: given.get(name, "") for name in ("person", "project", "kind")}
    before = given.get("before", "")
    number = int(before) if before.isdecimal() and len(before) < 19 else 0
    found = log.read_page(database, Filter(**wanted, before=number), _LOG_ROWS)
    more = found[-1].id if len(found) == _LOG_ROWS else None
    shown = {"rows": [_row(one) for one in found], "choices": log.choices(database), "kinds": admin_texts.kind_names()}
    return flask.render_template("admin_log.html", wanted=wanted, before=more, **shown)


def _row(one: Operation) -> dict[str, Any]:
    at = datetime.datetime.fromtimestamp(one.at, datetime.UTC)
    fields = {name: getattr(one, name) for name in ("person", "kind", "project", "address")}
    return fields | {
        "text": sentences.translate(one.text, log_texts.SENTENCES),
        "iso": at.isoformat(),
        "when": f"{format_datetime(at, 'medium')} UTC",
    }


@pages.get("/admin/webhooks")
@needs_login
def admin_webhooks() -> Page:
    """Show the webhooks of the whole app."""
    guard.asking_admin()
    return _webhooks(None)


@pages.get("/projects/<slug>/webhooks")
@needs_login
def project_webhooks(slug: str) -> Page:
    """Show the webhooks of a project to its owners."""
    access = projects.enter_as_owner(rooms().database, guard.asking_user(), slug)
    return _webhooks(card(access.project) | {"may_manage": True})


def _webhooks(project: dict[str, Any] | None) -> Page:
    data = page_data(admin_texts.webhook_texts(), slug=project["slug"] if project else "") | {"sentences": _sentences()}
    return flask.render_template("webhooks.html", project=project, page_data=data, events=admin_texts.event_names())
