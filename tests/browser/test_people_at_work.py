"""Reviews and quality in the browser: a day of a reviewer and of an owner, by keyboard, in both languages, clean for axe."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import PASSWORD, App, Visitor, wait_until
from tests.browser.test_every_page import check
from webapp.people.bulk import BulkRunner


def say(app: App, slug: str, labels: dict[str, str], who: str) -> None:
    """Answer items as one person, through the API."""
    token = app.token
    app.token = app.call("POST", "/tokens", {"name": who, "password": PASSWORD, "label": "say"})["token"]
    for item in app.call("POST", f"/projects/{slug}/next", {"n": len(labels)})["items"]:
        body = {"item_id": item["item_id"], "lease": item["lease"], "labels": [labels[item["item_id"]]], "seconds": 2.0}
        app.call("POST", f"/projects/{slug}/annotations", body)
    app.token = token


def waits(page: Page, item: str) -> None:
    expect(page.locator("#stage-body")).to_contain_text(item)


@pytest.fixture
def slug(app: App, sessions: dict[str, Any], request: pytest.FixtureRequest) -> str:
    """Five texts labelled by bob, each of which a reviewer shall look at."""
    name = app.texts(f"reviews-{abs(hash(request.node.name)) % 10**8}", 5)
    app.call("POST", f"/projects/{name}/members", {"name": "bob", "role": "annotator"})
    app.call("PUT", f"/projects/{name}/work", {"review": "all"})
    say(app, name, {f"t{n:02d}": "tit" if n < 3 else "owl" for n in range(5)}, "bob")
    return name


def test_a_reviewer_accepts_corrects_returns_and_takes_back_by_keyboard(app: App, visitor: Visitor, slug: str) -> None:
    page = visitor.open(f"/projects/{slug}/reviews")
    waits(page, "text number 0")
    expect(page.locator("#question")).to_contain_text("bob said")
    check(page)
    page.keyboard.press("Enter")
    waits(page, "text number 1")
    page.keyboard.press("3")  # jay
    waits(page, "text number 2")
    page.keyboard.press("s")
    expect(page.locator("#comment")).to_be_focused()
    page.keyboard.type("a jay is blue")
    page.keyboard.press("Control+Enter")
    waits(page, "text number 3")
    page.keyboard.press("Enter")
    waits(page, "text number 4")
    page.keyboard.press("u")
    waits(page, "text number 3")
    page.keyboard.press("1")
    waits(page, "text number 4")
    page.keyboard.press("Enter")
    expect(page.locator("#empty")).to_contain_text("No label waits")
    assert app.labels_of(slug) == {"t00": ["tit"], "t01": ["jay"], "t02": ["tit"], "t03": ["owl"], "t04": ["owl"]}
    bob = visitor.open(f"/projects/{slug}/label", "bob")
    expect(bob.locator("#returned")).to_contain_text("ada sent this back (tit): a jay is blue")
    waits(bob, "text number 2")
    check(bob)


def test_a_label_taken_back_while_more_are_fetched_is_asked_once(app: App, visitor: Visitor, slug: str) -> None:
    page = visitor.open(f"/projects/{slug}/reviews")
    waits(page, "text number 0")
    held: list[Route] = []

    def hold(route: Route) -> None:
        if held or "item_id" in (route.request.post_data_json or {}):
            route.continue_()
        else:
            held.append(route)

    page.route("**/reviews/next", hold)
    page.keyboard.press("Enter")
    waits(page, "text number 1")
    page.keyboard.press("Enter")
    waits(page, "text number 2")
    wait_until(lambda: page.evaluate("1") and held, "more are asked for")
    page.keyboard.press("u")
    waits(page, "text number 1")
    with page.expect_response("**/reviews/next"):
        held[0].continue_()
    for n in range(1, 5):
        waits(page, f"text number {n}")
        page.keyboard.press("1" if n == 1 else "Enter")
    expect(page.locator("#empty")).to_contain_text("No label waits")
    assert app.labels_of(slug) == {"t00": ["tit"], "t01": ["owl"], "t02": ["tit"], "t03": ["owl"], "t04": ["owl"]}


def test_the_page_of_quality_shows_agreement_people_and_differences_in_both_languages(
    app: App, visitor: Visitor, screenshots: Path | None, tmp_path: Path
) -> None:
    slug = app.texts("quality", 6)
    for who in ("bob",):
        app.call("POST", f"/projects/{slug}/members", {"name": who, "role": "annotator"})
    app.call("PUT", f"/projects/{slug}/work", {"overlap": 2})
    say(app, slug, {f"t{n:02d}": "tit" for n in range(6)}, "bob")
    say(app, slug, {f"t{n:02d}": "tit" if n < 4 else "jay" for n in range(6)}, "ada")
    for language, words in (("en-US", "How far people agree"), ("zh-CN", "一致程度")):
        page = visitor.open(f"/projects/{slug}/quality", locale=language, viewport={"width": 1180, "height": 900})
        expect(page.locator("#fact-items")).to_have_text("6")
        expect(page.locator("#agreement-title")).to_have_text(words)
        expect(page.locator("#fact-share")).to_have_text("67 %")
        expect(page.locator("#people tr")).to_have_count(2)
        expect(page.locator("#differences li")).to_have_count(2)
        check(page)
        page.screenshot(path=(screenshots or tmp_path) / f"quality-{language[:2]}.png", full_page=True)
        page.locator("#differences a").first.click()
        waits(page, "text number 4")
        expect(page.locator("#heard li")).to_have_count(2)
        check(page)
        page.screenshot(path=(screenshots or tmp_path) / f"reviews-{language[:2]}.png")


def test_an_owner_accepts_drafts_at_once_and_sees_the_measured_error(app: App, visitor: Visitor) -> None:
    slug = app.texts("bulk", 8)
    page = visitor.open(f"/projects/{slug}/quality")
    page.locator("#bulk-least").fill("0.7")
    page.locator("#bulk-audit").fill("2")
    page.get_by_role("button", name="Accept drafts").click()
    expect(page.locator("#bulk-jobs li")).to_contain_text("waiting")
    runner = BulkRunner(app.database, threading.Event())
    runner.cycle()
    expect(page.locator("#bulk-jobs li")).to_contain_text("8 accepted")
    expect(page.locator("#bulk-jobs li")).to_contain_text("2 items go to people without the draft")
    for item in app.call("POST", f"/projects/{slug}/next", {"n": 2})["items"]:
        assert item["draft"] is None
        body = {"item_id": item["item_id"], "lease": item["lease"], "labels": ["jay"]}
        app.call("POST", f"/projects/{slug}/annotations", body)
    page.reload()
    expect(page.locator(".audit")).to_contain_text("2 of 2 looked at, 2 wrong; error 100.0 %, between 34.2 % and 100.0 %")
    page.get_by_role("button", name="Take all back").click()
    expect(page.locator("#bulk-jobs li")).to_contain_text("taking back")
    runner.cycle()
    expect(page.locator("#bulk-jobs li")).to_contain_text("6 taken back")
    assert sorted(app.labels_of(slug).values()) == [["jay"], ["jay"]]
    page.locator("#work-overlap").fill("3")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#work-said")).to_have_text("All saved.")
    assert app.call("GET", f"/projects/{slug}/work")["overlap"] == 3
