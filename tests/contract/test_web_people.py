"""People at work through the API, on SQLite and on PostgreSQL: several opinions an item, known answers, reviews."""

from __future__ import annotations

import collections
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.contract.web_world import Client, World
from webapp.db import items, projects, scores
from webapp.db.items import NewDraft
from webapp.kinds.values import Value
from webapp.people import desk
from webapp.people.settling import Settler


def work(world: World, slug: str, **settings: Any) -> None:
    world.admin.call("PUT", f"/projects/{slug}/work", settings)


def take(client: Client, slug: str, n: int = 1, **more: Any) -> list[dict[str, Any]]:
    return client.call("POST", f"/projects/{slug}/next", {"n": n, **more})["items"]


def labels_of(world: World, slug: str) -> dict[str, tuple[list[str], str]]:
    lines = world.admin.raw("GET", f"/projects/{slug}/export?format=jsonl").get_data(as_text=True).splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["id"]: (row["labels"], row.get("source", "person")) for row in rows}


def say_all(client: Client, slug: str, label: str, n: int = 20) -> list[str]:
    """Answer everything that one person gets."""
    said = []
    while items := take(client, slug, n):
        for item in items:
            client.answer(slug, item, label)
            said.append(item["item_id"])
    return said


def test_three_people_see_each_item_once_and_the_majority_becomes_its_label(world: World) -> None:
    slug = world.project(texts=6)
    work(world, slug, overlap=3)
    bob, cem, dan, eve = (world.person(name, slug) for name in ("bob", "cem", "dan", "eve"))
    assert sorted(say_all(bob, slug, "owl")) == sorted(say_all(cem, slug, "tit")) == [f"i{n}" for n in range(6)]
    assert labels_of(world, slug) == {}
    assert len(set(say_all(dan, slug, "owl"))) == 6
    assert say_all(eve, slug, "jay") == []
    assert labels_of(world, slug) == {f"i{n}": (["owl"], "consensus") for n in range(6)}
    status = world.admin.call("GET", f"/projects/{slug}/status")
    assert (status["labels"], status["outbox"]) == (6, 6)


def test_people_who_come_at_once_never_get_an_item_twice_and_no_item_goes_to_too_many(world: World) -> None:
    slug = world.project(texts=30)
    work(world, slug, overlap=2)
    people = [world.person(f"p{n}", slug) for n in range(5)]
    with ThreadPoolExecutor(5) as pool:
        got = list(pool.map(lambda person: [item["item_id"] for _ in range(4) for item in take(person, slug, 3)], people))
    for person, mine in zip(people, got, strict=True):  # whoever met another's hand on an item got fewer
        mine += [item["item_id"] for item in take(person, slug, 30)]
    assert all(len(set(mine)) == len(mine) for mine in got)
    assert collections.Counter(item for mine in got for item in mine) == {f"i{n}": 2 for n in range(30)}


def test_two_people_who_say_the_last_opinions_at_once_make_one_label(world: World) -> None:
    slug = world.project(texts=1)
    work(world, slug, overlap=3)
    people = [world.person(f"p{n}", slug) for n in range(3)]
    held = [take(person, slug)[0] for person in people]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda pair: pair[0].answer(slug, pair[1], "jay"), zip(people, held, strict=True)))
    history = world.admin.call("GET", f"/projects/{slug}/items/i0")["history"]
    assert [(one["revision"], one["labels"], one["source"]) for one in history] == [(1, ["jay"], "consensus")]


