"""Accounts, sessions, tokens, CSRF, limits and roles through the API."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from labelloop.settings import Settings
from tests.contract.web_world import Client, Valkey, World, make_settings
from webapp.accounts import service


@pytest.fixture
def sqlite_world(tmp_path: Path, valkey: Valkey) -> Iterator[World]:
    made = World(make_settings(tmp_path, "", valkey.url))
    yield made
    made.close()


def test_only_one_of_many_first_accounts_becomes_admin(web_settings: Settings) -> None:
    from webapp import create_app

    app = create_app(web_settings)
    with ThreadPoolExecutor(6) as pool:
        body = {"password": "correct horse"}
        answers = list(pool.map(lambda n: Client(app).raw("POST", "/users", {"name": f"u{n}", **body}), range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, 403, 403, 403, 403, 403]
    app.extensions["labelloop"].close()


def test_a_later_account_is_made_by_an_admin_only(world: World) -> None:
    bob = world.person("bob")
    assert bob.call("POST", "/users", {"name": "eve", "password": "correct horse"}, 403)["code"] == "forbidden"
    assert Client(world.app).call("POST", "/users", {"name": "eve", "password": "correct horse"}, 403)["code"] == "forbidden"
    assert world.admin.call("POST", "/users", {"name": "bob", "password": "correct horse"}, 409)["code"] == "conflict"
    assert "10 to 256" in world.admin.call("POST", "/users", {"name": "eve", "password": "short"}, 422)["message"]


def test_a_wrong_password_and_an_unknown_name_get_the_same_answer(sqlite_world: World) -> None:
    client = Client(sqlite_world.app)
    wrong = client.call("POST", "/session", {"name": "ada", "password": "wrong horse 1"}, 401)
    unknown = client.call("POST", "/session", {"name": "nobody", "password": "wrong horse 1"}, 401)
    assert wrong == unknown


def test_a_cookie_changes_nothing_without_the_csrf_token(sqlite_world: World) -> None:
    client = Client(sqlite_world.app)
    csrf = client.call("POST", "/session", {"name": "ada", "password": "correct horse"})["csrf"]
    body = {"slug": "birds", "category": "tables", "labels": ["a", "b"]}
    refused = client.call("POST", "/projects", body, 403)
    assert refused["code"] == "forbidden" and "X-CSRFToken" in refused["message"]
    client.call("POST", "/projects", body, 201, headers={"X-CSRFToken": csrf})
    client.call("GET", "/projects/birds")


@pytest.mark.parametrize(
    ("category", "kind"), [("object-detection", "boxes"), ("token-classification", "spans"), ("audio", "multiclass")]
)
def test_a_project_that_names_no_kind_has_the_first_of_its_category(sqlite_world: World, category: str, kind: str) -> None:
    body = {"slug": category, "category": category, "labels": ["a", "b"]}
    assert sqlite_world.admin.call("POST", "/projects", body, 201)["kind"] == kind


def test_the_session_cookie_is_httponly_and_lax_and_its_key_is_private(sqlite_world: World) -> None:
    answer = Client(sqlite_world.app).raw("POST", "/session", {"name": "ada", "password": "correct horse"})
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie
    key = Path(sqlite_world.settings.state_dir) / "web-secret-key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and len(key.read_bytes()) == 64


def test_a_login_from_another_site_as_a_form_is_refused(sqlite_world: World) -> None:
    client = Client(sqlite_world.app)
    answer = client.raw("POST", "/session", data={"name": "ada", "password": "correct horse"})
    assert answer.status_code == 401 and "Set-Cookie" not in answer.headers


def test_a_new_password_ends_all_other_sessions(sqlite_world: World) -> None:
    here, there = Client(sqlite_world.app), Client(sqlite_world.app)
    csrf = here.call("POST", "/session", {"name": "ada", "password": "correct horse"})["csrf"]
    there.call("POST", "/session", {"name": "ada", "password": "correct horse"})
    there.call("GET", "/session")
    change = {"old": "correct horse", "new": "battery staple"}
    here.call("POST", "/password", change, 200, headers={"X-CSRFToken": csrf})
    there.call("GET", "/session", None, 401)
    here.call("GET", "/session")


def test_tokens_are_kept_as_hashes_and_can_be_revoked(sqlite_world: World) -> None:
    made = sqlite_world.admin.call("POST", "/tokens", {"label": "ci"}, 201)
    script = Client(sqlite_world.app, made["token"])
    assert script.call("GET", "/session")["name"] == "ada"
    stored = (Path(sqlite_world.settings.state_dir) / "web.sqlite").read_bytes()
    wal = (Path(sqlite_world.settings.state_dir) / "web.sqlite-wal").read_bytes()
    assert made["token"].encode() not in stored + wal and b"correct horse" not in stored + wal
    sqlite_world.admin.call("DELETE", f"/tokens/{made['id']}", None, 204)
    assert script.call("GET", "/session", None, 401)["code"] == "unauthenticated"


def test_an_account_that_is_locked_out_may_do_nothing(sqlite_world: World) -> None:
    bob = sqlite_world.person("bob")
    sqlite_world.admin.call("DELETE", "/users/bob/active", None, 204)
    bob.call("GET", "/projects", None, 401)
    Client(sqlite_world.app).call("POST", "/session", {"name": "bob", "password": "correct horse"}, 401)
    sqlite_world.admin.call("PUT", "/users/bob/active", None, 204)
    bob.call("GET", "/projects")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "", {"title": "mine"}),
        ("DELETE", "", None),
        ("POST", "/members", {"name": "eve", "role": "owner"}),
        ("POST", "/items", {"items": []}),
        ("POST", "/imports", None),
        ("POST", "/train", {}),
        ("POST", "/rollback", {}),
        ("POST", "/promote", {"version": "v"}),
        ("POST", "/cancel", {"run": 1}),
        ("POST", "/resend", {}),
    ],
)
def test_an_annotator_may_not_manage_and_an_outsider_sees_nothing(
    sqlite_world: World, method: str, path: str, body: object
) -> None:
    slug = sqlite_world.project(texts=1)
    bob, eve = sqlite_world.person("bob", slug), sqlite_world.person("eve")
    assert bob.call(method, f"/projects/{slug}{path}", body, 403)["code"] == "forbidden"
    assert eve.call(method, f"/projects/{slug}{path}", body, 404)["code"] == "not_found"
    assert eve.call("GET", "/projects")["projects"] == []
    Client(sqlite_world.app).raw(method, f"/projects/{slug}{path}", body)


def test_logins_are_limited_by_address(tmp_path: Path, valkey: Valkey) -> None:
    made = World(make_settings(tmp_path, "", valkey.url.replace("/0", "/3"), login_rate_limit="4 per minute"))
    client = Client(made.app)
    codes = [client.raw("POST", "/session", {"name": "ada", "password": "wrong horse 1"}).status_code for _ in range(6)]
    assert codes[-1] == 429 and 401 in codes
    body = client.call("POST", "/session", {"name": "ada", "password": "correct horse"}, 429)
    assert body["code"] == "busy" and body["way_out"]
    made.close()


def test_guesses_of_a_password_on_the_account_page_are_limited_and_its_other_forms_are_not(tmp_path: Path, valkey: Valkey) -> None:
    made = World(make_settings(tmp_path, "", valkey.url.replace("/0", "/4"), login_rate_limit="6 per minute"))
    client = Client(made.app)
    csrf = client.call("POST", "/session", {"name": "ada", "password": "correct horse"})["csrf"]

    def send(**form: str) -> int:
        return client.http.post("/account", data={"csrf_token": csrf, **form}).status_code

    assert {send(action="token", label="nightly") for _ in range(8)} == {200}
    guesses = [send(action="password", old=f"a guess, number {n}", new="another horse") for n in range(8)]
    assert guesses[0] == 200 and guesses[-1] == 429
    made.close()


def test_every_answer_carries_the_security_headers(sqlite_world: World) -> None:
    for path in ("/api/v1/projects", "/api/v1/openapi.json", "/nowhere"):
        headers = sqlite_world.app.test_client().get(path).headers
        assert "script-src 'self'" in headers["Content-Security-Policy"] and "unsafe" not in headers["Content-Security-Policy"]
        assert "media-src 'self' data: blob: http: https:;" in headers["Content-Security-Policy"], (
            "sounds behind links play as pictures show"
        )
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"


def test_every_call_of_the_openapi_page_needs_somebody(sqlite_world: World) -> None:
    spec = sqlite_world.app.test_client().get("/api/v1/openapi.json").get_json()
    open_calls = {("post", "/api/v1/session"), ("post", "/api/v1/users"), ("post", "/api/v1/tokens"), ("delete", "/api/v1/session")}
    stranger = Client(sqlite_world.app)
    for path, methods in spec["paths"].items():
        for method in methods.keys() & {"get", "post", "put", "patch", "delete"}:
            if (method, path) in open_calls:
                continue
            real = path.removeprefix("/api/v1").replace("{slug}", "birds").replace("{item_id}", "i").replace("{name}", "n")
            real = re.sub(r"\{\w+_id\}", "1", real)
            status = stranger.raw(method.upper(), real, {} if method != "get" else None).status_code
            assert status in (401, 422), (method, path, status)


def test_a_defect_shows_no_traceback(sqlite_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a secret detail")

    monkeypatch.setattr(service, "list_tokens", broken)
    body = sqlite_world.admin.call("GET", "/tokens", None, 500)
    assert body["code"] == "internal" and "secret" not in body["message"]
