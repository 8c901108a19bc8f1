"""What is pressed or sent while a page's scripts are on their way: it waits for them, and happens once."""

from __future__ import annotations

from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import App, Visitor, wait_until
from webapp.admin import backup


def open_slowly(visitor: Visitor, path: str, script: str) -> tuple[Page, list[Route]]:
    """Open a page whose script `script` does not come until its request is let go on."""
    page = visitor.context().new_page()
    held: list[Route] = []
    page.route(f"**/dist/{script}*", lambda route: held.append(route))
    page.goto(path, wait_until="commit")
    page.locator("main").wait_for()
    wait_until(lambda: page.evaluate("1") and held, "the script is asked for")
    return page, held


def test_a_button_pressed_early_acts_once_when_the_script_is_there(app: App, visitor: Visitor) -> None:
    page, held = open_slowly(visitor, "/admin/disk", "admin.js")
    button = page.get_by_role("button", name="Back up now")
    for _ in range(2):
        button.focus()
        page.keyboard.press("Enter")
    before = len(app.call("GET", "/admin/backups")["backups"])
    held[0].continue_()
    expect(page.locator("#backups tr")).to_have_count(before + 1)
    assert backup.make_next(app.database, app.settings)
    assert not backup.make_next(app.database, app.settings), "the button was pressed twice"


def test_a_form_sent_early_keeps_what_was_typed_and_is_saved(app: App, visitor: Visitor) -> None:
    slug = app.texts("early-form", 2)
    page, held = open_slowly(visitor, f"/projects/{slug}/quality", "quality.js")
    page.locator("#work-overlap").fill("3")
    page.keyboard.press("Enter")
    assert page.url.endswith("/quality")
    held[0].continue_()
    expect(page.locator("#work-said")).to_have_text("All saved.")
    assert app.call("GET", f"/projects/{slug}/work")["overlap"] == 3


def test_a_plain_form_whose_script_never_comes_is_sent_as_one(app: App, visitor: Visitor) -> None:
    visitor.expected.append("ERR_FAILED")
    page, held = open_slowly(visitor, "/account", "plain.js")
    page.get_by_label("What it is for").fill("an early token")
    page.keyboard.press("Enter")
    held[0].abort()
    page.get_by_role("button", name="Revoke an early token").wait_for()
