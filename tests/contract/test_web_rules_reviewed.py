"""Labels of rules in the queue and in their review, on both databases."""

from __future__ import annotations

import pytest

from tests.contract.rules_world import ALL, Rule, rule
from webapp.pilot import rules as running

__all__ = ["rule"]


def test_items_that_rules_labelled_stay_open_behind_the_others(rule: Rule) -> None:
    rule.apply(ALL)
    taken = rule.admin.call("POST", "/projects/birds/next", {"n": 12})["items"]
    assert [item["item_id"] for item in taken[:10]] == [f"i{n:03d}" for n in range(50) if n % 5 == 3]
    assert taken[9]["draft"] is None
    assert taken[10]["draft"] == {"labels": ["owl"], "confidence": taken[10]["draft"]["confidence"], "version": "rules"}
    rule.admin.answer("birds", taken[10], "owl")
    status = rule.admin.call("GET", "/projects/birds/status")
    assert (status["labels"], status["rule_labels"], status["drafted"], status["corrections_per_100"]) == (1, 39, 0, [])


def test_review_brings_doubtful_labels_first_and_measures_their_error(rule: Rule) -> None:
    rule.apply(ALL)
    [first, second] = rule.call("POST", "/review", {"n": 2})["items"]
    assert first["draft"]["version"] == "rules" and first["draft"]["confidence"] <= second["draft"]["confidence"]
    assert {vote["rule"] for vote in first["votes"]} <= {one["name"] for one in ALL} and first["votes"]
    rule.admin.answer("birds", first, first["draft"]["labels"][0])
    rule.admin.answer("birds", second, "owl" if second["draft"]["labels"] != ["owl"] else "jay")
    state = rule.call("GET", "/state")
    assert (state["measured"]["checked"], state["measured"]["wrong"], state["rule_labels"], state["labels"]) == (2, 1, 38, 2)
    assert {one["name"] for one in state["measured"]["rules"]} == {vote["rule"] for i in (first, second) for vote in i["votes"]}
    history = rule.admin.call("GET", f"/projects/birds/items/{second['item_id']}")["history"]
    assert [(past["source"], past["is_corrected"]) for past in history] == [("rules", False), ("person", True)]
    rule.admin.call("DELETE", f"/projects/birds/annotations/{second['item_id']}")
    assert rule.call("GET", "/state")["measured"]["checked"] == 1
    rule.label(second["item_id"], second["draft"]["labels"][0])
    measured = rule.call("GET", "/state")["measured"]
    assert (measured["checked"], measured["wrong"]) == (2, 0)
    rule.apply()
    assert rule.call("GET", "/state")["measured"]["checked"] == 2


def test_review_by_conflict_and_by_rule(rule: Rule) -> None:
    rule.apply(ALL)
    fought = rule.call("POST", "/review", {"n": 100, "by": "conflict"})["items"]
    assert {item["item_id"] for item in fought} == {f"i{n:03d}" for n in range(50) if n % 5 in (1, 4)}
    assert all(len({vote["label"] for vote in item["votes"]}) > 1 for item in fought)
    assert rule.call("POST", "/review", {"n": 100, "by": "conflict"})["reason"] == "no label of rules is left to review here"
    night = rule.call("POST", "/review", {"n": 100, "by": "rule", "rule": "night"})["items"]
    assert {item["item_id"] for item in night} == {f"i{n:03d}" for n in range(0, 50, 5)}
    again = rule.call("POST", "/review", {"n": 100, "by": "rule", "rule": "night", "holding": ["i000"]})["items"]
    assert {item["item_id"] for item in again} == {f"i{n:03d}" for n in range(5, 50, 5)}
    assert "apply the rules first" in rule.call("POST", "/review", {"n": 1, "by": "rule", "rule": "day"}, 404)["message"]
    bob = rule.world.person("bob", "birds")
    assert len(bob.call("POST", "/projects/birds/rules/review", {"n": 100})["items"]) == 10


def test_a_person_who_answers_while_rules_run_keeps_the_last_word(rule: Rule) -> None:
    [item] = rule.admin.call("POST", "/projects/birds/next", {"n": 1})["items"]
    rule.apply(ALL)
    answered = rule.admin.answer("birds", item, "jay")
    assert answered["saved"]["revision"] == 2
    rule.send()
    assert rule.cluster.merged("birds")[item["item_id"]].labels == ("jay",)


def test_an_item_that_cannot_be_read_is_counted_and_the_rest_is_labelled(rule: Rule) -> None:
    rule.cluster.unreadable.add("i000")
    job = rule.apply(ALL)
    assert (job["state"], job["failed"], job["labelled"]) == ("done", 1, 39)


def test_more_votes_than_one_call_takes_are_weighed_in_shares(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "MOST_WEIGHED", 100)
    job = rule.apply(ALL)
    assert job["labelled"] == 40 and len(rule.cluster.weighed) == 2
    assert {call.votes.shape for call in rule.cluster.weighed} == {(20, 5)}
