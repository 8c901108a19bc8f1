"""What several people, reviewers and known answers said under names that labels had before a rename or a merge."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.contract.projects_world import Shop, shop
from tests.contract.web_world import Client
from webapp.people import desk
from webapp.people.settling import Settler

__all__ = ["shop"]


def take(client: Client, slug: str, n: int = 1) -> list[dict[str, Any]]:
    return client.call("POST", f"/projects/{slug}/next", {"n": n})["items"]


def ask(client: Client, slug: str) -> dict[str, Any]:
    [asked] = client.call("POST", f"/projects/{slug}/reviews/next", {"n": 5})["items"]
    return asked


def differ(shop: Shop, slug: str, **settings: Any) -> tuple[Client, ...]:
    """Let bob say owl and cem say tit of every item."""
    shop.admin.call("PUT", f"/projects/{slug}/work", {"overlap": 2, **settings})
    people = tuple(shop.world.person(name, slug) for name in ("bob", "cem"))
    for person, label in zip(people, ("owl", "tit"), strict=True):
        for item in take(person, slug, 5):
            person.answer(slug, item, label)
    return people


def test_reviewers_see_opinions_and_their_own_steps_under_todays_names(shop: Shop) -> None:
    slug = shop.world.project(texts=1)
    differ(shop, slug)
    shop.change(slug, "rename", {"label": "owl", "name": "barn owl"})
    asked = ask(shop.admin, slug)
    assert [one["labels"] for one in asked["heard"]] == [["barn owl"], ["tit"]] and asked["labels"] == ["barn owl"]
    body = {"item_id": "i0", "lease": asked["lease"], "action": "accept"}
    shop.admin.call("POST", f"/projects/{slug}/reviews", body)
    assert shop.history(slug, "i0")[-1]["labels"] == ["barn owl"]
    shop.work()
    shop.change(slug, "rename", {"label": "barn owl", "name": "tyto"})
    [again] = shop.admin.call("POST", f"/projects/{slug}/reviews/next", {"item_id": "i0"})["items"]
    assert ([step["labels"] for step in again["steps"]], again["labels"]) == ([["tyto"]], ["tyto"])


def test_people_who_said_what_is_one_label_now_agree(shop: Shop) -> None:
    slug = shop.world.project(texts=3)
    differ(shop, slug)
    before = shop.admin.call("GET", f"/projects/{slug}/quality")["agreement"]
    shop.change(slug, "merge", {"labels": ["tit"], "into": "owl"})
    after = shop.admin.call("GET", f"/projects/{slug}/quality")["agreement"]
    assert (before["share"], after["share"], after["items"]) == (0.0, 1.0, 3)
    heard = shop.admin.call("GET", f"/projects/{slug}/differences?between=people")["items"][0]["heard"]
    assert [one["labels"] for one in heard] == [["owl"], ["owl"]]


@pytest.mark.parametrize("consensus", ["majority", "one-coin"])
def test_opinions_from_before_and_after_a_rename_become_one_label(shop: Shop, consensus: str) -> None:
    slug = shop.world.project(texts=2)
    shop.admin.call("PUT", f"/projects/{slug}/work", {"overlap": 2, "consensus": consensus})
    bob, cem = (shop.world.person(name, slug) for name in ("bob", "cem"))
    for item in take(bob, slug, 2):
        bob.answer(slug, item, "owl")
    shop.change(slug, "rename", {"label": "owl", "name": "barn owl"})
    for item in take(cem, slug, 2):
        cem.answer(slug, item, "barn owl")
    Settler(shop.world.database).cycle()
    assert [one["labels"] for one in shop.history(slug, "i0")] == [["barn owl"]]


def test_a_known_answer_is_right_under_its_new_name_and_a_repeat_stays_a_repeat(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "_random", random.Random(1))  # else the other item may come first, and nothing after it
    slug = shop.world.project(texts=2)
    shop.label(slug, i0="owl")
    shop.admin.call("POST", f"/projects/{slug}/gold", {"item_ids": ["i0"]})
    shop.admin.call("PUT", f"/projects/{slug}/work", {"gold_share": 0.5})
    bob = shop.world.person("bob", slug)
    seen: dict[str, Any] = {}
    while "i0" not in seen:
        [item] = take(bob, slug)
        seen[item["item_id"]] = item
    shop.change(slug, "rename", {"label": "owl", "name": "barn owl"})
    bob.answer(slug, seen["i0"], "barn owl", key="k")
    shop.work()
    shop.change(slug, "rename", {"label": "barn owl", "name": "tyto"})
    assert bob.answer(slug, seen["i0"], "tyto", key="k")["saved"]["is_repeat"]
    assert shop.admin.call("GET", f"/projects/{slug}/gold")["items"] == [{"item_id": "i0", "labels": ["tyto"]}]
    people = {one["name"]: one for one in shop.admin.call("GET", f"/projects/{slug}/quality")["people"]}
    assert (people["bob"]["gold"], people["bob"]["gold_right"]) == (1, 1)


def mark(label: str, **more: Any) -> dict[str, Any]:
    return {"id": "a", "label": label, "shape": "box", "where": [0.1, 0.1, 0.4, 0.4], **more}


def box_project(shop: Shop) -> str:
    slug = shop.world.project("boxes", category="object-detection", kind="boxes", labels=["owl", "tit", "jay"])
    shop.admin.call("POST", f"/projects/{slug}/items", {"items": [{"id": "i0", "link": "https://example.org/0.jpg"}]})
    return slug


def test_marks_of_people_are_matched_under_todays_names(shop: Shop) -> None:
    slug = box_project(shop)
    shop.admin.call("PUT", f"/projects/{slug}/work", {"overlap": 2})
    bob, cem = (shop.world.person(name, slug) for name in ("bob", "cem"))
    for person, label in ((bob, "owl"), (cem, "tyto")):
        [item] = take(person, slug)
        body = {"item_id": "i0", "lease": item["lease"], "marks": [mark(label)]}
        person.call("POST", f"/projects/{slug}/annotations", body)
        if person is bob:
            shop.change(slug, "rename", {"label": "owl", "name": "tyto"})
    [label] = shop.history(slug, "i0")
    assert ([one["label"] for one in label["marks"]], label["source"]) == (["tyto"], "consensus")
    assert shop.admin.call("GET", f"/projects/{slug}/quality")["agreement"]["f1"] == 1.0