def test_a_tie_waits_for_a_reviewer_who_sees_who_said_what(world: World) -> None:
    slug = world.project(texts=1)
    work(world, slug, overlap=2)
    bob, cem, rita = (world.person(*one) for one in (("bob", slug), ("cem", slug), ("rita", slug, "reviewer")))
    for person, label in ((bob, "owl"), (cem, "tit")):
        person.answer(slug, take(person, slug)[0], label)
    assert labels_of(world, slug) == {}
    [asked] = rita.call("POST", f"/projects/{slug}/reviews/next", {"n": 5})["items"]
    assert (asked["reason"], asked["agreement"]) == ("dispute", 0.5)
    assert [(heard["by"], heard["labels"]) for heard in asked["heard"]] == [("bob", ["owl"]), ("cem", ["tit"])]
    body = {"item_id": "i0", "lease": asked["lease"], "action": "correct", "labels": ["jay"]}
    assert rita.call("POST", f"/projects/{slug}/reviews", body)["state"] == "corrected"
    assert labels_of(world, slug) == {"i0": (["jay"], "review")}
    assert "judged meanwhile" in rita.call("POST", f"/projects/{slug}/reviews", body, 409)["message"]
    assert "reviewer has decided" in bob.call("DELETE", f"/projects/{slug}/annotations/i0", status=409)["message"]


def test_an_opinion_taken_back_opens_its_item_again(world: World) -> None:
    slug = world.project(texts=1)
    work(world, slug, overlap=2)
    bob, cem = world.person("bob", slug), world.person("cem", slug)
    for person in (bob, cem):
        person.answer(slug, take(person, slug)[0], "owl")
    undone = cem.call("DELETE", f"/projects/{slug}/annotations/i0")
    assert undone["item"]["item_id"] == "i0" and labels_of(world, slug) == {}
    assert world.admin.call("GET", f"/projects/{slug}/status")["labels"] == 0
    cem.answer(slug, undone["item"], "owl")
    assert labels_of(world, slug) == {"i0": (["owl"], "consensus")}


def test_a_stale_lease_a_repeat_and_somebody_elses_lease_change_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    slug = world.project(texts=1)
    work(world, slug, overlap=2)
    bob, cem, dan = (world.person(name, slug) for name in ("bob", "cem", "dan"))
    [mine] = take(bob, slug)
    assert "somebody else's" in cem.answer(slug, mine, "owl", 409)["message"]
    first = bob.answer(slug, mine, "owl", key="k")["saved"]
    assert bob.answer(slug, mine, "owl", key="k")["saved"] == {**first, "is_repeat": True}
    assert "answered before" in bob.answer(slug, mine, "tit", 409)["message"]
    [late] = take(cem, slug)
    later = time.time() + world.settings.web.lease_s + 1
    monkeypatch.setattr(time, "time", lambda: later)
    [again] = take(dan, slug)
    assert "went on to somebody else" in cem.answer(slug, late, "owl", 409)["message"]
    dan.answer(slug, again, "owl")
    assert labels_of(world, slug) == {"i0": (["owl"], "consensus")}


def test_two_tabs_of_one_person_make_one_opinion(world: World) -> None:
    slug = world.project(texts=1)
    work(world, slug, overlap=2)
    bob = world.person("bob", slug)
    [first] = take(bob, slug)
    assert take(bob, slug) == []
    [second] = take(bob, slug, holding=[])
    assert second["item_id"] == first["item_id"] and second["lease"] != first["lease"]
    assert bob.answer(slug, first, "owl", 409)["code"] == "conflict"
    bob.answer(slug, second, "owl")
    assert take(bob, slug, holding=[]) == []


def test_who_leaves_gives_back_what_they_had_and_their_opinions_stay(world: World) -> None:
    slug = world.project(texts=2)
    work(world, slug, overlap=2)
    bob, cem, dan = (world.person(name, slug) for name in ("bob", "cem", "dan"))
    [one, two] = take(bob, slug, 2)
    bob.answer(slug, one, "owl")
    world.admin.call("DELETE", f"/projects/{slug}/members/bob", status=204)
    assert bob.answer(slug, two, "owl", 404)["code"] == "not_found"
    assert len(say_all(cem, slug, "owl")) == 2
    assert say_all(dan, slug, "owl") == [two["item_id"]]
    assert set(labels_of(world, slug)) == {one["item_id"], two["item_id"]}


