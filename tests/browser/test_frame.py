"""The frame of all pages: navigation at any width, times with their zone, forms that keep their input, focus after a deed."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import App, Visitor
from tests.browser.test_every_page import check

LONG = "Birds in the garden of the institute of ornithology, with a title that goes on and on for a whole line"
PHONE = {"viewport": {"width": 390, "height": 844}}
DESK = {"viewport": {"width": 1280, "height": 800}}


@pytest.fixture(scope="module")
def framed(app: App, sessions: dict[str, Any]) -> str:
    """A project with a long title whose label and text hold HTML, one that is archived and one that is deleted."""
    app.project("framed", [{"id": "a", "text": "<img src=x onerror=alert(1)>"}], title=LONG, labels=["<b>owl</b>", "tit"])
    for name, method, path in (("framed-old", "POST", "/archive"), ("framed-gone", "DELETE", "")):
        app.project(name, [], title=f"The {name} one")
        app.call(method, f"/projects/{name}{path}")
    return "framed"


def height_of(page: Page, place: str) -> float:
    """Return the height of a part of a page in pixels."""
    box = page.locator(place).bounding_box()
    assert box is not None
    return box["height"]


def test_the_header_is_one_line_for_the_app_and_one_for_the_project_at_every_width(visitor: Visitor, framed: str) -> None:
    page = visitor.open(f"/projects/{framed}", **DESK)
    assert page.locator(".places a").count() == 9
    assert height_of(page, "body > header") < 90
    for path in (f"/projects/{framed}", f"/projects/{framed}/label", f"/projects/{framed}/items", "/admin/projects", "/people"):
        for size in (DESK, PHONE):
            page.set_viewport_size(size["viewport"])
            page.goto(path)
            assert page.evaluate("document.documentElement.scrollWidth") <= size["viewport"]["width"], path
            assert height_of(page, ".places") < 50, path
    assert page.title() == "Accounts · Administration · labelloop"
    expect(page.locator(".places [aria-current=page]")).to_have_text("Accounts")
    page.goto(f"/projects/{framed}/items")
    expect(page.locator(".places [aria-current=true]")).to_have_text("Data")


def test_html_in_a_label_a_text_or_a_title_is_shown_as_it_was_typed(visitor: Visitor, framed: str) -> None:
    page = visitor.open(f"/projects/{framed}/label")
    expect(page.locator("#stage-body")).to_contain_text("<img src=x onerror=alert(1)>")
    expect(page.locator("#choices button").first).to_contain_text("<b>owl</b>")
    assert page.locator("#stage-body img, #choices b").count() == 0


def test_an_admin_archives_brings_back_and_restores_from_the_list_without_losing_the_focus(visitor: Visitor, framed: str) -> None:
    page = visitor.open("/admin/projects")
    row = page.locator("#projects-framed")
    turn = page.locator("[data-key=life-framed]")
    turn.focus()
    page.keyboard.press("Enter")
    expect(row).to_contain_text("archived")
    expect(turn).to_be_focused()
    expect(turn).to_contain_text("Bring back")
    page.keyboard.press("Enter")
    expect(row).to_contain_text("open")
    expect(turn).to_be_focused()
    expect(page.locator("#projects-framed-old")).to_contain_text("archived")
    gone = page.locator("#projects-framed-gone")
    expect(gone).to_contain_text("deleted")
    assert gone.get_by_role("link").count() == 0  # its pages are gone until it is restored
    page.locator("[data-key=life-framed-gone]").click()
    expect(gone.get_by_role("link")).to_have_count(1)


def test_a_table_of_admins_is_a_list_of_cards_on_a_phone(visitor: Visitor, framed: str) -> None:
    page = visitor.open("/admin/projects", **PHONE)
    cell = page.locator("#projects-framed td").nth(2)
    cell.wait_for()
    assert cell.evaluate("cell => getComputedStyle(cell, '::before').content") == '"Items"'
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#projects").evaluate("body => body.closest('.table-scroll').scrollWidth") <= 390
    expect(page.get_by_role("row").filter(has_text=LONG)).to_have_count(1)  # still a table for a screen reader
    check(page)


def test_every_moment_names_its_zone_and_the_log_speaks_the_readers_language(visitor: Visitor, framed: str) -> None:
    page = visitor.open("/admin/log?project=framed", timezone_id="Asia/Shanghai")
    first = page.locator("#operations time").first
    expect(first).to_have_text(re.compile(r"GMT\+8$"))
    plain = visitor.context(java_script_enabled=False).new_page()
    plain.goto("/admin/log")
    assert plain.locator("#operations time").first.inner_text().endswith(" UTC")
    page.goto("/admin/projects")
    expect(page.locator("#projects time").first).to_have_text(re.compile(r"GMT\+8$"))
    chinese = visitor.open("/admin/log?project=framed", locale="zh-CN")
    expect(chinese.locator("#operations")).to_contain_text("ada 创建了项目")


def test_a_form_keeps_what_was_typed_when_it_is_refused(app: App, visitor: Visitor, framed: str) -> None:
    page = visitor.open(f"/projects/{framed}/people")
    page.get_by_label("Name").fill("no<body>")
    page.locator("#role").select_option("reviewer")
    page.get_by_role("button", name="Give the role").click()
    expect(page.get_by_role("alert")).to_contain_text("no account is called 'no<body>'")
    assert (page.get_by_label("Name").input_value(), page.locator("#role").input_value()) == ("no<body>", "reviewer")
    page.goto("/people")
    page.get_by_label("Name").fill("two words")
    page.get_by_label("Password").fill("correct horse")
    page.get_by_role("button", name="Add a person").click()
    assert page.get_by_label("Name").input_value() == "two words"
    visitor.expected.append("422")
    page.goto(f"/projects/{framed}/labels")
    page.locator("#new-label").fill("tit")
    page.locator("#add button").click()
    expect(page.locator("#problem")).to_contain_text("different labels")
    assert page.locator("#new-label").input_value() == "tit"


def test_an_upload_that_nobody_can_read_is_told_in_words(app: App, visitor: Visitor, framed: str) -> None:
    page = visitor.open(f"/projects/{framed}/data", locale="zh-CN")
    page.set_input_files("#file", {"name": "none.csv", "mimeType": "text/csv", "buffer": b""})
    page.locator("#upload button[type=submit]").click()
    page.locator("#imports article").first.wait_for()
    app.import_all()
    expect(page.locator("#imports")).to_contain_text("CSV 是空的")
    visitor.expected.append("413")
    page.route("**/imports", lambda route: route.fulfill(status=413, body="<html>too large</html>"))
    page.set_input_files("#file", {"name": "big.csv", "mimeType": "text/csv", "buffer": b"id,text\n"})
    page.locator("#upload button[type=submit]").click()
    expect(page.locator("#upload-said")).to_contain_text("413")


def test_a_refused_export_is_told_to_everybody_not_to_screen_readers_alone(visitor: Visitor, framed: str) -> None:
    visitor.expected.append("503")
    page = visitor.open(f"/projects/{framed}/data")
    page.route("**/exports", lambda route: route.fulfill(status=503, json={"message": "the disk is full"}))
    page.locator("#export button[type=submit]").click()
    expect(page.get_by_role("alert")).to_have_text("the disk is full")
    page.unroute("**/exports")


def test_an_empty_project_says_so_and_leads_the_owner_to_its_data(app: App, visitor: Visitor, sessions: dict[str, Any]) -> None:
    slug = app.project("nothing-in-it", [])
    page = visitor.open(f"/projects/{slug}/label")
    expect(page.locator("#stop-text")).to_contain_text("nothing has been uploaded to label yet")
    page.goto(f"/projects/{slug}")
    page.get_by_role("link", name="Upload items").click()
    page.wait_for_url(f"**/projects/{slug}/data")


def test_a_page_that_looks_again_keeps_the_focus_where_it_was(visitor: Visitor, framed: str) -> None:
    page = visitor.context().new_page()
    page.clock.install()
    page.goto("/")
    link = page.locator(f"#label-{framed}")
    link.focus()
    before = page.locator(".cards").element_handle()
    page.clock.fast_forward(11_000)
    page.wait_for_function("old => !old.isConnected", arg=before)
    expect(link).to_be_focused()
