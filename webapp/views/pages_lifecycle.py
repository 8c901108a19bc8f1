"""The pages of a project's life: its labels, the archive, and the buttons that copy, archive and delete it.

Owns these routes of the blueprint `pages`. Must never hold a rule: `webapp.projects` decides. Imported by `webapp.app`.
"""

from __future__ import annotations

import datetime
from typing import Any

import flask
from flask_babel import format_datetime
from flask_babel import gettext as _
from werkzeug.wrappers import Response

from labelloop.errors import LabelloopError
from webapp import guard
from webapp.projects import lifecycle
from webapp.projects import service as projects
from webapp.projects.lifecycle import Kept
from webapp.projects.service import Access
from webapp.rooms import rooms
from webapp.views import lifecycle_texts, sentences
from webapp.views.pages import Page, card, needs_login, page_data, pages, slug_of

__all__ = ["pages"]


@pages.get("/projects/<slug>/labels")
@needs_login
def labels(slug: str) -> Page:
    """Show the labels of a project to its owners."""
    access = projects.enter_as_owner(rooms().database, guard.asking_user(), slug)
    shown = card(access.project) | {"kind": access.project.kind, "may_manage": True}
    data = page_data(
        lifecycle_texts.labels_texts(), slug=slug, read_only=sentences.translate(lifecycle.why_read_only(access.project))
    )
    return flask.render_template("labels.html", project=shown, page_data=data)


@pages.post("/projects/<slug>/life")
@needs_login
def life(slug: str) -> Page:
    """Copy, archive, bring back or delete a project. Owners only."""
    access = projects.enter_as_owner(rooms().database, guard.asking_user(), slug)
    try:
        return flask.redirect(_act(access, flask.request.form))
    except LabelloopError as exc:
        flask.flash(sentences.translate(str(exc)))
        return flask.redirect(flask.url_for("pages.settings", slug=slug))


def _act(access: Access, form: Any) -> str:
    """Do what a button says and return where to go then."""
    database, user, action = rooms().database, guard.asking_user(), form.get("action", "")
    slug = access.project.slug
    if action == "delete":
        lifecycle.delete(database, access, user)
        flask.flash(_("Deleted. It can be brought back here for some time."))
        return flask.url_for("pages.archive")
    if action == "copy":
        title = form.get("title", "").strip()
        wishes = {"with_items": form.get("items") == "on", "with_labels": form.get("labels") == "on"}
        made, _job = lifecycle.copy(database, access, user, slug_of(title), title, **wishes)
        flask.flash(_("Copied; items follow in the background."))
        return flask.url_for("pages.settings", slug=made.slug)
    change = lifecycle.unarchive if access.project.is_archived else lifecycle.archive
    change(database, access, user)
    return flask.url_for("pages.project", slug=slug) if access.project.is_archived else flask.url_for("pages.archive")


@pages.route("/archive", methods=["GET", "POST"])
@needs_login
def archive() -> Page:
    """List archived projects, and deleted ones that can still be restored; restore one."""
    here, user, form = rooms(), guard.asking_user(), flask.request.form
    if flask.request.method == "POST" and form.get("slug"):
        return _restored(form["slug"])
    archived, deleted = lifecycle.list_kept(here.database, user, here.settings.web.keep_deleted_s)
    lists = {"archived": [_kept(one) for one in archived], "deleted": [_kept(one) for one in deleted]}
    return flask.render_template("archive.html", **lists)


def _restored(slug: str) -> Response:
    try:
        lifecycle.restore(rooms().database, guard.asking_user(), slug)
    except LabelloopError as exc:
        flask.flash(sentences.translate(str(exc)))
        return flask.redirect(flask.url_for("pages.archive"))
    flask.flash(_("It is back as it was."))
    return flask.redirect(flask.url_for("pages.project", slug=slug))


def _kept(one: Kept) -> dict[str, Any]:
    shown = {"slug": one.project.slug, "title": one.project.title, "may_restore": one.may_restore}
    if one.until is None:
        return shown
    until = datetime.datetime.fromtimestamp(one.until, datetime.UTC)
    return shown | {"iso": until.isoformat(), "until": f"{format_datetime(until, 'medium')} UTC"}
