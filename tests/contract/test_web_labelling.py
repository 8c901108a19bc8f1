"""The labelling path through the API, on SQLite and on PostgreSQL, with a real Valkey."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.contract.web_world import Client, Valkey, World
from webapp.labelling import order


def take(client: Client, slug: str, n: int = 1, **more: Any) -> list[dict[str, Any]]:
    return client.call("POST", f"/projects/{slug}/next", {"n": n, **more})["items"]


def test_a_label_is_saved_counted_and_exported(world: World) -> None:
    slug = world.project(texts=3)
    [item] = take(world.admin, slug)
    assert item["text"] == "text number 0" and item["draft"] is None
    answered = world.admin.answer(slug, item, "owl", next=1, seconds=1.5, key="k1")
    assert answered["saved"]["revision"] == 1
    assert [i["item_id"] for i in answered["items"]] == ["i1"]
    status = world.admin.call("GET", f"/projects/{slug}/status")
    assert (status["items"], status["labels"], status["outbox"]) == (3, 1, 1)
    lines = world.admin.raw("GET", f"/projects/{slug}/export?format=jsonl").get_data(as_text=True).splitlines()
    assert len(lines) == 1 and '"labels":["owl"]' in lines[0]


def test_the_same_answer_again_is_the_same_answer_and_another_one_is_a_conflict(world: World) -> None:
    slug = world.project(texts=2)
    [item] = take(world.admin, slug)
    first = world.admin.answer(slug, item, "owl", key="k1")
    again = world.admin.answer(slug, item, "owl", key="k1")
    assert again["saved"] == {**first["saved"], "is_repeat": True}
    assert world.admin.answer(slug, item, "tit", 409, key="k1")["code"] == "conflict"
    assert world.admin.answer(slug, item, "tit", 409, key="k2")["code"] == "conflict"
    assert world.admin.call("GET", f"/projects/{slug}/status")["labels"] == 1


def test_a_label_that_is_not_in_the_project_is_refused_by_name(world: World) -> None:
    slug = world.project(texts=1)
    [item] = take(world.admin, slug)
    said = world.admin.answer(slug, item, "penguin", 422)
    assert "'penguin'" in said["message"] and "owl, tit, jay" in said["message"] and said["way_out"]
    world.admin.answer(slug, item, "owl")


def test_two_labels_in_a_project_that_takes_one_are_refused(world: World) -> None:
    slug = world.project(texts=1)
    [item] = take(world.admin, slug)
    body = {"item_id": item["item_id"], "lease": item["lease"], "labels": ["owl", "tit"]}
    assert "exactly one" in world.admin.call("POST", f"/projects/{slug}/annotations", body, 422)["message"]


def test_an_item_is_in_one_pair_of_hands_at_a_time(world: World) -> None:
    slug = world.project(texts=60)
    people = [world.person(f"p{n}", slug) for n in range(6)]
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda person: [take(person, slug, 5) for _ in range(2)], people))
    leased = [item["item_id"] for batches in got for batch in batches for item in batch]
    assert len(leased) == len(set(leased)) == 60


def test_an_expired_lease_goes_to_another_and_the_late_answer_is_told_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    slug = world.project(texts=1)
    bob = world.person("bob", slug)
    [item] = take(world.admin, slug)
    assert take(bob, slug) == []
    later = time.time() + world.settings.web.lease_s + 1
    monkeypatch.setattr(time, "time", lambda: later)
    [again] = take(bob, slug)
    assert again["item_id"] == item["item_id"] and again["lease"] != item["lease"]
    said = world.admin.answer(slug, item, "owl", 409)
    assert "somebody else" in said["message"]
    bob.answer(slug, again, "tit")


def test_an_expired_lease_that_nobody_took_is_still_good(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    slug = world.project(texts=1)
    [item] = take(world.admin, slug)
    later = time.time() + world.settings.web.lease_s + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert world.admin.answer(slug, item, "owl")["saved"]["revision"] == 1


def test_undo_brings_the_item_back_under_a_new_lease_with_a_higher_revision(world: World) -> None:
    slug = world.project(texts=2)
    [item] = take(world.admin, slug)
    world.admin.answer(slug, item, "owl")
    undone = world.admin.call("DELETE", f"/projects/{slug}/annotations/{item['item_id']}")
    assert undone["saved"]["revision"] == 2 and undone["item"]["item_id"] == item["item_id"]
    assert world.admin.call("GET", f"/projects/{slug}/status")["labels"] == 0
    assert world.admin.call("DELETE", f"/projects/{slug}/annotations/{item['item_id']}", None, 409)["code"] == "conflict"
    assert world.admin.answer(slug, undone["item"], "tit")["saved"]["revision"] == 3
    history = world.admin.call("GET", f"/projects/{slug}/items/{item['item_id']}")["history"]
    assert [(h["revision"], h["labels"], h["is_deleted"]) for h in history] == [
        (1, ["owl"], False),
        (2, [], True),
        (3, ["tit"], False),
    ]


def test_only_an_owner_undoes_what_somebody_else_labelled(world: World) -> None:
    slug = world.project(texts=1)
    bob, eve = world.person("bob", slug), world.person("eve", slug)
    [item] = take(bob, slug)
    bob.answer(slug, item, "owl")
    assert eve.call("DELETE", f"/projects/{slug}/annotations/{item['item_id']}", None, 409)["code"] == "conflict"
    world.admin.call("DELETE", f"/projects/{slug}/annotations/{item['item_id']}")


def test_a_skipped_item_goes_to_the_next_person(world: World) -> None:
    slug = world.project(texts=1)
    bob = world.person("bob", slug)
    [item] = take(world.admin, slug)
    world.admin.call("POST", f"/projects/{slug}/skip", {"lease": item["lease"], "item_id": item["item_id"]}, 204)
    assert [i["item_id"] for i in take(bob, slug)] == [item["item_id"]]


def test_a_reloaded_page_gets_its_own_items_back(world: World) -> None:
    slug = world.project(texts=5)
    first = take(world.admin, slug, 2)
    again = take(world.admin, slug, 3, holding=[])
    assert [i["item_id"] for i in again] == ["i0", "i1", "i2"]
    assert first[0]["lease"] != again[0]["lease"]
    assert [i["item_id"] for i in take(world.admin, slug, 1, holding=["i0", "i1", "i2"])] == ["i3"]


def test_a_correction_without_a_lease_is_a_new_revision(world: World) -> None:
    slug = world.project(texts=1)
    [item] = take(world.admin, slug)
    world.admin.answer(slug, item, "owl")
    body = {"item_id": item["item_id"], "labels": ["jay"]}
    assert world.admin.call("POST", f"/projects/{slug}/annotations", body)["saved"]["revision"] == 2
    assert world.admin.call("GET", f"/projects/{slug}/status")["labels"] == 1


def test_labelling_stops_at_the_budget_and_in_a_paused_project_and_says_why(world: World) -> None:
    slug = world.project(texts=3, budget=1)
    [item] = take(world.admin, slug)
    world.admin.answer(slug, item, "owl")
    assert "budget of 1" in world.admin.call("POST", f"/projects/{slug}/next", {})["reason"]
    assert "budget of 1" in world.admin.call("GET", f"/projects/{slug}/status")["stop"]
    world.admin.call("PATCH", f"/projects/{slug}", {"budget": 0, "is_paused": True})
    assert "paused" in world.admin.call("POST", f"/projects/{slug}/next", {})["reason"]


def test_the_queue_is_used_once_built_and_an_emptied_one_is_built_again(world: World, valkey: Valkey) -> None:
    slug = world.project(texts=20)
    project = world.rooms.database
    number = 1
    assert take(world.admin, slug)[0]["item_id"] == "i0"  # by position: there was no queue
    world.rooms.background.submit(lambda: None).result()
    queue = world.rooms.queue
    assert queue.is_built(number)
    queue.swap(number, "test", [("i9", 2.0), ("i5", 1.0)])
    assert [i["item_id"] for i in take(world.admin, slug, 2)] == ["i9", "i5"]
    import redis

    client = redis.Redis.from_url(valkey.url)
    client.flushall()
    client.close()
    assert not queue.is_built(number)
    assert [i["item_id"] for i in take(world.admin, slug, 2)] == ["i1", "i2"]
    world.rooms.background.submit(lambda: None).result()
    assert queue.is_built(number) and queue.size(number) == 20 - 5
    assert order.rebuild(project, queue, number) == 20


def test_labels_go_on_without_valkey(world: World, valkey: Valkey) -> None:
    slug = world.project(texts=4)
    valkey.stop()
    try:
        items = take(world.admin, slug, 2)
        assert [i["item_id"] for i in items] == ["i0", "i1"]
        assert [i["item_id"] for i in world.admin.answer(slug, items[0], "owl", next=1)["items"]] == ["i2"]
    finally:
        valkey.start()
