"""A whole day of a reviewer through the pages, by keyboard: the queue, the page of quality, the differences, one's own limits."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.conftest import PASSWORD, App, Visitor, press
from tests.browser.test_people_at_work import say, waits


def walk(page: Page, project: str, place: str) -> None:
    """Go by keyboard from the list of projects to a page of a project."""
    page.goto("/")
    press(page, "link", project, "main h2")
    press(page, "link", place, "header")


def prepare(app: App) -> tuple[str, str]:
    """Two projects that bob and ada have labelled: one whose every label is reviewed, one where two people said each item."""
    app.call("POST", "/users", {"name": "rhea", "password": PASSWORD})
    single = app.texts("day-of-a-reviewer", 4, title="Reviewed birds")
    double = app.texts("day-of-two-opinions", 5, title="Disputed birds")
    for slug in (single, double):
        app.call("POST", f"/projects/{slug}/members", {"name": "bob", "role": "annotator"})
        app.call("POST", f"/projects/{slug}/members", {"name": "rhea", "role": "reviewer"})
    app.call("PUT", f"/projects/{single}/work", {"review": "all"})
    app.call("PUT", f"/projects/{double}/work", {"overlap": 2})
    say(app, single, {f"t{n:02d}": "tit" for n in range(4)}, "bob")
    say(app, double, {f"t{n:02d}": "tit" for n in range(5)}, "bob")
    say(app, double, {f"t{n:02d}": "tit" if n < 3 else "jay" for n in range(5)}, "ada")
    return single, double


def test_a_day_of_a_reviewer(app: App, visitor: Visitor) -> None:
    single, double = prepare(app)
    page = visitor.enter("rhea")
    walk(page, "Reviewed birds", "Reviews")
    waits(page, "text number 0")
    expect(page.locator("#waiting")).to_have_text("4 wait")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_contain_text("Ctrl Enter returns it")
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    page.keyboard.press("Enter")
    waits(page, "text number 1")
    page.keyboard.press("3")
    waits(page, "text number 2")
    page.keyboard.press("s")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#said")).to_have_text("Write what is wrong, then return it.")
    page.keyboard.type("is it not an owl?")
    page.keyboard.press("Control+Enter")
    waits(page, "text number 3")
    page.keyboard.press("1")
    expect(page.locator("#empty")).to_contain_text("No label waits for a review.")
    page.keyboard.press("u")
    waits(page, "text number 3")
    expect(page.locator("#steps")).to_contain_text("rhea corrected it to owl")
    page.keyboard.press("2")
    expect(page.locator("#empty")).to_be_visible()
    assert app.labels_of(single) == {"t00": ["tit"], "t01": ["jay"], "t02": ["tit"], "t03": ["tit"]}

    say(app, single, {"t02": "owl"}, "bob")
    page.reload()
    waits(page, "text number 2")
    expect(page.locator("#question")).to_contain_text("came back after a return")
    expect(page.locator("#steps")).to_contain_text("rhea returned tit: is it not an owl?")
    page.keyboard.press("Enter")
    expect(page.locator("#empty")).to_be_visible()
    assert app.labels_of(single)["t02"] == ["owl"]

    walk(page, "Disputed birds", "Quality")
    expect(page.locator("#fact-items")).to_have_text("5")
    expect(page.locator("#fact-share")).to_have_text("60 %")
    expect(page.locator("#by-pair")).to_contain_text("ada · bob")
    expect(page.locator("#differences li")).to_have_count(2)
    press(page, "link", "Open t04", "#differences")
    waits(page, "text number 4")
    expect(page.locator("#heard li")).to_have_text(["bob tit", "ada jay"])
    expect(page.locator("#return")).to_be_enabled()
    page.keyboard.press("1")
    waits(page, "text number 3")
    page.keyboard.press("Enter")
    expect(page.locator("#empty")).to_be_visible()
    found = app.labels_of(double)
    assert found["t04"] == ["owl"] and found["t00"] == ["tit"]
    walk(page, "Disputed birds", "Quality")
    expect(page.locator("#people")).to_contain_text("bob")
    page.locator("#between").focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#between")).to_have_value("model")
    expect(page.locator("#differences")).to_contain_text("draft tit, 80 %")
    expect(page.get_by_role("link", name="Open t04")).to_be_visible()
    expect(page.locator("#work, #bulk, #gold")).to_have_count(0)
    for place in ("Settings", "Rules", "Webhooks"):
        expect(page.locator("header").get_by_role("link", name=place, exact=True)).to_have_count(0)