def test_a_blind_second_pass_shows_no_draft_and_a_difference_goes_to_a_reviewer(world: World) -> None:
    slug = world.project(texts=2)
    work(world, slug, blind_share=1.0)
    bob, cem = world.person("bob", slug), world.person("cem", slug)
    first = say_all(bob, slug, "owl")
    assert sorted(first) == ["i0", "i1"] and labels_of(world, slug) == {i: (["owl"], "person") for i in first}
    [same, other] = take(cem, slug, 5)
    assert same["draft"] is None
    cem.answer(slug, same, "owl")
    cem.answer(slug, other, "jay")
    assert world.admin.call("GET", f"/projects/{slug}/reviews")["waiting"] == {"dispute": 1}
    assert labels_of(world, slug)[other["item_id"]] == (["owl"], "person")


def test_fixed_shares_with_an_overlap_give_each_item_to_its_own_people_evenly(world: World) -> None:
    slug = world.project(texts=24)
    names = ("bob", "cem", "dan", "eve")
    people = {name: world.person(name, slug) for name in names}
    work(world, slug, overlap=2, assignment="shares")
    first = {name: {item["item_id"] for item in take(people[name], slug, 3)} for name in names}
    assert all(len(mine) == 3 for mine in first.values())
    got = {name: say_all(people[name], slug, "owl") + sorted(first[name]) for name in ("dan", "bob", "eve", "cem")}
    counts = [sum(f"i{n}" in mine for mine in got.values()) for n in range(24)]
    assert counts == [2] * 24 and [len(set(mine)) for mine in got.values()] == [12] * 4
    assert [len(mine) for mine in got.values()] == [12] * 4
    pairs = {tuple(sorted(name for name in names if f"i{n}" in got[name])) for n in range(24)}
    assert len(pairs) == 6  # everybody shares items with everybody


def test_the_items_of_who_leaves_go_to_people_who_have_not_seen_them(world: World) -> None:
    slug = world.project(texts=12)
    people = {name: world.person(name, slug) for name in ("bob", "cem", "dan")}
    work(world, slug, overlap=2, assignment="shares")
    mine = say_all(people["bob"], slug, "owl")
    assert len(mine) == 8
    world.admin.call("DELETE", f"/projects/{slug}/members/bob", status=204)
    said = {name: say_all(people[name], slug, "owl") for name in ("cem", "dan")}
    counts = [[f"i{n}" in got for got in (mine, *said.values())].count(True) for n in range(12)]
    assert counts == [2] * 12 and len(labels_of(world, slug)) == 12


def test_items_of_known_answer_look_like_all_others_and_who_is_wrong_gets_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "_random", random.Random(1))  # else all ordinary items may come first
    slug = world.project(texts=12)
    for item in take(world.admin, slug, 6):
        world.admin.answer(slug, item, "owl")
    known = [f"i{n}" for n in range(6)]
    assert world.admin.call("POST", f"/projects/{slug}/gold", {"item_ids": [*known, "i9"]}) == {"changed": 6, "total": 6}
    work(world, slug, gold_share=0.5, least_gold=0.8, gold_judged_from=2)
    bob = world.person("bob", slug)
    fields, seen = set(), []
    while items := take(bob, slug, 1):
        fields.add(tuple(sorted(items[0])))
        saved = bob.answer(slug, items[0], "tit")["saved"]
        assert (saved["revision"], saved["is_repeat"]) == (1, False)
        seen.append(items[0]["item_id"])
    assert len(fields) == 1 and len(set(seen) & set(known)) == 2
    said = bob.call("POST", f"/projects/{slug}/next", {"n": 1})
    assert "0 of 2 answers" in said["reason"] and "80%" in said["reason"]
    assert labels_of(world, slug)["i0"] == (["owl"], "person")
    assert bob.call("GET", f"/projects/{slug}/export", status=403)["code"] == "forbidden"
    assert bob.call("GET", f"/projects/{slug}/items/i0")["history"] == []


