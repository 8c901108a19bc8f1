"""What a project asks of its values beyond their kind: range and unit of a number, labels of relations; agreement on the status."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest

from tests.contract.projects_world import Shop, shop
from tests.contract.web_world import World

__all__ = ["shop"]

HEIGHT = {"number": {"unit": "cm", "least": 0.0, "most": 200.0, "step": 0.5}}
NUMBERS = {"category": "regression", "kind": "number", "labels": []}
RELATIONS = {"category": "token-classification", "kind": "relations", "labels": ["bird", "fish", "eats"]}
SPANS = [
    {"id": "a", "label": "bird", "shape": "span", "where": [0, 4]},
    {"id": "b", "label": "fish", "shape": "span", "where": [5, 9]},
]


def page_data(world: World, path: str) -> dict[str, Any]:
    """Return what the script of a page is given."""
    with world.app.test_client() as browser:
        form = browser.get("/login").get_data(as_text=True)
        found = re.search(r'name="csrf_token" value="([^"]+)"', form)
        assert found
        browser.post("/login", data={"name": "ada", "password": "correct horse", "csrf_token": found[1]})
        text = browser.get(path).get_data(as_text=True)
    given = re.search(r'id="page-data"[^>]*>(.*?)</', text, re.DOTALL)
    assert given, text[:2000]
    return json.loads(html.unescape(given[1]))


def say(shop: Shop, slug: str, status: int = 200, **said: Any) -> Any:
    return shop.admin.call("POST", f"/projects/{slug}/annotations", {"item_id": "i0", **said}, status)


def test_a_number_outside_the_range_is_refused_by_name_and_the_editors_get_the_range(shop: Shop) -> None:
    slug = shop.world.project("heights", **NUMBERS, limits=HEIGHT)
    shop.admin.call("POST", f"/projects/{slug}/items", {"items": [{"id": "i0", "row": {"length": 3}}]})
    assert "number 250 is outside 0 to 200" in say(shop, slug, 422, number=250)["message"]
    say(shop, slug, number=200)
    refused = shop.admin.call("POST", f"/projects/{slug}/items", {"items": [{"id": "i1", "row": {"length": 3}, "number": -1}]})
    assert "number -1 is outside 0 to 200" in json.dumps(refused)
    for page in ("label", "reviews"):
        assert page_data(shop.world, f"/projects/{slug}/{page}")["number"] == HEIGHT["number"]
    changed = shop.admin.call("PATCH", f"/projects/{slug}", {"limits": {"number": {"least": -5}}})
    assert changed["limits"] == {"number": {"least": -5.0}}
    say(shop, slug, number=-1)
    assert shop.admin.call("PATCH", f"/projects/{slug}", {"title": "Heights"})["limits"] == {"number": {"least": -5.0}}
    copy = shop.admin.call("POST", f"/projects/{slug}/copy", {"slug": "again"}, 201)
    assert copy["limits"] == {"number": {"least": -5.0}}


def test_a_relation_bears_only_labels_of_relations_also_after_one_is_renamed(shop: Shop) -> None:
    slug = shop.world.project("food", **RELATIONS, limits={"relation_labels": ["eats"]})
    shop.admin.call("POST", f"/projects/{slug}/items", {"items": [{"id": "i0", "text": "gull fish"}]})
    link = {"source": "a", "target": "b"}
    assert "not for relations here" in say(shop, slug, 422, marks=SPANS, relations=[{"label": "bird", **link}])["message"]
    say(shop, slug, marks=SPANS, relations=[{"label": "eats", **link}])
    shop.change(slug, "rename", {"label": "eats", "name": "feeds on"})
    assert page_data(shop.world, f"/projects/{slug}/label")["relation_labels"] == ["feeds on"]
    say(shop, slug, marks=SPANS, relations=[{"label": "feeds on", **link}])
    assert shop.admin.call("PATCH", f"/projects/{slug}", {"target": 0.9})["limits"] == {"relation_labels": ["feeds on"]}


@pytest.mark.parametrize(
    ("project", "limits", "named"),
    [
        (NUMBERS, {"number": {"least": 3, "most": 3}}, "least 3 is not below most 3"),
        (NUMBERS, {"number": {"step": 0}}, "step 0"),
        (NUMBERS, {"number": {"unit": "c\nm"}}, "unit"),
        (NUMBERS, {"relation_labels": ["eats"]}, "has no relations"),
        (RELATIONS, {"number": {"least": 1}}, "has no number"),
        (RELATIONS, {"relation_labels": ["drinks"]}, "relation label 'drinks'"),
    ],
)
def test_limits_that_cannot_be_are_refused_by_name(shop: Shop, project: dict[str, Any], limits: dict[str, Any], named: str) -> None:
    body = {"slug": "wrong", "limits": limits, **project}
    assert named in shop.admin.call("POST", "/projects", body, 422)["message"]


def test_the_status_tells_how_far_people_agree(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webapp.projects.outlook.AGREEMENT_KEPT_S", 0.0)
    monkeypatch.setattr("webapp.projects.outlook.SPREAD_SHARE", 0.0)
    slug = shop.world.project(texts=4)
    assert shop.admin.call("GET", f"/projects/{slug}/status")["people_agreement"] is None
    shop.admin.call("PUT", f"/projects/{slug}/work", {"overlap": 2})
    for name, odd in (("bob", "tit"), ("cem", "jay")):
        person = shop.world.person(name, slug)
        for item in person.call("POST", f"/projects/{slug}/next", {"n": 5})["items"]:
            person.answer(slug, item, odd if item["item_id"] == "i3" else "owl")
    together = shop.admin.call("GET", f"/projects/{slug}/quality")["agreement"]
    status = shop.admin.call("GET", f"/projects/{slug}/status")
    assert status["people_agreement"] == together["alpha"] == pytest.approx(1 - (2 / 8) / (26 / 56), abs=1e-4)
