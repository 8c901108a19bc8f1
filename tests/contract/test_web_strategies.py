"""A project's query strategy: chosen by name, its parameters checked by schema, by API and by form, on both databases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from labelloop.settings import Settings
from learning import query
from tests.contract.web_world import Valkey, World, make_settings
from webapp.db.engine import open_database


@pytest.fixture
def sqlite_world(tmp_path: Path, valkey: Valkey) -> Iterator[World]:
    made = World(make_settings(tmp_path, "", valkey.url))
    yield made
    made.close()


def test_every_strategy_is_listed_with_its_parameters_and_bounds(sqlite_world: World) -> None:
    listed = {one["name"]: one for one in sqlite_world.admin.call("GET", "/strategies")["strategies"]}
    assert list(listed) == ["auto", *query.ALL]
    [measure, beta] = listed["density_weighted"]["fields"]
    assert (beta["kind"], beta["minimum"], beta["maximum"], beta["default"]) == ("number", 0, 100, 1.0)
    assert measure["kind"] == "choice" and "entropy" in measure["choices"]
    assert listed["alipy_quire"]["extra"] == "alipy" and listed["alipy_quire"]["labels_wanted"] == 2
    assert sqlite_world.app.test_client().get("/api/v1/strategies").status_code == 401


def test_parameters_are_kept_and_another_strategy_starts_from_its_defaults(world: World) -> None:
    slug = world.project(strategy="density_weighted", strategy_parameters={"beta": 2.5, "measure": "margin"})
    assert world.admin.call("GET", f"/projects/{slug}")["strategy_parameters"] == {"beta": 2.5, "measure": "margin"}
    changed = world.admin.call("PATCH", f"/projects/{slug}", {"strategy": "core_set"})
    assert (changed["strategy"], changed["strategy_parameters"]) == ("core_set", {})
    assert changed["spec_revision"] == 1, "the cluster's task is the same"
    kept = world.admin.call("PATCH", f"/projects/{slug}", {"strategy": "kmeans", "strategy_parameters": {"prefilter": 10}})
    assert kept["strategy_parameters"] == {"prefilter": 10}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"strategy": "guess"}, "use one of auto, random, least_confidence"),
        ({"strategy": "margin", "strategy_parameters": {"beta": 1}}, "it has none"),
        ({"strategy": "auto", "strategy_parameters": {"beta": 1}}, "it has none"),
        ({"strategy": "density_weighted", "strategy_parameters": {"beta": -1}}, "beta"),
        ({"strategy": "density_weighted", "strategy_parameters": {"beta": float("nan")}}, "beta is nan: numbers are finite"),
        ({"strategy": "density_weighted", "strategy_parameters": {"beta": "much"}}, "beta"),
        ({"strategy": "mixture", "strategy_parameters": {"shares": {"guess": 1}}}, "name 'guess'"),
        ({"strategy": "mixture", "strategy_parameters": {"shares": {"margin": float("inf")}}}, "finite"),
        ({"strategy": "alipy_quire"}, "2 labels only, this project has 3"),
        ({"strategy": "alipy_audi"}, "several labels an item only"),
        ({"strategy": "region_uncertainty"}, "boxes or spans"),
        ({"strategy": "alipy_ceal"}, "each annotator"),
        ({"strategy": "class_balanced", "kind": "multilabel"}, "not defined for several labels an item"),
    ],
)
def test_what_no_order_can_be_made_by_is_refused_with_the_way_out(
    sqlite_world: World, settings: dict[str, Any], complaint: str
) -> None:
    body = {"slug": "birds", "category": "text-classification", "labels": ["owl", "tit", "jay"], **settings}
    assert complaint in sqlite_world.admin.call("POST", "/projects", body, 422)["message"]


def test_a_label_more_than_the_strategy_is_defined_for_is_refused(sqlite_world: World) -> None:
    slug = sqlite_world.project(labels=["owl", "tit"], strategy="alipy_quire")
    more = {"labels": ["owl", "tit", "jay"]}
    assert "2 labels only" in sqlite_world.admin.call("PATCH", f"/projects/{slug}", more, 422)["message"]
    assert sqlite_world.admin.call("PATCH", f"/projects/{slug}", {**more, "strategy": "badge"})["strategy"] == "badge"


def enter_pages(world: World) -> Any:
    """Return a client of the pages with ada's session."""
    http = world.app.test_client()
    form = {"name": "ada", "password": "correct horse", "csrf_token": token_of(http.get("/login"))}
    assert http.post("/login", data=form).status_code == 302
    return http


def token_of(page: Any) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', page.get_data(as_text=True))
    assert found is not None
    return found[1]