def test_a_returned_label_comes_first_with_its_comment_and_goes_back_to_the_reviewer(world: World) -> None:
    slug = world.project(texts=4)
    work(world, slug, review="all")
    bob, rita = world.person("bob", slug), world.person("rita", slug, "reviewer")
    [first, _] = take(bob, slug, 2)
    bob.answer(slug, first, "owl")
    [asked] = rita.call("POST", f"/projects/{slug}/reviews/next", {"n": 5})["items"]
    assert (asked["author"], asked["labels"], asked["reason"]) == ("bob", ["owl"], "all")
    body = {"item_id": asked["item_id"], "lease": asked["lease"], "action": "return", "comment": " "}
    assert "comment" in rita.call("POST", f"/projects/{slug}/reviews", body, 422)["message"]
    rita.call("POST", f"/projects/{slug}/reviews", body | {"comment": "look at the beak"})
    work(world, slug, review="disputes")
    [back] = take(bob, slug, 1)
    assert back["item_id"] == asked["item_id"]
    assert back["returned"] == {"comment": "look at the beak", "by": "rita", "labels": ["owl"]}
    bob.answer(slug, back, "jay")
    assert labels_of(world, slug) == {asked["item_id"]: (["jay"], "person")}
    [again] = rita.call("POST", f"/projects/{slug}/reviews/next", {"n": 5})["items"]
    assert (again["reason"], again["labels"], [step["action"] for step in again["steps"]]) == ("returned", ["jay"], ["return"])
    rita.call("POST", f"/projects/{slug}/reviews", {"item_id": again["item_id"], "lease": again["lease"], "action": "accept"})
    assert rita.call("POST", f"/projects/{slug}/reviews/next", {"n": 5})["items"] == []


def returned(rita: Client, slug: str, comment: str) -> dict[str, Any]:
    """Let a reviewer return the next label that waits; return what was asked about it."""
    [asked] = rita.call("POST", f"/projects/{slug}/reviews/next", {"n": 5})["items"]
    body = {"item_id": asked["item_id"], "lease": asked["lease"], "action": "return", "comment": comment}
    assert rita.call("POST", f"/projects/{slug}/reviews", body)["state"] == "returned"
    return asked


def test_a_dispute_is_returned_to_all_who_differ_until_they_agree(world: World) -> None:
    slug = world.project(texts=3)
    work(world, slug, overlap=2)
    bob, cem, rita = (world.person(*one) for one in (("bob", slug), ("cem", slug), ("rita", slug, "reviewer")))
    for person, label in ((bob, "owl"), (cem, "tit")):
        person.answer(slug, take(person, slug)[0], label)
    returned(rita, slug, "look at the beak")
    for person, said in ((bob, "owl"), (cem, "tit")):
        [back] = take(person, slug)
        assert (back["item_id"], back["returned"]) == ("i0", {"comment": "look at the beak", "by": "rita", "labels": [said]})
        assert labels_of(world, slug) == {} and rita.call("GET", f"/projects/{slug}/reviews")["waiting"] == {"back": 1}
        person.answer(slug, back, said)
    asked = returned(rita, slug, "the beak, please")
    assert (asked["reason"], [step["action"] for step in asked["steps"]]) == ("dispute", ["return"])
    for person in (bob, cem):
        [back] = take(person, slug)
        assert back["returned"]["comment"] == "the beak, please"
        person.answer(slug, back, "jay")
    assert labels_of(world, slug) == {"i0": (["jay"], "consensus")}
    assert rita.call("GET", f"/projects/{slug}/reviews")["waiting"] == {}


def test_a_returned_dispute_of_somebody_who_leaves_goes_to_somebody_else(world: World) -> None:
    slug = world.project(texts=1)
    work(world, slug, overlap=2)
    bob, cem, rita = (world.person(*one) for one in (("bob", slug), ("cem", slug), ("rita", slug, "reviewer")))
    for person, label in ((bob, "owl"), (cem, "tit")):
        person.answer(slug, take(person, slug)[0], label)
    returned(rita, slug, "look at the beak")
    world.admin.call("DELETE", f"/projects/{slug}/members/cem", status=204)
    dan = world.person("dan", slug)
    bob.answer(slug, take(bob, slug)[0], "owl")
    dan.answer(slug, take(dan, slug)[0], "owl")
    assert labels_of(world, slug) == {"i0": (["owl"], "consensus")}


