"""The order of asking as an owner chooses it: fields from each strategy's schema, by keyboard, without accessibility violations."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.conftest import App, Visitor
from tests.browser.test_every_page import inspect
from webapp.db import projects, scores


def test_a_strategy_is_chosen_and_set_by_keyboard_alone(app: App, visitor: Visitor) -> None:
    slug = app.texts("ordered", 1)
    page = visitor.open(f"/projects/{slug}/settings")
    page.get_by_label("Order of asking").focus()
    assert page.locator("fieldset.strategy:visible legend").inner_text() == "auto"
    page.keyboard.type("density")
    assert page.locator("fieldset.strategy:visible legend").inner_text() == "density_weighted"
    assert page.get_by_text("Uncertain items that stand for many others.").is_visible()
    assert page.get_by_text("Default: 1. From 0 to 100.").is_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.press("Control+a")
    page.keyboard.type("2.5")
    page.keyboard.press("Enter")
    page.get_by_text("Saved.").wait_for()
    saved = app.call("GET", f"/projects/{slug}")
    assert (saved["strategy"], saved["strategy_parameters"]) == ("density_weighted", {"beta": 2.5, "measure": "least_confidence"})
    assert page.locator("#p-density_weighted-beta").input_value() == "2.5"


def test_a_value_out_of_bounds_is_not_sent(app: App, visitor: Visitor) -> None:
    slug = app.texts("bounded", 1)
    page = visitor.open(f"/projects/{slug}/settings")
    page.get_by_label("Order of asking").select_option("density_weighted")
    page.locator("#p-density_weighted-beta").fill("101")
    page.get_by_role("button", name="Save").click()
    assert page.locator("#p-density_weighted-beta:invalid").count() == 1
    assert app.call("GET", f"/projects/{slug}")["strategy"] == "auto"


def test_the_form_of_a_new_project_says_at_once_what_cannot_run(app: App, visitor: Visitor) -> None:
    page = visitor.open("/projects/new")
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Order of asking").select_option("alipy_quire")
    shown = page.locator("fieldset[data-strategy=alipy_quire]")
    hint = shown.get_by_text("It cannot run here: it is defined for 2 labels only.")
    assert hint.is_hidden()
    page.get_by_label("Labels", exact=True).fill("owl\ntit\njay")
    assert hint.is_visible()
    page.get_by_label("Labels", exact=True).fill("owl\ntit")
    assert hint.is_hidden()
    several = shown.get_by_text("It cannot run here: it is not defined for several labels an item.")
    assert several.is_hidden()
    page.get_by_label("Any number").check()
    assert several.is_visible()
    assert shown.get_by_text("Needs the packages of the extra alipy on the inference nodes.").is_visible()
    assert shown.get_by_text("A pool above 300 items is judged on a sample.").is_visible()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_settings_have_no_accessibility_violation(app: App, visitor: Visitor, language: str, screenshots: Path | None) -> None:
    slug = app.texts(f"clean-{language}", 1, strategy="mixture")
    page = visitor.open(f"/projects/{slug}/settings", locale="zh-CN" if language == "zh" else "en-US")
    words = "几种策略轮流。" if language == "zh" else "Several strategies take turns."
    assert page.get_by_text(words).is_visible()
    inspect(page, f"settings-{language}", screenshots)
    page.locator("#strategy").select_option("expected_error_reduction")
    inspect(page, f"settings-{language}-fields", screenshots)


def test_an_order_that_cannot_be_made_is_told_on_the_projects_page(app: App, visitor: Visitor) -> None:
    slug = app.texts("stuck", 1, strategy="bald")
    why = "strategy 'bald' needs labels of two classes for its committee: label first, by 'auto'"
    with app.database.write() as tx:
        scores.change_scored(tx, projects.find_project(tx, slug).id, problem=why)
    page = visitor.open(f"/projects/{slug}")
    page.locator("#order-problem").get_by_text(why).wait_for()
    chinese = visitor.open(f"/projects/{slug}", locale="zh-CN")
    chinese.locator("#order-problem").get_by_text("委员会需要两个类别的标注").wait_for()
