"""The live project page: counts, corrections, sentences, curve, versions, trouble; each follows the app without a reload."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Route

from tests.browser.conftest import SERVING, App, Visitor, version_view


@pytest.fixture
def silent_pilot(app: App, sessions: object) -> Iterator[None]:
    """A pilot that stopped a minute ago."""
    app.beat(ago_s=60.0)
    yield
    app.beat()


def wait_text(page: Page, selector: str, words: str) -> None:
    """Wait until an element says something."""
    page.locator(selector).get_by_text(words).or_(page.locator(selector, has_text=words)).first.wait_for()


def test_the_page_shows_what_the_cluster_said(visitor: Visitor, digits: str) -> None:
    page = visitor.open("/projects/digits")
    wait_text(page, "#next-training", "next training in 14 labels")
    assert page.locator("#items").inner_text() == "600"
    assert int(page.locator("#labels").inner_text()) >= 110
    assert int(page.locator("#corrected").inner_text()) > 0
    assert page.locator("#accuracy").inner_text() == "93.0 %"
    assert page.locator("#version").inner_text() == SERVING
    wait_text(page, "#run-name", "Training 6: logistic-regression on 110 labels")
    for chart in ("#curve", "#corrections", "#losses"):
        page.locator(f"{chart} canvas").wait_for()
        assert page.evaluate("id => document.querySelector(id + ' .empty-chart').hidden", chart)
    inked = "() => new Set(document.querySelector('#curve canvas').getContext('2d').getImageData(0, 0, 300, 150).data).size"
    assert page.evaluate(inked) > 10, "the curve is not drawn"
    assert page.locator("#versions tr").count() == 5
    assert "serving" in page.locator("#versions tr", has_text=SERVING).inner_text()


def test_owners_may_serve_versions_and_annotators_only_look(visitor: Visitor, digits: str) -> None:
    visitor.expected.append("503")
    page = visitor.open("/projects/digits")
    page.locator("#versions tr").first.wait_for()
    assert page.locator("[data-promote]").count() == 4
    page.locator("[data-promote]").first.click()
    wait_text(page, "#said", "the app was started without a cluster: start `labelloop web` with --registry")
    for name in ("Roll back", "Train now", "Cancel training"):
        assert page.get_by_role("button", name=name).is_visible()
    other = visitor.open("/projects/digits", "bob")
    other.locator("#versions tr").first.wait_for()
    assert other.locator("#run-name").is_visible()
    assert other.locator("[data-promote], #rollback, #train-now, #run-cancel").count() == 0


def test_labels_corrections_and_sentences_follow_without_a_reload(app: App, visitor: Visitor) -> None:
    app.texts("living")
    page = visitor.open("/projects/living")
    wait_text(page, "#drafted", "0")
    page.evaluate("() => { window.isSamePage = true }")
    for label in ("tit", "owl"):
        (item,) = app.call("POST", "/projects/living/next", {"n": 1})["items"]
        answer = {"item_id": item["item_id"], "lease": item["lease"], "labels": [label]}
        app.call("POST", "/projects/living/annotations", answer)
    wait_text(page, "#labels", "2")
    wait_text(page, "#corrected", "1")
    app.tell("living", next_training="next training in 18 labels", labels=2)
    wait_text(page, "#next-training", "next training in 18 labels")
    versions = (version_view(1, 20, 0.7), version_view(2, 40, 0.8, is_serving=True))
    stop = "budget reached: 40 of 40 labels"
    app.tell("living", versions, serving=SERVING, pointer=1, labels=40, stop=stop, next_training="resting: " + stop)
    wait_text(page, "#stop-text", stop)
    page.locator("#curve canvas").wait_for()
    page.locator("#versions tr").nth(1).wait_for()
    assert page.evaluate("() => window.isSamePage")


def test_a_silent_pilot_is_trouble_on_the_page_in_both_languages(app: App, visitor: Visitor, silent_pilot: None) -> None:
    app.texts("trouble", 2)
    page = visitor.open("/projects/trouble")
    wait_text(page, "#trouble-text", "so labels wait here: start `labelloop pilot`")
    wait_text(visitor.open("/projects/trouble", locale="zh-CN"), "#trouble-text", "标签暂存在此：请启动 `labelloop pilot`")
    app.beat()
    page.locator("#trouble").wait_for(state="hidden")


def test_the_page_asks_by_itself_where_no_stream_comes_through(app: App, visitor: Visitor) -> None:
    visitor.expected += ["ERR_FAILED", "EventSource"]
    app.texts("polled")
    page = visitor.context().new_page()

    def refuse(route: Route) -> None:
        route.abort()

    page.route("**/events*", refuse)
    page.goto("/projects/polled")
    app.call("POST", "/projects/polled/annotations", {"item_id": "t03", "labels": ["owl"]})
    wait_text(page, "#labels", "1")


def test_a_sentence_that_nobody_translated_is_shown_as_it_is(app: App, visitor: Visitor) -> None:
    app.texts("unknown", 2)
    app.tell("unknown", next_training="waiting for the moon", stop="budget reached: 7 of 9 labels")
    page = visitor.open("/projects/unknown", locale="zh-CN")
    wait_text(page, "#next-training", "waiting for the moon")
    wait_text(page, "#stop-text", "已达到预算：9 个标签中的 7 个")
