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
import msgspec
from flask_babel import gettext as _
from werkzeug.wrappers import Response

from labelloop.errors import ConflictError, InvalidInputError, LabelloopError
from webapp import guard
from webapp.accounts import service as accounts
from webapp.db import tallies
from webapp.db.projects import Project
from webapp.kinds import catalogue
from webapp.kinds.catalogue import data_of, kind_of
from webapp.projects import lifecycle
from webapp.projects import service as projects
from webapp.rooms import rooms
from webapp.rules import service as rules
from webapp.rules.wording import METHODS
from webapp.transfer import formats
from webapp.views import data_page, data_sentences, markdown, page_texts, project_forms, sentences
from webapp.views.kind_names import category_names, example_of, kind_choices
from webapp.views.languages import LOCALES, current_locale

P = ParamSpec("P")
PREVIEW_LABELS = 40
Page = str | Response
pages = flask.Blueprint("pages", __name__)
DIST = Path(__file__).resolve().parent.parent / "static" / "dist"
RELATIONS = (  # of WordNet, offered while a rule is written
    *("has-part", "part-of", "has-member", "member-of", "has-substance", "substance-of", "hyponym", "hypernym"),
    *("instance-hyponym", "similar", "antonym", "derived", "pertains", "causes", "entails", "topic-of", "in-topic"),
)
ALGORITHMS = (
    "auto",
    "logistic-regression",
    "svm",
    "random-forest",
    "gradient-boosting",
    "linear-head",
    "best-of",
    "small-cnn",
    "fine-tune",
    "distilled",
    "keras-cnn",
    "best-of-pixels",
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


def page_data(texts: dict[str, str], **more: Any) -> dict[str, Any]:
    """Return what a page's script is given: who reads, in which language, the texts it may say, and more."""
    locale, name = current_locale(), guard.asking_user().name
    known = {"csrf": guard.csrf_token(), "locale": locale, "user": name, "texts": texts, "sentences": sentences.patterns(locale)}
    return known | more


def editor_data(project: Project) -> dict[str, Any]:
    """Return what the script of a page with an editor is given of the project, beside what all are given."""
    kind, limits = kind_of(project.kind), project.limits_now
    more: dict[str, Any] = {"slug": project.slug, "labels": list(project.labels), "kind": kind.name, "editor": kind.editor}
    more |= {"data": data_of(project.category), "category": project.category, "has_none": kind.least_labels > 0}
    more |= {"number": msgspec.to_builtins(limits.number)} if kind.has_number else {}
    more |= {"relation_labels": list(limits.relation_labels)} if limits.relation_labels else {}
    return more | {"project_url": flask.url_for("pages.project", slug=project.slug)}


def next_address() -> str:
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
            if is_first:
                user = accounts.sign_up(database, name, password, None)
            else:
                user = accounts.enter(database, name, password, flask.request.remote_addr or "")
        except LabelloopError as exc:
            error = sentences.translate(str(exc))
        else:
            guard.begin_session(user)
            return flask.redirect(next_address())
    may_register = rooms().settings.web.registration != "closed"
    return flask.render_template("login.html", is_first=is_first, name=name, error=error, may_register=may_register)


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
    return flask.redirect(next_address())


@pages.route("/account", methods=["GET", "POST"])
@guard.login_limit(exempt_when=lambda: flask.request.form.get("action") != "password")
@needs_login
def account() -> Page:
    """Show one's account; make tokens, change the password."""
    token = error = said = ""
    database, user = rooms().database, guard.asking_user()
    form = flask.request.form
    try:
        if form.get("action") == "token":
            token = accounts.make_token(database, user, form.get("label", ""))[1]
        elif form.get("action") == "password":
            guard.begin_session(accounts.change_password(database, user, form.get("old", ""), form.get("new", "")))
            said = _("Your password is changed; other sessions have ended.")
        elif form.get("action") == "revoke":
            accounts.drop_token(database, user, int(project_forms.read_number(form, "token", 0)))
    except LabelloopError as exc:
        error = sentences.translate(str(exc))
    tokens = accounts.list_tokens(database, user)
    return flask.render_template("account.html", token=token, error=error, said=said, tokens=tokens)


# ---------------------------------------------------------------- projects


@pages.get("/")
@needs_login
def projects_page() -> Page:
    """List the projects that this person may see."""
    user = guard.asking_user()
    rows = [card(project) for project in projects.list_projects(rooms().database, user)]
    return flask.render_template("projects.html", projects=rows, may_create=True, categories=category_names())


def card(project: Any) -> dict[str, Any]:
    with rooms().database.read() as tx:
        count, ruled = tallies.total(tx, project.id), tallies.ruled(tx, project.id)
    shown = {name: getattr(project, name) for name in ("slug", "title", "category", "labels")}
    return shown | {
        "instructions": markdown.render(project.instructions) if project.instructions.strip() else "",
        "choices": project.labels,
        "labels": count.labels,
        "total": count.items,
        "corrected": count.corrected,
        "ruled": ruled,
    }


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
    shown = {
        "categories": category_names(),
        "kinds": kind_choices(),
        "algorithms": ALGORITHMS,
        "strategies": project_forms.strategy_forms(form),
    }
    return flask.render_template("new_project.html", form=form, error=error, **shown)


def slug_of(title: str) -> str:
    """Return the name in addresses of a project with this title."""
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:50]
    return slug or "project-" + hashlib.blake2b(title.encode(), digest_size=4).hexdigest()


