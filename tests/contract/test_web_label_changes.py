"""Labels renamed, merged and taken back with their history, on both databases and before a cluster stand-in."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from tests.contract.projects_world import Shop, shop
from tests.contract.web_world import Client
from webapp.db import projects, relabelling
from webapp.db.items import NewDraft
from webapp.kinds.label_set import LabelSet, Place, value_now
from webapp.kinds.values import Mark, Relation, Value
from webapp.people.settling import Settler
from webapp.pilot import upkeep

__all__ = ["shop"]


def test_a_renamed_label_is_read_under_both_names_and_written_anew(shop: Shop) -> None:
    slug = shop.world.project(texts=4)
    shop.label(slug, i0="owl", i1="tit")
    job = shop.change(slug, "rename", {"label": "owl", "name": "barn owl"})
    assert (job["kind"], job["state"]) == ("rename", "waiting")
    assert shop.admin.call("GET", f"/projects/{slug}")["labels"] == ["barn owl", "tit", "jay"]
    assert shop.history(slug, "i0")[0]["labels_now"] == ["barn owl"]
    shop.work()
    state = shop.admin.call("GET", f"/projects/{slug}/labels")
    assert (state["job"]["state"], state["job"]["changed"], state["job"]["share"]) == ("done", 1, 1.0)
    assert state["labels"][0] == {"name": "barn owl", "earlier": ["owl"]}
    first, second = shop.history(slug, "i0")
    assert (first["labels"], second["labels"], second["revision"]) == (["owl"], ["barn owl"], 2)
    kept = ("user_id", "seconds", "draft", "created_at", "is_corrected")
    assert [first[name] for name in kept] == [second[name] for name in kept]
    assert len(shop.history(slug, "i1")) == 1
    assert shop.admin.call("GET", f"/projects/{slug}/status")["labels"] == 2


def test_the_cluster_gets_the_new_list_behind_the_old_and_the_labels_again(shop: Shop) -> None:
    slug = shop.world.project(texts=4)
    shop.label(slug, i0="owl", i1="tit")
    shop.send()
    shop.change(slug, "rename", {"label": "owl", "name": "barn owl"})
    assert "wait for the end" in shop.change(slug, "merge", {"labels": ["tit"], "into": "barn owl"}, 409)["message"]
    shop.work()
    shop.change(slug, "merge", {"labels": ["tit"], "into": "barn owl"})
    shop.work()
    shop.send()
    assert shop.cluster.tasks[slug].extra.labels == ("owl", "tit", "jay", "barn owl")
    merged = shop.cluster.merged(slug)
    assert {item: row.labels for item, row in merged.items()} == {"i0": ("barn owl",), "i1": ("barn owl",)}
    assert merged["i0"].annotator == "ada"


def test_a_merge_is_undone_for_the_items_that_it_changed_alone(shop: Shop) -> None:
    slug = shop.world.project(texts=4, kind="multilabel")
    body = {"item_id": "i0", "labels": ["owl", "tit"]}
    shop.admin.call("POST", f"/projects/{slug}/annotations", body)
    shop.label(slug, i1="tit", i2="owl")
    shop.change(slug, "merge", {"labels": ["tit"], "into": "owl"})
    shop.work()
    shop.label(slug, i3="owl")
    assert shop.history(slug, "i0")[-1]["labels"] == ["owl"]
    shop.change(slug, "undo")
    assert shop.admin.call("GET", f"/projects/{slug}")["labels"] == ["owl", "tit", "jay"]
    shop.work()
    now = {item: shop.history(slug, item)[-1]["labels"] for item in ("i0", "i1", "i2", "i3")}
    assert now == {"i0": ["owl", "tit"], "i1": ["tit"], "i2": ["owl"], "i3": ["owl"]}
    assert shop.change(slug, "undo", status=409)["code"] == "conflict"


def test_an_undo_leaves_what_earlier_changes_wrote(shop: Shop) -> None:
    slug = shop.world.project(texts=2)
    shop.label(slug, i0="jay", i1="tit")
    shop.change(slug, "rename", {"label": "jay", "name": "blue jay"})
    shop.work()
    shop.change(slug, "merge", {"labels": ["tit"], "into": "owl"})
    shop.work()
    shop.change(slug, "undo")
    shop.work()
    assert [[one["labels"] for one in shop.history(slug, item)] for item in ("i0", "i1")] == [
        [["jay"], ["blue jay"]],
        [["tit"], ["owl"], ["tit"]],
    ]
    assert shop.admin.call("GET", f"/projects/{slug}/labels")["undo"]["into"] == "blue jay"


def test_a_rename_is_undone_with_what_was_said_since(shop: Shop) -> None:
    slug = shop.world.project(texts=4)
    shop.label(slug, i0="owl")
    shop.change(slug, "rename", {"label": "owl", "name": "barn owl"})
    shop.work()
    shop.label(slug, i1="barn owl")
    shop.change(slug, "undo")
    shop.work()
    assert shop.admin.call("GET", f"/projects/{slug}")["labels"] == ["owl", "tit", "jay"]
    assert [shop.history(slug, item)[-1]["labels"] for item in ("i0", "i1")] == [["owl"], ["owl"]]
    shop.send()
    assert shop.cluster.tasks[slug].extra.labels == ("owl", "tit", "jay", "barn owl")


def test_an_undo_overtakes_the_work_that_it_undoes(shop: Shop) -> None:
    slug = shop.world.project(texts=4)
    shop.label(slug, i0="tit", i1="owl")
    shop.change(slug, "merge", {"labels": ["tit"], "into": "owl"})
    shop.change(slug, "undo")
    shop.work()
    assert [len(shop.history(slug, item)) for item in ("i0", "i1")] == [1, 1]
    assert shop.history(slug, "i0")[0]["labels_now"] == ["tit"]


def test_a_page_that_knows_the_old_name_goes_on_and_its_draft_counts_as_right(shop: Shop) -> None:
    from webapp.db import items, scores

    slug = shop.world.project(texts=3)
    with shop.world.database.write() as tx:
        project = projects.find_project(tx, slug)
        numbers = [item.number for item in items.items_by_id(tx, project.id, ["i0", "i1"]).values()]
        scores.save_head(tx, project.id, 1, [(number, NewDraft(Value(("owl",)), "v1", 0.9)) for number in numbers])
    [held] = shop.admin.call("POST", f"/projects/{slug}/next", {"n": 1})["items"]
    shop.change(slug, "rename", {"label": "owl", "name": "barn owl"})
    saved = shop.admin.answer(slug, held, "owl")["saved"]
    assert (saved["labels"], saved["is_corrected"]) == (["barn owl"], False)
    [item] = shop.admin.call("POST", f"/projects/{slug}/next", {"n": 1})["items"]
    assert item["draft"]["labels"] == ["barn owl"]


def test_drafts_in_blocks_are_read_under_the_name_of_today(shop: Shop) -> None:
    from webapp.db import items, scores
    from webapp.db.drafts import pack_answers

    slug = shop.world.project(texts=2)
    with shop.world.database.write() as tx:
        project = projects.find_project(tx, slug)
        numbers = [item.number for item in items.items_by_id(tx, project.id, ["i0", "i1"]).values()]
        answers = pack_answers(np.array([[0.1, 0.9, 0], [0.8, 0.1, 0.1]], np.float32), np.arange(3), False, 3)
        scores.add_block(tx, project.id, "", numbers, "v1", 1, answers)
    shop.change(slug, "rename", {"label": "owl", "name": "barn owl"})
    shop.work()
    shop.change(slug, "merge", {"labels": ["tit"], "into": "jay"})
    shop.admin.call("PATCH", f"/projects/{slug}", {"labels": ["barn owl", "jay", "robin"]})
    drafts = {i["item_id"]: i["draft"]["labels"] for i in shop.admin.call("POST", f"/projects/{slug}/next", {"n": 2})["items"]}
    assert drafts == {"i0": ["jay"], "i1": ["barn owl"]}


def test_a_version_that_knows_merged_labels_apart_is_read_as_their_sum() -> None:
    from webapp.db.drafts import pack_answers, unpack

    proba = np.array([[0.3, 0.3, 0.4]], np.float32)
    record = pack_answers(proba, np.array([0, 0, 2]), False, 3)[0]
    assert unpack(record, ("owl", "tit", "jay"), False) == (("owl",), pytest.approx(0.6))
    many = pack_answers(np.array([[0.4, 0.7, 0.1]], np.float32), np.array([0, 0, 2]), True, 3)[0]
    assert unpack(many, ("owl", "tit", "jay"), True) == (("owl",), pytest.approx(0.7))


def test_labels_of_rules_move_with_their_probabilities(shop: Shop) -> None:
    slug = shop.world.project(texts=2)
    with shop.world.database.read() as tx:
        project = projects.find_project(tx, slug)
    from webapp.db import items, rule_labels
    from webapp.db.rule_labels import Verdict

    with shop.world.database.write() as tx:
        [item] = items.items_by_id(tx, project.id, ["i0"]).values()
        rule_labels.save_votes(tx, project.id, 1, [item.number], np.array([[1]], np.int16))
        proba = np.array([0.25, 0.5, 0.25], "<f4")
        rule_labels.write_labels(tx, project, 1, {item.number: Verdict(1, 0.5, proba.tobytes())}, time.time())
    shop.change(slug, "merge", {"labels": ["tit"], "into": "owl"})
    shop.work()
    shop.send()
    row = shop.cluster.merged(slug)["i0"]
    assert (row.labels, row.annotator, row.proba) == (("owl",), "rules", (0.75, 0.0, 0.25))
    with shop.world.database.read() as tx:
        assert rule_labels.votes_of(tx, [item.number])[item.number][2] == 0


def test_stored_rules_speak_of_the_label_by_its_name_of_today(shop: Shop) -> None:
    slug = shop.world.project(texts=2)
    rules = [{"name": "hoots", "kind": "keywords", "label": "owl", "words": ["hoot"]}]
    shop.admin.call("PUT", f"/projects/{slug}/rules", {"rules": rules, "revision": 0})
    shop.change(slug, "rename", {"label": "owl", "name": "barn owl"})
    assert shop.admin.call("GET", f"/projects/{slug}/rules")["rules"][0]["label"] == "barn owl"


def test_a_pilot_that_dies_amid_the_work_goes_on_where_it_was(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    slug = shop.world.project(texts=6)
    shop.label(slug, **{f"i{n}": "owl" for n in range(6)})
    shop.change(slug, "rename", {"label": "owl", "name": "barn owl"})
    monkeypatch.setattr(upkeep, "AT_ONCE", 2)
    real, calls = relabelling.rewrite, []

    def dies(*given: Any) -> int:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(relabelling, "rewrite", dies)
        shop.work()
    assert 0 < shop.admin.call("GET", f"/projects/{slug}/labels")["job"]["share"] < 1
    shop.work()
    assert [len(shop.history(slug, f"i{n}")) for n in range(6)] == [2] * 6
    assert shop.admin.call("GET", f"/projects/{slug}/labels")["job"]["changed"] == 6


@pytest.mark.parametrize(
    ("what", "body", "status", "words"),
    [
        ("rename", {"label": "eagle", "name": "x"}, 422, "'eagle' is not in use"),
        ("rename", {"label": "owl", "name": "tit"}, 409, "merge 'owl' into it"),
        ("rename", {"label": "owl", "name": " x"}, 422, "without spaces"),
        ("rename", {"label": "owl", "name": ""}, 422, "1 to 100 characters"),
        ("merge", {"labels": ["owl"], "into": "owl"}, 422, "at least one label to be merged"),
        ("merge", {"labels": ["owl", "tit"], "into": "jay"}, 409, "needs 2"),
        ("merge", {"labels": ["owl"], "into": "eagle"}, 422, "'eagle' is not in use"),
        ("undo", {}, 409, "nothing to undo"),
    ],
)
def test_a_change_of_labels_that_cannot_be_names_the_label_and_the_way_out(
    shop: Shop, what: str, body: Any, status: int, words: str
) -> None:
    slug = shop.world.project(texts=1)
    assert words in shop.change(slug, what, body, status)["message"]


def test_a_name_that_was_merged_away_is_not_given_to_another_label(shop: Shop) -> None:
    slug = shop.world.project(labels=["owl", "tit", "jay"])
    shop.change(slug, "merge", {"labels": ["tit"], "into": "owl"})
    shop.work()
    assert "was merged into 'owl'" in shop.change(slug, "rename", {"label": "jay", "name": "tit"}, 409)["message"]


def test_marks_and_relations_bear_the_names_of_today_and_stand_once() -> None:
    labels = LabelSet(("bird", "fish"), (Place("owl", 2), Place("fish"), Place("bird"), Place("tit", 2)))
    marks = (
        Mark("a", "owl", "span", (0, 3)),
        Mark("b", "tit", "span", (0, 3)),
        Mark("c", "fish", "span", (4, 8)),
    )
    value = value_now(labels, Value(("fish", "owl", "tit"), marks, (Relation("fish", "b", "c"),)))
    assert value.labels == ("bird", "fish")
    assert [(mark.id, mark.label) for mark in value.marks] == [("a", "bird"), ("c", "fish")]
    assert value.relations == (Relation("fish", "a", "c"),)


# ---------------------------------------------------------------- amid the work of several people


def together(shop: Shop, slug: str, **work: Any) -> tuple[Client, Client, Client]:
    shop.admin.call("PUT", f"/projects/{slug}/work", work)
    bob, cem = shop.world.person("bob", slug), shop.world.person("cem", slug)
    return bob, cem, shop.world.person("rita", slug, "reviewer")


def give(person: Client, slug: str, label: str) -> None:
    [item] = person.call("POST", f"/projects/{slug}/next", {"n": 1})["items"]
    person.answer(slug, item, label)


@pytest.mark.parametrize("consensus", ["majority", "dawid-skene"])
def test_opinions_before_and_after_a_renaming_agree(shop: Shop, consensus: str) -> None:
    slug = shop.world.project(texts=1)
    bob, cem, rita = together(shop, slug, overlap=2, consensus=consensus)
    give(bob, slug, "owl")
    shop.change(slug, "rename", {"label": "owl", "name": "barn owl"})
    shop.work()
    give(cem, slug, "barn owl")
    Settler(shop.world.database).cycle()
    assert [one["labels"] for one in shop.history(slug, "i0")] == [["barn owl"]]
    assert rita.call("GET", f"/projects/{slug}/reviews")["waiting"] == {}
    quality = rita.call("GET", f"/projects/{slug}/quality")
    assert [(one["agreed"], one["decided"]) for one in quality["people"] if one["name"] in ("bob", "cem")] == [(1, 1), (1, 1)]


def test_a_known_answer_and_a_question_to_reviewers_bear_the_name_of_today(shop: Shop) -> None:
    slug = shop.world.project(texts=2)
    bob, _, rita = together(shop, slug, review="all", gold_share=0.5)
    shop.label(slug, i0="owl", i1="tit")
    shop.admin.call("POST", f"/projects/{slug}/gold", {"item_ids": ["i0"], "is_gold": True})
    shop.change(slug, "rename", {"label": "owl", "name": "barn owl"})
    assert rita.call("GET", f"/projects/{slug}/gold")["items"] == [{"item_id": "i0", "labels": ["barn owl"]}]
    asked = rita.call("POST", f"/projects/{slug}/reviews/next", {"n": 5})["items"]
    assert sorted(one["labels"] for one in asked) == [["barn owl"], ["tit"]]
    [item] = bob.call("POST", f"/projects/{slug}/next", {"n": 50})["items"]  # each of 50 places draws a known answer or not
    bob.answer(slug, item, "barn owl")
    [found] = [one for one in rita.call("GET", f"/projects/{slug}/quality")["people"] if one["name"] == "bob"]
    assert (found["gold_right"], found["gold"]) == (1, 1)


def test_labels_wait_for_drafts_being_accepted_and_for_copies_being_filled(shop: Shop) -> None:
    slug = shop.world.project(texts=1)
    job = shop.admin.call("POST", f"/projects/{slug}/bulk", {"least_confidence": 0.5}, 202)
    assert "in bulk" in shop.change(slug, "rename", {"label": "owl", "name": "barn owl"}, 409)["message"]
    shop.admin.call("POST", f"/projects/{slug}/bulk/cancel", {"id": job["id"]})
    shop.admin.call("POST", f"/projects/{slug}/copy", {"slug": "twin", "labels": True}, 201)
    assert "being copied" in shop.change(slug, "rename", {"label": "owl", "name": "barn owl"}, 409)["message"]
    shop.work()
    shop.change(slug, "rename", {"label": "owl", "name": "barn owl"})