def fields_of(page: str) -> dict[str, str]:
    """Return the number fields of the fieldsets that are not disabled."""
    parts = re.findall(r'<fieldset class="strategy"[^>]*?(disabled)?>(.*?)</fieldset>', page, re.DOTALL)
    shown = "".join(part for is_disabled, part in parts if not is_disabled)
    return dict(re.findall(r'<input id="(p-[^"]+)" name="[^"]+" type="\w+" value="([^"]*)"', shown))


def test_the_settings_page_shows_and_changes_what_may_change(sqlite_world: World) -> None:
    slug = sqlite_world.project(strategy="kmeans", strategy_parameters={"prefilter": 10.0}, target=0.9)
    http = enter_pages(sqlite_world)
    page = http.get(f"/projects/{slug}/settings")
    assert fields_of(page.get_data(as_text=True)) == {"p-kmeans-prefilter": "10"}
    form = {
        "csrf_token": token_of(page),
        "title": "Birds",
        "labels": "owl\ntit\njay\nrook",
        "target": "80",
        "budget": "500",
        "algorithm": "svm",
        "epoch": "3",
        "retrain_labels": "25",
        "is_paused": "on",
        "instructions": "Look twice.",
        "strategy": "mixture",
        "p-mixture-shares": "margin 0.75, core_set 0.25",
        "p-kmeans-prefilter": "77",
    }
    assert http.post(f"/projects/{slug}/settings", data=form).status_code == 302
    saved = sqlite_world.admin.call("GET", f"/projects/{slug}")
    wanted = {
        "title": "Birds",
        "labels": ["owl", "tit", "jay", "rook"],
        "target": 0.8,
        "budget": 500,
        "algorithm": "svm",
        "epoch": 3,
    }
    wanted |= {"retrain_labels": 25, "is_paused": True, "is_comparer_on": False, "instructions": "Look twice."}
    wanted |= {"strategy": "mixture", "strategy_parameters": {"shares": {"margin": 0.75, "core_set": 0.25}}}
    assert {name: saved[name] for name in wanted} == wanted
    shown = http.get(f"/projects/{slug}/settings").get_data(as_text=True)
    assert fields_of(shown) == {"p-mixture-shares": "margin 0.75, core_set 0.25"}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"labels": "tit\nowl"}, "labels may only be added"),
        ({"target": "much"}, "is no number"),
        ({"budget": "nan"}, "is no number"),
        ({"budget": "1e30"}, "use a whole number"),
        ({"strategy": "guess"}, "use one of auto"),
        ({"strategy": "mixture", "p-mixture-shares": "margin"}, "names with a number each"),
        ({"strategy": "mixture", "p-mixture-shares": "guess 1"}, "guess"),
        ({"strategy": "density_weighted", "p-density_weighted-beta": "-1"}, "beta"),
        ({"strategy": "density_weighted", "p-density_weighted-beta": "much"}, "write a number"),
        ({"strategy": "alipy_quire"}, "2 labels only"),
    ],
)
def test_a_setting_that_is_refused_is_told_and_the_form_keeps_what_was_written(
    sqlite_world: World, changes: dict[str, str], complaint: str
) -> None:
    slug = sqlite_world.project()
    http = enter_pages(sqlite_world)
    form = {"title": "Nestlings", "labels": "owl\ntit\njay", "algorithm": "auto", "strategy": "auto", **changes}
    form["csrf_token"] = token_of(http.get(f"/projects/{slug}/settings"))
    page = http.post(f"/projects/{slug}/settings", data=form).get_data(as_text=True)
    assert complaint in page and "Nestlings" in page
    assert sqlite_world.admin.call("GET", f"/projects/{slug}")["title"] == slug


def test_only_owners_see_the_settings(sqlite_world: World) -> None:
    slug = sqlite_world.project()
    sqlite_world.person("bob", slug)
    http = sqlite_world.app.test_client()
    form = {"name": "bob", "password": "correct horse", "csrf_token": token_of(http.get("/login"))}
    http.post("/login", data=form)
    assert http.get(f"/projects/{slug}/settings").status_code == 403
    assert f"/projects/{slug}/settings" not in http.get(f"/projects/{slug}").get_data(as_text=True)


def test_a_project_made_before_strategies_had_parameters_has_the_defaults(web_settings: Settings, database_url: str) -> None:
    database = open_database(web_settings)
    with database.write() as tx:
        columns = {column["name"]: column for column in sa.inspect(tx).get_columns("projects")}
        assert not columns["strategy_parameters"]["nullable"]
        assert "{}" in str(columns["strategy_parameters"]["default"])
    database.close()