def _project_values(form: Any) -> dict[str, Any]:
    fixed = {"slug": slug_of(form.get("title", "").strip()), "category": form.get("category", ""), "kind": form.get("kind", "")}
    return fixed | project_forms.common_values(form)


@pages.post("/preview")
@needs_login
def preview() -> Page:
    """Show the labelling page as the form before it would make it."""
    form = flask.request.form
    labels = list(dict.fromkeys(line.strip()[:100] for line in form.get("labels", "").splitlines() if line.strip()))
    kind = form.get("kind", "")
    least = catalogue.KINDS[kind].least_labels if kind in catalogue.KINDS else 0
    shown = labels[:PREVIEW_LABELS] if least else []
    more = {"more": len(labels) - len(shown) if least else 0, "least": least}
    example = example_of(form.get("category", ""), kind)
    instructions = markdown.render(form.get("instructions", "")) if form.get("instructions", "").strip() else ""
    title = form.get("title", "").strip()[:120]
    return flask.render_template("_preview.html", title=title, labels=shown, example=example, instructions=instructions, **more)


@pages.route("/projects/<slug>/settings", methods=["GET", "POST"])
@needs_login
def settings(slug: str) -> Page:
    """Change what may change of a project. Owners only."""
    access = projects.enter_as_owner(rooms().database, guard.asking_user(), slug)
    form: Any = project_forms.shown_values(access.project)
    error = ""
    if flask.request.method == "POST":
        form = flask.request.form
        try:
            if reason := lifecycle.why_read_only(access.project):
                raise ConflictError(reason)
            projects.change_project(rooms().database, access, guard.asking_user(), project_forms.changed_values(form))
        except LabelloopError as exc:
            error = sentences.translate(str(exc))
        else:
            flask.flash(_("Saved."))
            return flask.redirect(flask.url_for("pages.settings", slug=slug))
    shown = {"strategies": project_forms.strategy_forms(form), "algorithms": (*ALGORITHMS, form.get("algorithm", "auto"))}
    project = card(access.project) | {"kind": access.project.kind, "may_manage": True}
    is_archived = access.project.is_archived
    return flask.render_template("settings.html", project=project, form=form, error=error, is_archived=is_archived, **shown)


def _enter(slug: str) -> tuple[dict[str, Any], bool]:
    access = projects.enter(rooms().database, guard.asking_user(), slug)
    more = {"kind": access.project.kind, "may_manage": access.is_owner, "may_review": access.may_review}
    return card(access.project) | more, access.is_owner


@pages.get("/projects/<slug>")
@needs_login
def project(slug: str) -> Page:
    """Show a project's live status."""
    shown, may_manage = _enter(slug)
    data = page_data(page_texts.project_texts(), slug=slug, may_manage=may_manage)
    return flask.render_template("project.html", project=shown, may_manage=may_manage, page_data=data)


@pages.get("/projects/<slug>/label")
@needs_login
def label(slug: str) -> Page:
    """Show the labelling page."""
    shown, _may_manage = _enter(slug)
    more = editor_data(projects.enter(rooms().database, guard.asking_user(), slug).project)
    return flask.render_template("label.html", project=shown, page_data=page_data(page_texts.label_texts(), **more))


@pages.get("/projects/<slug>/data")
@needs_login
def data(slug: str) -> Page:
    """Show imports and exports."""
    shown, may_manage = _enter(slug)
    given = page_data(page_texts.data_texts(), slug=slug, may_manage=may_manage)
    given["sentences"] += data_sentences.patterns(current_locale())
    found = projects.enter(rooms().database, guard.asking_user(), slug).project
    more = {"imports": formats.imports_of(found), "exports": formats.exports_of(found), **data_page.data_lists()}
    return flask.render_template("data.html", project=shown, may_manage=may_manage, page_data=given, **more)


@pages.get("/projects/<slug>/rules")
@needs_login
def rules_page(slug: str) -> Page:
    """Show the rules of a project to its owners."""
    database = rooms().database
    found = projects.enter_as_owner(database, guard.asking_user(), slug).project
    shown, columns, stored = _enter(slug)[0], rules.columns_of(database, found), rules.read(database, found)
    more = {"slug": slug, "labels": list(found.labels), "columns": columns, "rule_set": msgspec.to_builtins(stored)}
    told = page_data(page_texts.rules_texts(), **more)
    lists = {"columns": columns, "relations": RELATIONS, "methods": METHODS}
    why_not = sentences.translate(rules.why_not(found))
    return flask.render_template("rules.html", project=shown, page_data=told, rule_set=stored, why_not=why_not, **lists)


@pages.get("/projects/<slug>/rules/review")
@needs_login
def review(slug: str) -> Page:
    """Show the labelling page over the labels that rules gave."""
    shown, _may_manage = _enter(slug)
    address = flask.url_for("pages.project", slug=slug)
    names = rules.names_applied(rooms().database, projects.enter(rooms().database, guard.asking_user(), slug).project)
    more = {"slug": slug, "labels": list(shown["choices"]), "kind": shown["kind"], "project_url": address, "is_review": True}
    data = page_data(page_texts.label_texts(), **more)
    return flask.render_template("label.html", project=shown, page_data=data, is_review=True, rule_names=names)


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