def test_a_label_may_be_returned_again_and_its_author_sees_the_newest_comment_and_all_they_had_said(world: World) -> None:
    slug = world.project("boxes", category="object-detection", kind="boxes")
    world.admin.call("POST", f"/projects/{slug}/items", {"items": [{"id": "i0", "link": "https://example.org/0.jpg"}]})
    work(world, slug, review="all")
    bob, rita = world.person("bob", slug), world.person("rita", slug, "reviewer")
    for width, comment in ((0.5, ""), (0.4, "too wide"), (0.3, "still too wide")):
        [item] = take(bob, slug)
        if comment:
            assert item["returned"]["comment"] == comment
            assert item["returned"]["marks"][0]["where"] == [0.1, 0.1, round(width + 0.1, 1), 0.4]
        box = {"id": "a", "label": "owl", "shape": "box", "where": [0.1, 0.1, width, 0.4]}
        body = {"item_id": "i0", "lease": item["lease"], "marks": [box]}
        bob.call("POST", f"/projects/{slug}/annotations", body)
        if width > 0.3:
            returned(rita, slug, "too wide" if not comment else "still too wide")
    [asked] = rita.call("POST", f"/projects/{slug}/reviews/next", {"n": 5})["items"]
    assert [step["marks"][0]["where"][2] for step in asked["steps"]] == [0.5, 0.4]
    right = {"id": "a", "label": "tit", "shape": "box", "where": [0.1, 0.1, 0.2, 0.4]}
    body = {"item_id": "i0", "lease": asked["lease"], "action": "correct", "marks": [right]}
    assert rita.call("POST", f"/projects/{slug}/reviews", body)["state"] == "corrected"
    assert world.admin.call("GET", f"/projects/{slug}/items/i0")["history"][-1]["marks"] == [right]


