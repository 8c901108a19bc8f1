"""The pages of people at work: labels to review, quality.

Owns these routes of the blueprint `pages`. Must never hold a rule: `webapp.people` decides; live content comes from the API through
the pages' scripts. Imported by `webapp.app`.
"""

from __future__ import annotations

import flask

from webapp import guard
from webapp.people import review
from webapp.projects import service as projects
from webapp.rooms import rooms
from webapp.views import page_texts, work_texts
from webapp.views.api_people import work_reply
from webapp.views.pages import Page, card, editor_data, needs_login, page_data, pages

__all__ = ["pages"]


@pages.get("/projects/<slug>/reviews")
@needs_login
def reviews(slug: str) -> Page:
    """Labels that wait for a reviewer, one after the other. Reviewers and owners."""
    access = projects.enter_as_reviewer(rooms().database, guard.asking_user(), slug)
    project = access.project
    shown = card(project) | {"kind": project.kind, "may_manage": access.is_owner, "may_review": True}
    more = editor_data(project) | {"item": flask.request.args.get("item", "")}
    data = page_data(page_texts.label_texts() | work_texts.review_texts(), **more)
    reasons = work_texts.reasons()
    waiting = review.read_counts(rooms().database, project)
    return flask.render_template("reviews.html", project=shown, page_data=data, reasons=reasons, waiting=waiting)


@pages.get("/projects/<slug>/quality")
@needs_login
def quality(slug: str) -> Page:
    """How people agree and how each does; differences, drafts accepted in bulk, how people work. Reviewers and owners."""
    access = projects.enter_as_reviewer(rooms().database, guard.asking_user(), slug)
    shown = card(access.project) | {"kind": access.project.kind, "may_manage": access.is_owner, "may_review": True}
    more = {"slug": slug, "kind": access.project.kind, "may_manage": access.is_owner}
    more["reviews_url"] = flask.url_for("pages.reviews", slug=slug)
    work = work_reply(access.project.work)
    data = page_data(work_texts.quality_texts(), **more)
    fields, choices = work_texts.work_fields(), work_texts.work_choices()
    return flask.render_template("quality.html", project=shown, page_data=data, work=work, fields=fields, choices=choices)
