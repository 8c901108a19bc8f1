"""Rules in the app on both databases: stored and tried out."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.rules_world import ALL, BLUE, OWL, TIT, TRUE, Rule, rule
from tests.contract.web_world import Client
from webapp.db import projects
from webapp.rules import preview as previewing

__all__ = ["rule"]


# ---------------------------------------------------------------- written


def test_rules_are_stored_as_written_and_a_stale_writer_is_told(rule: Rule) -> None:
    assert rule.call("GET", "") == {"revision": 0, "rules": [], "least_confidence": 0.7, "method": "auto", "updated_at": 0.0}
    html = {
        "kind": "keywords",
        "name": "<script>alert(1)</script>",
        "label": "owl",
        "field": "text",
        "words": ["<b>"],
        "enabled": False,
    }
    saved = rule.save([html, {"kind": "pattern"}], least_confidence=0.9)
    assert saved["revision"] == 1 and saved["rules"] == [html, {"kind": "pattern"}] and saved["least_confidence"] == 0.9
    assert rule.call("GET", "") == saved
    problem = rule.call("PUT", "", {"revision": 0, "rules": []}, 409)
    assert "somebody else changed the rules" in problem["message"]
    assert rule.call("GET", "") == saved


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"revision": 0, "rules": [OWL] * 201}, "200"),
        ({"revision": 0, "rules": ["owl"]}, "mapping"),
        ({"revision": 0, "rules": {}}, "list"),
        ({"revision": 0, "rules": [], "least_confidence": 1.5}, "least_confidence 1.5"),
        ({"revision": 0, "rules": [], "method": "magic"}, "method 'magic'"),
        ({"revision": -1, "rules": []}, "revision"),
        ({"rules": []}, "revision"),
        ({"revision": 0, "rules": [{"kind": "pattern", "pattern": "x" * 2_100_000}]}, "bytes"),
    ],
)
def test_what_is_no_set_of_rules_is_refused(rule: Rule, body: dict[str, Any], said: str) -> None:
    assert said in rule.call("PUT", "", body, 422)["message"]
    assert rule.call("GET", "")["revision"] == 0


def test_only_owners_write_rules_and_outsiders_see_no_project(rule: Rule) -> None:
    bob, eve = rule.world.person("bob", "birds"), rule.world.person("eve")
    for method, path, body in (
        ("GET", "", None),
        ("PUT", "", {"revision": 0, "rules": []}),
        ("POST", "/preview", {"rules": []}),
        ("POST", "/apply", None),
        ("POST", "/withdraw", None),
        ("POST", "/cancel", {"id": 1}),
    ):
        bob.call(method, f"/projects/birds/rules{path}", body, 403)
        eve.call(method, f"/projects/birds/rules{path}", body, 404)
        Client(rule.world.app).call(method, f"/projects/birds/rules{path}", body, 401)
    assert bob.call("GET", "/projects/birds/rules/state")["rule_labels"] == 0
    assert bob.call("POST", "/projects/birds/rules/review", {"n": 1})["items"] == []
    eve.call("GET", "/projects/birds/rules/state", None, 404)
    eve.call("POST", "/projects/birds/rules/review", {"n": 1}, 404)


# ---------------------------------------------------------------- tried out


def test_a_preview_tells_figures_examples_and_fights_without_a_label_or_a_model(rule: Rule) -> None:
    found = rule.call("POST", "/preview", {"rules": ALL})
    assert (found["n_items"], found["n_known"], found["coverage"], found["method"]) == (50, 0, 0.8, "dawid-skene")
    by_name = {one["name"]: one for one in found["rules"]}
    assert by_name["small"]["view"]["n_votes"] == 20 and by_name["small"]["view"]["accuracy"] is None
    assert by_name["acorns"]["view"]["conflict"] == 0.4
    assert [(fight["with"], fight["n"]) for fight in by_name["acorns"]["fights"]] == [("small", 20), ("blue", 20)]
    example = by_name["acorns"]["fights"][0]["items"][0]
    assert (example["label"], example["other"]) == ("jay", "tit")
    assert "blue" in found["items"][str(example["item"])]["text"]
    assert {found["items"][str(i)]["text"][:7] for i in found["uncovered"]} == {"nothing"}


def test_what_people_labelled_measures_the_rules(rule: Rule) -> None:
    for n in range(15):
        rule.label(f"i{n:03d}", TRUE[n % 5])
    found = rule.call("POST", "/preview", {"rules": ALL})
    figures = {one["name"]: (one["view"]["accuracy"], one["view"]["n_known"]) for one in found["rules"]}
    assert found["n_known"] == 15
    assert figures == {"hoots": (1.0, 3), "night": (1.0, 3), "small": (1.0, 6), "blue": (1.0, 6), "acorns": (1 / 3, 9)}
    hit = next(one for one in found["rules"] if one["name"] == "hoots")["hits"][0]
    assert found["items"][str(hit["item"])]["known"] == "owl"


def test_an_error_stands_at_its_rule_and_the_others_are_tried_all_the_same(rule: Rule) -> None:
    broken = [
        {"kind": "pattern", "name": "open", "label": "owl", "field": "text", "pattern": "("},
        {"kind": "keywords", "name": "nobody", "label": "eagle", "field": "text", "words": ["x"]},
        {"kind": "keywords", "name": "half", "label": "owl", "field": "text"},
        {"kind": "condition", "name": "odd", "label": "owl", "when": "price >"},
        {"kind": "number", "name": "price", "label": "owl", "field": "price", "at_least": 1},
        {"kind": "model", "name": "model", "source": "serving"},
        {**OWL},
        {"kind": "magic", "name": "it's"},
        {**OWL, "name": "rests", "enabled": False, "label": "eagle"},
    ]
    found = rule.call("POST", "/preview", {"rules": [OWL, *broken, TIT]})
    errors = [one["error"] for one in found["rules"]]
    assert errors[0] == "" and errors[-1] == "" and errors[9] == ""
    for at, words in enumerate(("", "missing )", "eagle", "words", "price", "price", "serves yet", "two rules called", "magic")):
        assert words in errors[at], (at, errors[at])
    assert found["rules"][0]["view"]["n_votes"] == 10 and found["rules"][-1]["view"]["n_votes"] == 20
    assert found["rules"][9]["view"] is None


def test_a_preview_without_cluster_or_rule_says_so(rule: Rule) -> None:
    assert rule.call("POST", "/preview", {"rules": []})["rules"] == []
    rule.cluster.is_down = True
    assert rule.call("POST", "/preview", {"rules": ALL}, 503)["message"] == "the cluster is down"
    rule.cluster.is_down = False
    rule.cluster.tasks.clear()
    assert "does not know this project yet" in rule.call("POST", "/preview", {"rules": ALL}, 503)["message"]


def test_two_hundred_rules_are_tried_and_applied(rule: Rule) -> None:
    many = [{**OWL, "name": f"hoots {n}", "words": [f"{n}", "hoot"]} for n in range(100)]
    many += [{**BLUE, "name": f"blue {n}", "pattern": f"blue|{n}x"} for n in range(100)]
    found = rule.call("POST", "/preview", {"rules": many})
    assert len(found["rules"]) == 200 and all(one["view"]["n_votes"] >= 10 and len(one["hits"]) == 5 for one in found["rules"])
    assert rule.apply(many)["state"] == "done"
    assert max(len(item["votes"]) for item in rule.call("POST", "/review", {"n": 50})["items"]) > 90


def test_a_sample_is_spread_over_a_big_project_with_what_people_labelled(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previewing, "SAMPLE", 20)
    monkeypatch.setattr(previewing, "_KNOWN", 10)
    for n in range(15):
        rule.label(f"i{n:03d}", "owl")
    with rule.world.database.read() as tx:
        sample, again = previewing.take_sample(tx, rule.project), previewing.take_sample(tx, rule.project)
    assert [item.number for item in sample.items] == [item.number for item in again.items]
    assert (len(sample.items), int((sample.known == 0).sum())) == (20, 10)
    assert max(item.position for item in sample.items) > 40


def test_html_in_texts_and_names_comes_back_as_it_is(rule: Rule) -> None:
    text = "<img src=x onerror=alert(1)> hoot"
    rule.admin.call("POST", "/projects/birds/items", {"items": [{"id": "evil", "text": text}]})
    found = rule.call("POST", "/preview", {"rules": [{**OWL, "name": "<i>x</i>", "words": ["onerror"]}]})
    [hit] = found["rules"][0]["hits"]
    assert found["items"][str(hit["item"])]["text"] == text and found["rules"][0]["name"] == "<i>x</i>"


def test_rows_of_tables_take_conditions_and_long_texts_are_cut(rule: Rule) -> None:
    rule.world.project("wines", category="tables", labels=["good", "bad"])
    rows = [{"id": f"w{n}", "row": {"price": n, "note": "x" * 900}} for n in range(20)]
    rule.admin.call("POST", "/projects/wines/items", {"items": rows})
    with rule.world.database.read() as tx:
        rule.relay.open_task(projects.find_project(tx, "wines"))
    dear = {"kind": "condition", "name": "dear", "label": "good", "when": "price > 9"}
    found = rule.admin.call("POST", "/projects/wines/rules/preview", {"rules": [dear]})
    assert found["rules"][0]["view"]["n_votes"] == 10
    assert all(len(item["row"]["note"]) == 400 for item in found["items"].values())