def test_a_reviewer_judges_no_label_of_their_own_and_two_reviewers_get_different_ones(world: World) -> None:
    slug = world.project(texts=2)
    work(world, slug, review="all")
    rita, ruth = world.person("rita", slug, "reviewer"), world.person("ruth", slug, "reviewer")
    say_all(rita, slug, "owl")
    assert rita.call("POST", f"/projects/{slug}/reviews/next", {"n": 5})["items"] == []
    [one] = ruth.call("POST", f"/projects/{slug}/reviews/next", {"n": 1})["items"]
    [two] = world.admin.call("POST", f"/projects/{slug}/reviews/next", {"n": 5})["items"]
    assert one["item_id"] != two["item_id"]
    body = {"item_id": one["item_id"], "lease": one["lease"], "action": "accept"}
    assert "another reviewer" in world.admin.call("POST", f"/projects/{slug}/reviews", body, 409)["message"]
    assert ruth.call("POST", f"/projects/{slug}/reviews", body)["state"] == "accepted"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"overlap": 0}, "overlap 0"),
        ({"gold_share": 0.9}, "gold_share 0.9"),
        ({"review": "never"}, "review"),
        ({"blind_share": 1.5}, "blind_share 1.5"),
        ({"gold_judged_from": 0}, "gold_judged_from 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(world: World, settings: dict[str, Any], named: str) -> None:
    slug = world.project(texts=1)
    assert named in world.admin.call("PUT", f"/projects/{slug}/work", settings, 422)["message"]


def test_quality_tells_how_far_people_agree_and_who_is_right(world: World) -> None:
    slug = world.project(texts=4)
    work(world, slug, overlap=3)
    bob, cem, dan = (world.person(name, slug) for name in ("bob", "cem", "dan"))
    for person, said in ((bob, "owl"), (cem, "owl"), (dan, "tit")):
        for item in take(person, slug, 5):
            label = said if item["item_id"] != "i3" else "jay"
            person.answer(slug, item, label, seconds=2.0)
    found = world.admin.call("GET", f"/projects/{slug}/quality")
    assert (found["agreement"]["items"], found["agreement"]["share"]) == (4, 0.5)
    assert found["agreement"]["alpha"] == pytest.approx(1 - (1 - 6 / 12) / (1 - (6 * 5 + 3 * 2 + 3 * 2) / (12 * 11)), abs=1e-4)
    assert [(one["label"], one["alpha"]) for one in found["agreement"]["by_class"]][2] == ("jay", 1.0)
    pairs = {(one["a"], one["b"]): (one["items"], one["share"]) for one in found["agreement"]["pairs"]}
    assert pairs == {("bob", "cem"): (4, 1.0), ("bob", "dan"): (4, 0.25), ("cem", "dan"): (4, 0.25)}
    people = {one["name"]: (one["labels"], one["agreed"], one["decided"], one["seconds"]) for one in found["people"]}
    assert people == {"bob": (4, 4, 4, 2.0), "cem": (4, 4, 4, 2.0), "dan": (4, 1, 4, 2.0)}
    page = world.admin.call("GET", f"/projects/{slug}/differences?between=people&limit=2")
    more = world.admin.call("GET", f"/projects/{slug}/differences?between=people&limit=2&after={page['after']}")
    assert [line["item_id"] for line in page["items"] + more["items"]] == ["i0", "i1", "i2"] and more["after"] is None
    assert page["items"][0]["heard"][2] == {"by": "dan", "labels": ["tit"]}


def test_a_label_that_differs_from_the_models_draft_is_listed_and_can_be_opened(world: World) -> None:
    slug = world.project(texts=3)
    with world.database.write() as tx:
        project = projects.find_project(tx, slug)
        known = items.items_by_id(tx, project.id, ["i0", "i1", "i2"])
        scores.save_head(
            tx, project.id, 1, [(known[f"i{n}"].number, NewDraft(Value(("owl",)), "v1", 0.5 + 0.2 * n)) for n in range(3)]
        )
    bob = world.person("bob", slug)
    for item, label in zip(take(bob, slug, 3), ("tit", "owl", "jay"), strict=True):
        bob.answer(slug, item, label)
    page = world.admin.call("GET", f"/projects/{slug}/differences?between=model")
    assert [(line["item_id"], line["labels"], line["by"]) for line in page["items"]] == [
        ("i0", ["tit"], "bob"),
        ("i2", ["jay"], "bob"),
    ]
    sure = world.admin.call("GET", f"/projects/{slug}/differences?between=model&least_confidence=0.8")
    assert [line["item_id"] for line in sure["items"]] == ["i2"]
    [asked] = world.admin.call("POST", f"/projects/{slug}/reviews/next", {"item_id": "i2"})["items"]
    assert (asked["reason"], asked["author"]) == ("asked", "bob")
    body = {"item_id": "i2", "lease": asked["lease"], "action": "correct", "labels": ["owl"]}
    world.admin.call("POST", f"/projects/{slug}/reviews", body)
    assert labels_of(world, slug)["i2"] == (["owl"], "review")
    assert world.admin.call("POST", f"/projects/{slug}/reviews/next", {"item_id": "nothing"}, 404)["code"] == "not_found"


def test_a_learned_consensus_weighs_people_by_how_often_they_are_right(world: World) -> None:
    slug = world.project(texts=24)
    work(world, slug, overlap=3, consensus="dawid-skene")
    people = [world.person(name, slug) for name in ("bob", "cem", "dan")]
    truth = {f"i{n}": ["owl", "tit", "jay"][n % 3] for n in range(24)}
    for at, person in enumerate(people):
        for item in take(person, slug, 24):
            wrong = at == 2 and item["item_id"] != "i0"  # dan says owl of everything
            person.answer(slug, item, "owl" if wrong else truth[item["item_id"]])
    assert labels_of(world, slug) == {}
    assert Settler(world.database).cycle() == 24
    assert {item: labels[0] for item, (labels, _) in labels_of(world, slug).items()} == truth
    assert Settler(world.database).cycle() == 0


def test_a_fixed_share_is_ones_own_until_one_leaves(world: World) -> None:
    slug = world.project(texts=12)
    bob, cem = world.person("bob", slug), world.person("cem", slug)
    work(world, slug, assignment="shares")
    mine = say_all(bob, slug, "owl")
    assert 0 < len(mine) < 12 and take(bob, slug, 5) == []
    [held] = take(cem, slug)
    assert held["item_id"] not in mine
    world.admin.call("DELETE", f"/projects/{slug}/members/cem", status=204)
    assert len(mine) + len(say_all(bob, slug, "owl")) == 12
