"""Drafts accepted in bulk: what is accepted, the audit that measures the error, cancelled, taken back, of all kinds."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.contract.test_web_people import labels_of, say_all, take
from tests.contract.web_world import World
from webapp.db import items, outbox, projects, scores
from webapp.db.items import NewDraft
from webapp.db.revisions import RULES_NEW
from webapp.kinds.values import Value
from webapp.people.bulk import BulkRunner
from webapp.pilot.relay import sample_of


def drafted(world: World, n: int, sure: Callable[[int], float]) -> str:
    slug = world.project(texts=n)
    with world.database.write() as tx:
        project = projects.find_project(tx, slug)
        known = items.items_by_id(tx, project.id, [f"i{k}" for k in range(n)])
        scores.save_head(tx, project.id, 1, [(known[f"i{k}"].number, NewDraft(Value(("owl",)), "v1", sure(k))) for k in range(n)])
    return slug


def test_sure_drafts_are_accepted_in_bulk_audited_blind_and_taken_back_as_a_whole(world: World) -> None:
    before = world.project("before", texts=1)
    for label in ("owl", "tit"):  # another project's item has more revisions than any here
        world.admin.call("POST", f"/projects/{before}/annotations", {"item_id": "i0", "labels": [label]})
    slug = drafted(world, 12, lambda k: 0.95 if k < 10 else 0.6)
    bob = world.person("bob", slug)
    [mine] = take(bob, slug)
    job = world.admin.call("POST", f"/projects/{slug}/bulk", {"least_confidence": 0.9, "audit": 4}, 202)
    assert "already" in world.admin.call("POST", f"/projects/{slug}/bulk", {"least_confidence": 0.9}, 409)["message"]
    runner = BulkRunner(world.database, threading.Event())
    assert runner.cycle() and not runner.cycle()
    bulk = labels_of(world, slug)
    assert mine["item_id"] not in bulk and list(bulk.values()) == [(["owl"], "bulk")] * 9
    status = world.admin.call("GET", f"/projects/{slug}/status")
    assert (status["labels"], status["outbox"], status["rules_outbox"]) == (9, 0, 9)
    asked = take(bob, slug, 4)
    assert {item["item_id"] for item in asked} <= set(bulk) and [item["draft"] for item in asked] == [None] * 4
    bob.answer(slug, asked[0], "tit")
    for item in asked[1:]:
        bob.answer(slug, item, "owl")
    [found] = world.admin.call("GET", f"/projects/{slug}/bulk")["jobs"]
    error = found["error"]
    assert (found["state"], found["accepted"], error["drawn"], error["looked"], error["wrong"]) == ("done", 9, 4, 4, 1)
    assert error["low"] == pytest.approx(0.0456, abs=1e-3) and error["high"] == pytest.approx(0.6994, abs=1e-3)
    assert labels_of(world, slug)[asked[0]["item_id"]] == (["tit"], "person")
    world.admin.call("POST", f"/projects/{slug}/bulk/undo", {"id": job["id"]}, 202)
    runner.cycle()
    assert labels_of(world, slug) == {asked[0]["item_id"]: (["tit"], "person")}
    assert world.admin.call("GET", f"/projects/{slug}/bulk")["jobs"][0]["withdrawn"] == 8
    assert "undone" in world.admin.call("POST", f"/projects/{slug}/bulk/undo", {"id": job["id"]}, 409)["message"]
    assert len(say_all(bob, slug, "jay")) == 10  # all but the one that was corrected, and the one in hand


def test_a_bulk_acceptance_that_is_cancelled_stops_and_one_of_another_project_is_not_found(world: World) -> None:
    slug = drafted(world, 3, lambda k: 0.95)
    job = world.admin.call("POST", f"/projects/{slug}/bulk", {"least_confidence": 0.5}, 202)
    other = world.project("other")
    assert world.admin.call("POST", f"/projects/{other}/bulk/cancel", {"id": job["id"]}, 404)["code"] == "not_found"
    assert world.admin.call("POST", f"/projects/{slug}/bulk/cancel", {"id": job["id"]})["state"] == "cancelled"
    assert not BulkRunner(world.database, threading.Event()).cycle()
    assert labels_of(world, slug) == {}


def proba_sent(world: World, slug: str) -> dict[str, list[float]]:
    """Return what the outbox sends of each item beside its labels."""
    with world.database.read() as tx:
        project = projects.find_project(tx, slug)
        rows = outbox.rows_in(tx, project.id, RULES_NEW, 100)
    return {row.item_id: [round(p, 4) for p in sample_of(project, row).proba] for row in rows}


def test_several_labels_are_accepted_in_bulk_by_the_least_sure_of_them_and_imported_drafts_are_left(world: World) -> None:
    slug = world.project(texts=3, kind="multilabel")
    drafts = [{"item_id": "i2", "labels": ["jay"], "confidence": 0.99}]
    world.admin.call("POST", f"/projects/{slug}/drafts", {"drafts": drafts})
    with world.database.write() as tx:
        project = projects.find_project(tx, slug)
        known = items.items_by_id(tx, project.id, ["i0", "i1"])
        said = [NewDraft(Value(("owl", "tit")), "v1", 0.95), NewDraft(Value(("owl",)), "v1", 0.6)]
        scores.save_head(tx, project.id, 1, [(known[f"i{n}"].number, one) for n, one in enumerate(said)])
    world.admin.call("POST", f"/projects/{slug}/bulk", {"least_confidence": 0.9, "audit": 0}, 202)
    BulkRunner(world.database, threading.Event()).cycle()
    assert labels_of(world, slug) == {"i0": (["owl", "tit"], "bulk")}
    assert "came with an import" in world.admin.call("GET", f"/projects/{slug}/bulk")["jobs"][0]["reason"]
    assert proba_sent(world, slug) == {"i0": [0.95, 0.95, 0.05]}


def test_a_draft_accepted_after_a_rename_is_sure_of_the_label_of_today(world: World) -> None:
    slug = drafted(world, 2, lambda k: 0.9)
    world.admin.call("POST", f"/projects/{slug}/labels/rename", {"label": "owl", "name": "tyto"}, 202)
    world.admin.call("POST", f"/projects/{slug}/bulk", {"least_confidence": 0.9, "audit": 0}, 202)
    BulkRunner(world.database, threading.Event()).cycle()
    assert labels_of(world, slug)["i0"] == (["tyto"], "bulk")
    assert proba_sent(world, slug)["i0"] == [0.0, 0.05, 0.05, 0.9]  # the earlier name, tit, jay, the name of today


def test_boxes_accepted_in_bulk_keep_their_places(world: World) -> None:
    slug = world.project("boxes", category="object-detection", kind="boxes")
    world.admin.call("POST", f"/projects/{slug}/items", {"items": [{"id": "i0", "link": "https://example.org/0.jpg"}]})
    box = {"id": "a", "label": "owl", "shape": "box", "where": [0.1, 0.1, 0.2, 0.4]}
    world.admin.call("POST", f"/projects/{slug}/drafts", {"drafts": [{"item_id": "i0", "marks": [box], "confidence": 0.95}]})
    world.admin.call("POST", f"/projects/{slug}/bulk", {"least_confidence": 0.9, "audit": 0}, 202)
    BulkRunner(world.database, threading.Event()).cycle()
    [said] = world.admin.call("GET", f"/projects/{slug}/items/i0")["history"]
    assert (said["source"], said["marks"]) == ("bulk", [box])
