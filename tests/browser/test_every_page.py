"""Every page in both languages, light and dark: no accessibility violation, no console error, texts in the reader's language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.browser.conftest import App, Visitor

AXE = Axe()
PATHS = (
    "/",
    "/projects/new",
    "/projects/digits",
    "/projects/digits/label",
    "/projects/digits/data",
    "/account",
    "/projects/nothing",
)
READY = {"/projects/digits": "#curve canvas", "/projects/digits/label": "#draft strong"}


def settle(page: Page, path: str) -> None:
    """Wait until the live parts of a page are there."""
    if path in READY:
        page.wait_for_selector(READY[path])
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


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_page_has_an_accessibility_violation(visitor: Visitor, digits: str, language: str, screenshots: Path | None) -> None:
    visitor.expected.append("404")
    page = visitor.context(locale="zh-CN" if language == "zh" else "en-US").new_page()
    for path in PATHS:
        page.goto(path)
        settle(page, path)
        assert page.locator("html").get_attribute("lang") == language
        inspect(page, f"{path.strip('/').replace('/', '-') or 'projects'}-{language}", screenshots)
    stranger = visitor.open("/login", None, locale="zh-CN" if language == "zh" else "en-US")
    inspect(stranger, f"login-{language}", screenshots)


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
    for path in ("/projects/digits", "/projects/digits/data", "/", "/projects/new", "/account"):
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
            assert (screenshots / f"{name}-{language}.png").stat().st_size < 150_000
