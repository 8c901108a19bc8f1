"""The pages people see: shells that ask a service and fill a template.

Owns the page routes and what each template is given. Must never hold a rule: accounts, projects and labelling decide. Installed by
`webapp.app`; live content comes from the API through the pages' scripts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec
from urllib.parse import urlsplit

import flask
import flask_login
from flask_babel import gettext as _
from werkzeug.wrappers import Response

from labelloop.errors import InvalidInputError, LabelloopError
from webapp import guard
from webapp.accounts import service as accounts
from webapp.db import tallies
from webapp.projects import service as projects
from webapp.rooms import rooms
from webapp.views import page_texts, sentences
from webapp.views.languages import LOCALES, current_locale

P = ParamSpec("P")
Page = str | Response
pages = flask.Blueprint("pages", __name__)
DIST = Path(__file__).resolve().parent.parent / "static" / "dist"
ALGORITHMS = (
    "auto",
    "logistic-regression",
    "svm",
    "random-forest",
    "gradient-boosting",
    "linear-head",
    "small-cnn",
    "fine-tune",
    "keras-cnn",
)


def needs_login(view: Callable[P, Page]) -> Callable[P, Page]:
    """Send a person without a session to the login page and back afterwards."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Page:
        if not flask_login.current_user.is_authenticated:
            return flask.redirect(flask.url_for("pages.login", next=flask.request.full_path))
        return view(*args, **kwargs)

    return guarded


def asset(name: str) -> str:
    """Return the address of a bundle with its content hash, so that a browser may keep it for ever."""
    digest = hashlib.blake2b((DIST / name).read_bytes(), digest_size=6).hexdigest()
    return flask.url_for("static", filename=f"dist/{name}", v=digest)


def category_names() -> dict[str, str]:
    """Return the categories by name with the words for people."""
    return {"image-classification": _("Images"), "text-classification": _("Texts"), "tables": _("Table rows")}


def _page_data(texts: dict[str, str], **more: Any) -> dict[str, Any]:
    locale, name = current_locale(), guard.asking_user().name
    known = {"csrf": guard.csrf_token(), "locale": locale, "user": name, "texts": texts, "sentences": sentences.patterns(locale)}
    return known | more


def _next_address() -> str:
    """Return where to go after a form; only a path of this app, never another site."""
    wanted = flask.request.values.get("next", "")
    parts = urlsplit(wanted)
    is_own = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and not parts.netloc and not parts.scheme
    return wanted if is_own else flask.url_for("pages.projects_page")


@pages.context_processor
def _for_templates() -> dict[str, Any]:
    return {"asset": asset}


# ---------------------------------------------------------------- accounts


@pages.route("/login", methods=["GET", "POST"])
@guard.login_limit()
def login() -> Page:
    """Log in; while there is no account, make the first, who is admin."""
    database = rooms().database
    is_first = not accounts.has_users(database)
    name, error = flask.request.form.get("name", "").strip(), ""
    if flask.request.method == "POST":
        password = flask.request.form.get("password", "")
        try:
            user = accounts.sign_up(database, name, password, None) if is_first else accounts.log_in(database, name, password)
        except LabelloopError as exc:
            error = sentences.translate(str(exc))
        else:
            guard.begin_session(user)
            return flask.redirect(_next_address())
    return flask.render_template("login.html", is_first=is_first, name=name, error=error)


@pages.post("/logout")
def logout() -> Page:
    """Log out."""
    guard.end_session()
    return flask.redirect(flask.url_for("pages.login"))


@pages.post("/language")
def language() -> Page:
    """Keep the language of this browser, and of the account where there is one."""
    locale = flask.request.form.get("locale", "")
    if locale not in LOCALES:
        raise InvalidInputError(f"language {locale!r}: use one of {', '.join(LOCALES)}")
    flask.session["locale"] = locale
    if flask.g.user is not None:
        accounts.set_locale(rooms().database, flask.g.user, locale)
    return flask.redirect(_next_address())


@pages.route("/account", methods=["GET", "POST"])
@needs_login
def account() -> Page:
    """Show one's account; make tokens, and as admin people."""
    token = error = ""
    database, user = rooms().database, guard.asking_user()
    form = flask.request.form
    try:
        if form.get("action") == "token":
            token = accounts.make_token(database, user, form.get("label", ""))[1]
        elif form.get("action") == "person":
            accounts.sign_up(database, form.get("name", "").strip(), form.get("password", ""), user)
        elif form.get("action") == "revoke":
            accounts.drop_token(database, user, int(_number(form, "token", 0)))
    except LabelloopError as exc:
        error = sentences.translate(str(exc))
    people = accounts.list_people(database) if user.is_admin else ()
    shown = [{"name": person.name, "role": _("admin") if person.is_admin else ""} for person in people]
    tokens = accounts.list_tokens(database, user)
    return flask.render_template("account.html", token=token, error=error, people=shown, tokens=tokens)


