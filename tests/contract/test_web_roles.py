"""The table of docs/accounts.md, line by line: each route of the app as each kind of person."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.web_world import Client, Valkey, World, make_settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "accounts.md"
PEOPLE = ("stranger", "outsider", "annotator", "reviewer", "owner", "admin")
_ROW = re.compile(r"\| `(\w+ /\S*)` \| ([+-]) \| ([+-]) \| ([+-]) \| ([+-]) \| ([+-]) \| ([+-]) \|")
TABLE = {found[1]: dict(zip(PEOPLE, found.groups()[1:], strict=True)) for found in _ROW.finditer(PAGE.read_text())}
PASSWORD = {"name": "ada", "password": "correct horse"}
BODIES: dict[str, Any] = {  # what a change needs to get as far as the question who asks
    "POST /api/v1/invitations/accept": {"code": "none"},
    "POST /api/v1/password": {"old": "correct horse", "new": "correct horse"},
    "POST /api/v1/password/reset": {"code": "none", "password": "correct horse"},
    "POST /api/v1/projects": {"slug": "another", "category": "tables", "labels": ["a", "b"]},
    "POST /api/v1/projects/<slug>/annotations": {"item_id": "i0", "labels": ["owl"]},
    "POST /api/v1/projects/<slug>/cancel": {"run": 1},
    "POST /api/v1/projects/<slug>/copy": {"slug": "a-copy"},
    "POST /api/v1/projects/<slug>/drafts": {"drafts": []},
    "POST /api/v1/projects/<slug>/exports": {"format": "jsonl"},
    "POST /api/v1/projects/<slug>/imports/source": {"kind": "sql", "source": "none"},
    "POST /api/v1/projects/<slug>/items": {"items": []},
    "POST /api/v1/projects/<slug>/label-studio/predict": {"tasks": [], "label_config": "<View/>"},
    "POST /api/v1/projects/<slug>/label-studio/setup": {"schema": "<View/>"},
    "POST /api/v1/projects/<slug>/label-studio/webhook": {"action": "NOTHING"},
    "POST /api/v1/projects/<slug>/labels/merge": {"labels": ["owl"], "into": "tit"},
    "POST /api/v1/projects/<slug>/labels/rename": {"label": "owl", "name": "barn owl"},
    "POST /api/v1/projects/<slug>/leases": {"leases": []},
    "POST /api/v1/projects/<slug>/members": {"name": "outsider", "role": "annotator"},
    "POST /api/v1/projects/<slug>/predict": {"items": [{"id": "i", "text": "one"}]},
    "POST /api/v1/projects/<slug>/promote": {"version": "v"},
    "POST /api/v1/projects/<slug>/skip": {"item_id": "i0", "lease": "none"},
    "PUT /api/v1/projects/<slug>/rules": {"rules": [], "revision": 0},
    "POST /api/v1/projects/<slug>/rules/cancel": {"id": 1},
    "POST /api/v1/projects/<slug>/rules/preview": {"rules": []},
    "POST /api/v1/projects/<slug>/bulk": {"least_confidence": 0.9},
    "POST /api/v1/projects/<slug>/bulk/cancel": {"id": 1},
    "POST /api/v1/projects/<slug>/bulk/undo": {"id": 1},
    "POST /api/v1/projects/<slug>/gold": {"item_ids": []},
    "POST /api/v1/projects/<slug>/reviews": {"item_id": "i0", "action": "accept"},
    "POST /api/v1/registration": {**PASSWORD, "name": "newcomer"},
    "POST /api/v1/session": PASSWORD,
    "POST /api/v1/tokens": {**PASSWORD, "label": "t"},
    "POST /api/v1/users": {**PASSWORD, "name": "somebody"},
    "PATCH /api/v1/users/<name>": {"is_active": True},
}
HOOK = {"url": "https://1.1.1.1/", "events": ["training.ended"]}
BODIES |= {"POST /api/v1/admin/webhooks": HOOK, "POST /api/v1/projects/<slug>/webhooks": HOOK}
DENIED = (
    "log in, or send",
    "only an owner of project",
    "only a reviewer or an owner of project",
    "only an admin may",
    "no project is called",
    "no item is called",
)


class Stage:
    """One app with one person of each kind, and a project that is made anew where it was changed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clients = {"admin": world.admin}
        for name in ("outsider", "annotator", "reviewer", "owner"):
            self.clients[name] = world.person(name)
        self.browsers = {name: world.app.test_client() for name in PEOPLE}
        self.csrf: dict[str, str] = {}
        for name in PEOPLE[1:]:
            given = {"name": "ada" if name == "admin" else name, "password": "correct horse"}
            self.csrf[name] = self.browsers[name].post("/api/v1/session", json=given).get_json()["csrf"]
        self._projects = 0

    def project(self) -> str:
        """Return a new project with its annotator, its reviewer and its owner."""
        self._projects += 1
        slug = self.world.project(slug=f"p{self._projects}", texts=1)
        for name in ("annotator", "reviewer", "owner"):
            self.world.admin.call("POST", f"/projects/{slug}/members", {"name": name, "role": name}, 204)
        return slug

    def is_denied(self, person: str, route: str, slug: str) -> bool:
        """Return whether the route is closed to the person, as opposed to open and perhaps in vain."""
        method, path = route.split(" ", 1)
        for part, value in {"<slug>": slug, "<name>": "nobody", "<item_id>": "i0"}.items():
            path = path.replace(part, value)
        path = re.sub(r"<\w+>", "1", path)
        if path.startswith("/api/v1"):
            sent = BODIES.get(route, {} if method in ("POST", "PATCH", "PUT") else None)
            client = Client(self.world.app) if person == "stranger" else self.clients[person]  # a stranger may log in
            answer = client.raw(method, path.removeprefix("/api/v1"), sent)
        else:
            form = {"csrf_token": self._token(person), "locale": "en", "theme": "dark"} if method == "POST" else None
            answer = self.browsers[person].open(path, method=method, data=form)
        if answer.status_code == 302:
            return "/login?next=" in answer.headers["Location"]
        said = answer.get_data(as_text=True)
        return answer.status_code in (401, 403, 404) and any(words in said for words in DENIED)

    def _token(self, person: str) -> str:
        page = self.browsers[person].get("/reset").get_data(as_text=True)
        found = re.search(r'name="csrf_token" value="([^"]+)"', page)
        assert found is not None
        return found[1]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Stage]:
    world = World(make_settings(tmp_path_factory.mktemp("roles"), "", valkey.url, registration="open"))
    yield Stage(world)
    world.close()


def test_the_table_names_every_route_of_the_app(stage: Stage) -> None:
    routes = set()
    for rule in stage.world.app.url_map.iter_rules():
        path = re.sub(r"<\w+:(\w+)>", r"<\1>", rule.rule)
        if rule.endpoint != "static":
            routes |= {f"{method} {path}" for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    assert routes == set(TABLE)


@pytest.mark.parametrize("route", TABLE)
def test_a_route_is_open_to_those_whom_the_table_names(stage: Stage, route: str) -> None:
    seen = {}
    for person in PEOPLE:
        if route == "POST /logout" and person != "stranger":
            seen[person] = "+"  # tried by the tests of sessions; here the browsers are needed on
            continue
        seen[person] = "-" if stage.is_denied(person, route, stage.project() if "<slug>" in route else "") else "+"
    assert seen == TABLE[route]
