"""The list of a project's items, and the page of one: what it is and everything that was said of it, read-only, for the members.

Must never hold a rule: `webapp.projects` says who may look, the API gives the history. Installed by `webapp.app`.
"""

from __future__ import annotations

import flask

from webapp import guard
from webapp.accounts import service as accounts
from webapp.projects import service as projects
from webapp.rooms import rooms
from webapp.transfer import jobs
from webapp.views import page_texts
from webapp.views.editor_texts import view_texts
from webapp.views.pages import Page, card, needs_login, page_data, pages

__all__ = ["pages"]
OPEN = "open"
STATES = ("labelled", "rules", OPEN)
PAGE_ITEMS = 100


@pages.get("/projects/<slug>/items")
@needs_login
def items(slug: str) -> Page:
    """List a project's items in one state, in the order they came."""
    database = rooms().database
    access = projects.enter(database, guard.asking_user(), slug)
    state = flask.request.args.get("state", STATES[0] if access.may_see_labels else OPEN)
    if state != OPEN:
        access.check_may_see_labels()
    after = min(flask.request.args.get("after", -1, type=int), 2**62)
    found = jobs.page_items(database, access.project, state if state in STATES else STATES[0], after, PAGE_ITEMS)
    shown = card(access.project) | {"may_manage": access.is_owner, "may_review": access.may_review}
    last = found[-1].position if len(found) == PAGE_ITEMS else None
    return flask.render_template("items.html", project=shown, items=found, state=state, after=last)


@pages.get("/projects/<slug>/items/<path:item_id>")
@needs_login
def item(slug: str, item_id: str) -> Page:
    """Show an item with its history."""
    database = rooms().database
    access = projects.enter(database, guard.asking_user(), slug)
    found, history = jobs.item_with_history(database, access.project, item_id)
    known = history if access.may_see_labels else ()
    names = accounts.names_of(database, {revision.user_id for revision in known})
    more = {"slug": slug, "item_id": item_id, "kind": access.project.kind, "labels": list(access.project.labels), "names": names}
    texts = page_texts.common_texts() | page_texts.mark_texts() | view_texts()
    shown = card(access.project) | {"may_manage": access.is_owner, "may_review": access.may_review}
    return flask.render_template("item.html", project=shown, item=found, page_data=page_data(texts, **more))
