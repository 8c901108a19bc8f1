"""Registration, invitations and links for a new password, through the API."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.contract.web_world import Client, Valkey, World, make_settings

ENTRY = {"name": "eve", "password": "correct horse"}


@pytest.fixture
def worlds(tmp_path: Path, valkey: Valkey) -> Iterator[Any]:
    made: list[World] = []

    def make(registration: str) -> World:
        made.append(World(make_settings(tmp_path, "", valkey.url, registration=registration)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize(
    ("registration", "status", "sentence"),
    [("closed", 403, "only an admin may add people"), ("invitation", 403, "an invitation is needed")],
)
def test_a_stranger_registers_only_where_it_is_open(worlds: Any, registration: str, status: int, sentence: str) -> None:
    refused = Client(worlds(registration).app).call("POST", "/registration", ENTRY, status)
    assert sentence in refused["message"]


def test_where_registration_is_open_a_stranger_becomes_a_plain_person(worlds: Any) -> None:
    world = worlds("open")
    made = Client(world.app).call("POST", "/registration", ENTRY, 201)
    assert (made["name"], made["is_admin"]) == ("eve", False)
    assert world.enter("eve", "correct horse").call("GET", "/projects")["projects"] == []


def test_an_owners_invitation_leads_into_the_project_with_its_role_as_often_as_it_says(world: World) -> None:
    slug = world.project(texts=1)
    bob = world.person("bob", slug)
    bob.call("POST", f"/projects/{slug}/invitations", {}, 403)
    made = world.admin.call("POST", f"/projects/{slug}/invitations", {"role": "annotator", "uses": 2}, 201)
    assert made["url"].endswith(f"/register#{made['code']}") and made["project"] == slug
    for name in ("eve", "kim"):
        Client(world.app).call("POST", "/registration", {**ENTRY, "name": name, "code": made["code"]}, 201)
        assert world.enter(name, "correct horse").call("GET", f"/projects/{slug}")["role"] == "annotator"
    spent = Client(world.app).call("POST", "/registration", {**ENTRY, "name": "late", "code": made["code"]}, 401)
    assert "not good any more" in spent["message"]
    assert world.admin.call("GET", f"/projects/{slug}/invitations")["invitations"] == []
    told = [event["text"] for event in world.admin.call("GET", f"/projects/{slug}/events")["events"]]
    assert "eve came in as annotator, invited by ada" in told


def test_the_last_use_of_an_invitation_goes_to_one_of_many_and_a_taken_name_costs_no_use(world: World) -> None:
    code = world.admin.call("POST", "/invitations", {}, 201)["code"]
    Client(world.app).call("POST", "/registration", {**ENTRY, "name": "ada", "code": code}, 409)
    with ThreadPoolExecutor(4) as pool:
        bodies = [{**ENTRY, "name": f"u{n}", "code": code} for n in range(4)]
        codes = list(pool.map(lambda body: Client(world.app).raw("POST", "/registration", body).status_code, bodies))
    assert sorted(codes) == [201, 401, 401, 401]


def test_somebody_with_an_account_takes_an_invitation_and_an_owner_stays_owner(world: World) -> None:
    slug = world.project(texts=1)
    code = world.admin.call("POST", f"/projects/{slug}/invitations", {"uses": 5}, 201)["code"]
    eve = world.person("eve")
    eve.call("GET", f"/projects/{slug}", None, 404)
    assert eve.call("POST", "/invitations/accept", {"code": code}) == {"project": slug}
    eve.call("GET", f"/projects/{slug}")
    world.admin.call("POST", "/invitations/accept", {"code": code})
    roles = {one["name"]: one["role"] for one in world.admin.call("GET", f"/projects/{slug}/members")["members"]}
    assert roles == {"ada": "owner", "eve": "annotator"}


def test_an_invitation_that_was_withdrawn_lets_nobody_in_and_is_no_business_of_others(world: World) -> None:
    one, other = world.project(slug="one", texts=1), world.project(slug="two", texts=1)
    bob = world.person("bob")
    world.admin.call("POST", f"/projects/{other}/members", {"name": "bob", "role": "owner"}, 204)
    made = world.admin.call("POST", f"/projects/{one}/invitations", {}, 201)
    bob.call("DELETE", f"/projects/{other}/invitations/{made['id']}", None, 404)
    world.admin.call("DELETE", f"/projects/{one}/invitations/{made['id']}", None, 204)
    Client(world.app).call("POST", "/registration", {**ENTRY, "code": made["code"]}, 401)


def test_where_registration_is_closed_owners_invite_nobody_and_admins_still_do(worlds: Any) -> None:
    world = worlds("closed")
    slug = world.project(texts=1)
    bob = world.person("bob")
    world.admin.call("POST", f"/projects/{slug}/members", {"name": "bob", "role": "owner"}, 204)
    assert "only an admin" in bob.call("POST", f"/projects/{slug}/invitations", {}, 403)["message"]
    code = world.admin.call("POST", f"/projects/{slug}/invitations", {}, 201)["code"]
    Client(world.app).call("POST", "/registration", {**ENTRY, "code": code}, 403)
    assert world.person("kim").call("POST", "/invitations/accept", {"code": code}) == {"project": slug}


@pytest.mark.parametrize("wrong", [{"uses": 0}, {"uses": 1001}, {"days": 0}, {"days": 91}])
def test_an_invitation_without_bounds_is_refused(world: World, wrong: dict[str, int]) -> None:
    assert "use 1 to 1000 people and 1 to 90 days" in world.admin.call("POST", "/invitations", wrong, 422)["message"]


def test_an_admins_link_sets_a_new_password_once_and_ends_all_sessions(world: World) -> None:
    bob = world.person("bob")
    bob.call("POST", "/users/ada/reset", None, 403)
    first = world.admin.call("POST", "/users/bob/reset", None, 201)
    made = world.admin.call("POST", "/users/bob/reset", None, 201)
    there = Client(world.app)
    there.call("POST", "/session", {"name": "bob", "password": "correct horse"})
    change = {"password": "battery staple"}
    Client(world.app).call("POST", "/password/reset", {**change, "code": first["code"]}, 401)
    assert (
        "10 to 256"
        in Client(world.app).call("POST", "/password/reset", {"password": "short", "code": made["code"]}, 422)["message"]
    )
    Client(world.app).call("POST", "/password/reset", {**change, "code": made["code"]}, 200)
    Client(world.app).call("POST", "/password/reset", {**change, "code": made["code"]}, 401)
    there.call("GET", "/session", None, 401)
    world.enter("bob", "battery staple").call("GET", "/session")


def test_codes_are_kept_as_hashes(worlds: Any) -> None:
    world = worlds("invitation")
    codes = [
        world.admin.call("POST", path, {} if "inv" in path else None, 201)["code"] for path in ("/invitations", "/users/ada/reset")
    ]
    folder = Path(world.settings.state_dir)
    stored = (folder / "web.sqlite").read_bytes() + (folder / "web.sqlite-wal").read_bytes()
    assert not any(code.encode() in stored for code in codes)


def test_there_is_always_an_admin_and_every_project_has_an_owner(world: World) -> None:
    slug = world.project(texts=1)
    assert "last admin" in world.admin.call("PATCH", "/users/ada", {"is_admin": False}, 409)["message"]
    assert "last admin" in world.admin.call("PATCH", "/users/ada", {"is_active": False}, 409)["message"]
    world.person("bob", slug)
    assert "no owner" in world.admin.call("POST", f"/projects/{slug}/members", {"name": "ada", "role": "annotator"}, 409)["message"]
    assert "no owner" in world.admin.call("DELETE", f"/projects/{slug}/members/ada", None, 409)["message"]
    world.admin.call("POST", f"/projects/{slug}/members", {"name": "bob", "role": "owner"}, 204)
    world.admin.call("DELETE", f"/projects/{slug}/members/ada", None, 204)
    world.admin.call("PATCH", "/users/bob", {"is_admin": True})
    assert world.admin.call("PATCH", "/users/ada", {"is_admin": False})["is_admin"] is False
    world.admin.call("GET", "/users", None, 403)