# ---------------------------------------------------------------- projects


@pages.get("/")
@needs_login
def projects_page() -> Page:
    """List the projects that this person may see."""
    user = guard.asking_user()
    rows = [_card(project) for project in projects.list_projects(rooms().database, user)]
    return flask.render_template("projects.html", projects=rows, may_create=True, categories=category_names())


def _card(project: Any) -> dict[str, Any]:
    with rooms().database.read() as tx:
        count = tallies.total(tx, project.id)
    shown = {name: getattr(project, name) for name in ("slug", "title", "category", "labels", "instructions")}
    return shown | {"choices": project.labels, "labels": count.labels, "total": count.items, "corrected": count.corrected}


@pages.route("/projects/new", methods=["GET", "POST"])
@needs_login
def new_project() -> Page:
    """Create a project from a form."""
    form, error = flask.request.form, ""
    if flask.request.method == "POST":
        try:
            project = projects.create_project(rooms().database, guard.asking_user(), _project_values(form))
        except LabelloopError as exc:
            error = sentences.translate(str(exc))
        else:
            return flask.redirect(flask.url_for("pages.data", slug=project.slug))
    shown = {"categories": category_names(), "algorithms": ALGORITHMS, "strategies": projects.STRATEGIES}
    return flask.render_template("new_project.html", form=form, error=error, **shown)


def _project_values(form: Any) -> dict[str, Any]:
    title = form.get("title", "").strip()
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:50]
    if not slug:
        slug = "project-" + hashlib.blake2b(title.encode(), digest_size=4).hexdigest()
    return {
        "slug": slug,
        "title": title,
        "labels": [line.strip() for line in form.get("labels", "").splitlines() if line.strip()],
        "target": _number(form, "target", 95.0) / 100,
        "budget": int(_number(form, "budget", 0.0)),
        **{name: form.get(name, "") for name in ("category", "kind", "algorithm", "strategy", "instructions")},
    }


def _number(form: Any, name: str, default: float) -> float:
    text = form.get(name, "").strip()
    try:
        return float(text) if text else default
    except ValueError as exc:
        raise InvalidInputError(f"{name} {text!r} is no number") from exc


def _enter(slug: str) -> tuple[dict[str, Any], bool]:
    access = projects.enter(rooms().database, guard.asking_user(), slug)
    return _card(access.project) | {"kind": access.project.kind}, access.is_owner


@pages.get("/projects/<slug>")
@needs_login
def project(slug: str) -> Page:
    """Show a project's live status."""
    shown, may_manage = _enter(slug)
    data = _page_data(page_texts.project_texts(), slug=slug, may_manage=may_manage)
    return flask.render_template("project.html", project=shown, may_manage=may_manage, page_data=data)


@pages.get("/projects/<slug>/label")
@needs_login
def label(slug: str) -> Page:
    """Show the labelling page."""
    shown, _may_manage = _enter(slug)
    address = flask.url_for("pages.project", slug=slug)
    more = {"slug": slug, "labels": list(shown["choices"]), "kind": shown["kind"], "project_url": address}
    return flask.render_template("label.html", project=shown, page_data=_page_data(page_texts.label_texts(), **more))


@pages.get("/projects/<slug>/data")
@needs_login
def data(slug: str) -> Page:
    """Show imports and exports."""
    shown, may_manage = _enter(slug)
    page_data = _page_data(page_texts.data_texts(), slug=slug, may_manage=may_manage)
    return flask.render_template("data.html", project=shown, may_manage=may_manage, page_data=page_data)


@pages.get("/favicon.ico")
def favicon() -> Page:
    """Send the icon to browsers that ask for the old name."""
    return flask.redirect(flask.url_for("static", filename="icon.svg"))


def error_page(status: int, sentence: str) -> Page:
    """Return the page of an error answer."""
    if status == 401:
        return flask.redirect(flask.url_for("pages.login", next=flask.request.full_path))
    titles = {404: _("Not found"), 403: _("Not allowed"), 429: _("Too many requests")}
    title = titles.get(status, _("Something went wrong"))
    return flask.render_template("error.html", title=title, sentence=sentences.translate(sentence))
