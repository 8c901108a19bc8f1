"""Every page in both languages, light and dark: no accessibility violation, no console error, texts in the reader's language."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from scripts.samples import load_sample
from tests.browser.conftest import App, Visitor

AXE = Axe()
ITEM = load_sample("digits", Path()).pool()[0].item_id
PATHS = (
    "/",
    "/projects/new",
    "/projects/digits",
    "/projects/digits/label",
    "/projects/digits/data",
    "/projects/digits/items",
    f"/projects/digits/items/{ITEM}",
    "/projects/digits/reviews",
    "/projects/digits/quality",
    "/projects/digits/rules",
    "/projects/digits/rules/review",
    "/projects/digits/settings",
    "/projects/digits/labels",
    "/projects/digits/webhooks",
    "/projects/digits/people",
    "/archive",
    "/account",
    "/people",
    "/admin/cluster",
    "/admin/projects",
    "/projects/nothing",
)
STRANGERS = ("/login", "/register", "/reset")
ELSEWHERE = {
    "/admin/disk",
    "/admin/letters",
    "/admin/log",
    "/admin/runs",
    "/admin/webhooks",
}  # in test_admin.py
NO_PAGES = {"/favicon.ico", "/media/<slug>/<name>"}
WOOD = {
    "en": ("Birds of the wood", "owl\ntit\njay", "# Look twice\n\n**Owls** sit still."),
    "zh": ("林中的鸟", "猫头鹰\n山雀\n松鸦", "# 请看两遍\n\n**猫头鹰**一动不动。"),
}
PLAIN = "main :is(h1, h2)"
READY = {
    "/projects/digits": "#curve canvas",
    "/projects/digits/label": "#draft strong",
    "/projects/new": "#preview > *",
    "/projects/digits/settings": "#preview > *",
    "/projects/digits/labels": "#label-list li",
    "/projects/digits/reviews": "#empty a, #question strong",
    "/projects/digits/rules/review": "#empty a, #draft strong",
    f"/projects/digits/items/{ITEM}": "#history li:not([aria-busy])",
}


def settle(page: Page, path: str) -> None:
    """Wait until the live parts of a page are there."""
    page.wait_for_selector(READY.get(path, PLAIN))
    if path == "/projects/digits/label":
        page.wait_for_function("() => document.querySelector('.picture img')?.complete")


def check(page: Page, *rules: str) -> None:
    """Fail with what axe finds; only of `rules` where some are named."""
    options = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
    found: list[dict[str, Any]] = AXE.run(page, options=options).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]], one["nodes"][0]["failureSummary"]) for one in found] == []


def inspect(page: Page, name: str, screenshots: Path | None) -> None:
    """Check a page in light, then its colours in dark."""
    for color in ("light", "dark"):
        page.emulate_media(color_scheme=color)  # type: ignore[arg-type]
        if screenshots:
            page.screenshot(path=screenshots / "all" / f"{name}-{color}.png", full_page=True)
        check(page, *(("color-contrast",) if color == "dark" else ()))


def ask_for_the_keys(page: Page, path: str) -> None:
    """Open the list of keys by its own key and close it again."""
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("?")
    expect(page.locator("#help"), path).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help"), path).to_be_hidden()


def test_every_page_that_the_table_of_roles_names_is_looked_at() -> None:
    rows = re.findall(r"^\| `GET (/[^`]*)`", Path("docs/accounts.md").read_text(), re.M)
    pages = {path for path in rows if not path.startswith("/api/")} - NO_PAGES
    looked = {path.replace("/digits", "/<slug>").replace(f"/{ITEM}", "/<item_id>") for path in (*PATHS, *STRANGERS)}
    assert pages - ELSEWHERE - looked == set()
    assert len(pages) > 25


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_page_has_an_accessibility_violation(visitor: Visitor, digits: str, language: str, screenshots: Path | None) -> None:
    visitor.expected += ["404", "403", "rules/preview"]  # this app has no cluster to try rules on
    locale = "zh-CN" if language == "zh" else "en-US"
    people: tuple[tuple[str | None, tuple[str, ...]], ...] = (("ada", PATHS), ("bob", ("/admin/log",)), (None, STRANGERS))
    for who, paths in people:
        page = visitor.context(who, locale=locale).new_page()
        for path in paths:
            page.goto(path)
            settle(page, path)
            assert page.locator("html").get_attribute("lang") == language
            name = f"{path.strip('/').replace('/', '-') or 'projects'}-{language}"
            if language == "en":
                inspect(page, name, screenshots)
            else:  # the colours are the same
                check(page)
            ask_for_the_keys(page, path)


@pytest.mark.parametrize(("locale", "title", "word"), [("en-US", "Keys", "this list"), ("zh-CN", "快捷键", "显示本列表")])
def test_the_keys_of_a_page_are_in_a_dialog_that_takes_and_gives_back_the_focus(
    visitor: Visitor, digits: str, locale: str, title: str, word: str
) -> None:
    page = visitor.open("/projects/digits/labels", locale=locale)
    settle(page, "/projects/digits/labels")
    opener = page.get_by_role("button", name=title, exact=True)
    opener.focus()
    page.keyboard.press("Enter")
    keys = page.get_by_role("dialog", name=title)
    assert "F2" in keys.inner_text() and word in keys.inner_text()
    assert page.evaluate("document.querySelector('#help').contains(document.activeElement)")
    check(page)
    page.keyboard.press("Escape")
    expect(keys).to_be_hidden()
    assert page.evaluate("document.activeElement.id") == "help-open"
    page.locator("#label-list input[type=checkbox]").first.focus()
    page.keyboard.press("?")
    keys.wait_for()
    page.keyboard.press("?")
    keys.get_by_role("button").click()
    expect(keys).to_be_hidden()
    page.locator("#new-label").focus()
    page.keyboard.type("who?")
    assert keys.is_hidden() and page.locator("#new-label").input_value() == "who?"


def test_a_chosen_language_is_kept_over_pages_and_logins(app: App, visitor: Visitor, digits: str) -> None:
    page = visitor.open("/", "bob")
    page.get_by_role("button", name="中文").click()
    page.get_by_role("link", name="Handwritten digits", exact=True).click()
    settle(page, "/projects/digits")
    assert page.locator("html").get_attribute("lang") == "zh"
    assert page.locator("#next-training").inner_text() == "再标注 14 个后开始下一次训练"
    assert page.locator("#comparer").inner_text() == "未达到目标：最近 100 个草稿中 88 个正确（88.0%），目标 98.0%"
    page.goto("/projects/digits/label")
    assert page.locator("#accept").inner_text().startswith("接受")
    page.get_by_role("button", name="English").click()
    assert page.url.endswith("/projects/digits/label?") or page.url.endswith("/projects/digits/label")
    assert page.locator("#accept").inner_text().startswith("Accept")


def test_labelling_works_on_a_phone_without_scrolling_sideways(visitor: Visitor, digits: str, screenshots: Path | None) -> None:
    page = visitor.open("/projects/digits/label", viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    settle(page, "/projects/digits/label")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    first = page.locator(".picture img").get_attribute("alt")
    assert page.locator("#accept").bounding_box()["y"] < 844  # type: ignore[index]
    if screenshots:
        page.screenshot(path=screenshots / "all" / "phone-label.png")
    page.locator("#choices button").nth(3).tap()
    page.wait_for_function("first => document.querySelector('.picture img').alt !== first", arg=first)
    visitor.expected += ["404", "rules/preview"]
    for path in PATHS:
        page.goto(path)
        settle(page, path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path


def test_pictures_for_the_documentation(visitor: Visitor, digits: str, screenshots: Path | None, tmp_path: Path) -> None:
    screenshots = screenshots or tmp_path
    for language in ("en", "zh"):
        page = visitor.context(locale="zh-CN" if language == "zh" else "en-US", viewport={"width": 1180, "height": 760}).new_page()
        for name, path in (("label", "/projects/digits/label"), ("project", "/projects/digits")):
            page.goto(path)
            settle(page, path)
            page.screenshot(path=screenshots / f"{name}-{language}.png")
        page.goto("/projects/digits/label")
        settle(page, "/projects/digits/label")
        page.keyboard.press("?")
        expect(page.locator("#help")).to_be_visible()
        page.locator("#help article").screenshot(path=screenshots / f"keys-{language}.png")
        page.goto("/projects/new")
        title, labels, words = WOOD[language]
        page.locator("#title").fill(title)
        page.locator("#labels").fill(labels)
        page.locator("details summary").first.click()
        page.locator("#instructions").fill(words)
        expect(page.locator("#preview .instructions")).to_be_visible()
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=screenshots / f"new-project-{language}.png")
        for name in ("label", "project", "keys", "new-project"):
            assert (screenshots / f"{name}-{language}.png").stat().st_size < 150_000


def test_dark_and_light_are_switched_by_hand_kept_with_the_account_and_readable_on_a_phone(visitor: Visitor, digits: str) -> None:
    page = visitor.open("/projects/digits/label", "bob", viewport={"width": 390, "height": 844}, color_scheme="light")
    light = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    page.get_by_role("button", name="Colours: as the device has them").click()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") != light
    settle(page, "/projects/digits/label")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    check(page, "color-contrast")
    page.get_by_role("button", name="Colours: dark").click()
    page.get_by_role("button", name="Colours: light").wait_for()
    settle(page, "/projects/digits/label")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == light
    check(page, "color-contrast")
    page.get_by_role("button", name="Colours: light").click()
    assert page.locator("html").get_attribute("data-theme") is None
