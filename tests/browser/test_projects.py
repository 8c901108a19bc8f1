"""A project's labels, its life and its form, as its owner uses them by keyboard."""

from __future__ import annotations

import threading
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import App, Visitor, wait_until
from tests.browser.test_every_page import check
from webapp.media import MediaStore
from webapp.pilot import upkeep
from webapp.pilot.upkeep import Upkeep
from webapp.rooms import media_dir


def work(app: App) -> None:
    """Do what the pilot does in the background."""
    upkeep.SETTLE_S = 0.0
    Upkeep(app.database, MediaStore(media_dir(app.settings)), 1e9, threading.Event()).cycle()


def test_labels_are_renamed_merged_and_taken_back_by_keyboard_alone(app: App, visitor: Visitor) -> None:
    app.beat()
    slug = app.texts("labelset", 4)
    app.call("POST", f"/projects/{slug}/annotations", {"item_id": "t00", "labels": ["owl"]})
    page = visitor.open(f"/projects/{slug}/labels")
    page.get_by_role("checkbox", name="Choose owl for merging").focus()
    page.keyboard.press("F2")
    page.keyboard.type("<b>barn owl</b>")
    page.keyboard.press("Enter")
    box = page.get_by_role("checkbox", name="Choose <b>barn owl</b> for merging")
    box.wait_for()
    assert page.evaluate("document.activeElement.value") == "<b>barn owl</b>"
    assert page.locator("#label-list b").count() == 0
    work(app)
    page.get_by_text("All labels bear the names of today: 1 were written anew.").wait_for()
    assert app.labels_of(slug) == {"t00": ["<b>barn owl</b>"]}
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    page.locator("#into").focus()
    page.keyboard.press("Home")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("tit are <b>barn owl</b> now.").first.wait_for()
    assert app.call("GET", f"/projects/{slug}")["labels"] == ["<b>barn owl</b>", "jay"]
    page.get_by_role("checkbox", name="Choose jay for merging").focus()
    page.keyboard.press("Control+z")
    page.get_by_role("checkbox", name="Choose tit for merging").wait_for()
    assert app.call("GET", f"/projects/{slug}")["labels"] == ["<b>barn owl</b>", "tit", "jay"]


def test_a_deleted_project_is_restored_from_the_archive(app: App, visitor: Visitor) -> None:
    slug = app.texts("shortlived", 2)
    page = visitor.open(f"/projects/{slug}/settings")
    page.get_by_role("button", name="Delete", exact=True).click()
    page.wait_for_url("**/archive")
    page.get_by_role("button", name="Restore shortlived").wait_for()
    home = visitor.open("/")
    assert home.get_by_role("link", name="shortlived", exact=True).count() == 0
    page.get_by_role("button", name="Restore shortlived").click()
    page.wait_for_url(f"**/projects/{slug}")


def test_an_archived_project_is_copied_and_brought_back(app: App, visitor: Visitor) -> None:
    visitor.expected.append("409")
    slug = app.texts("winter", 3)
    page = visitor.open(f"/projects/{slug}/settings")
    page.get_by_role("button", name="Archive", exact=True).click()
    page.wait_for_url("**/archive")
    page.goto(f"/projects/{slug}/label")
    page.get_by_text("is archived").first.wait_for()
    page.goto(f"/projects/{slug}/settings")
    page.get_by_label("Title of the copy").fill("summer")
    page.get_by_role("button", name="Copy", exact=True).click()
    page.wait_for_url("**/projects/summer/settings")
    work(app)
    wait_until(lambda: app.call("GET", "/projects/summer")["items"] == 3, "the copy has no items")
    page.goto("/archive")
    page.get_by_role("button", name="Bring back winter").click()
    page.wait_for_url(f"**/projects/{slug}")


def test_the_status_page_draws_bounds_time_by_version_and_spread(app: App, visitor: Visitor, digits: str) -> None:
    page = visitor.open("/projects/digits")
    page.locator("#by-version canvas").wait_for()
    page.locator("#spread-list li").first.wait_for()
    assert page.locator("#spread-list li").count() == 10
    assert "guessing at random" in page.locator("#curve").inner_text()
    assert page.locator("#pace").inner_text().replace(",", "").isdigit()
    assert (
        "h" in page.locator("#eta").inner_text()
        or "min" in page.locator("#eta").inner_text()
        or "s" in page.locator("#eta").inner_text()
    )
    assert page.locator("#people-agreement-fact").is_hidden()


def test_a_lost_stream_is_said_and_the_page_goes_on_by_asking(app: App, visitor: Visitor) -> None:
    visitor.expected += ["ERR_FAILED", "ERR_ABORTED"]
    app.beat()
    slug = app.texts("lossy", 6)
    page = visitor.context().new_page()
    page.route("**/events*", lambda route: route.abort())
    page.goto(f"/projects/{slug}")
    page.get_by_text("Live updates are interrupted").wait_for(timeout=15_000)
    app.call("POST", f"/projects/{slug}/annotations", {"item_id": "t00", "labels": ["owl"]})
    page.wait_for_function("() => document.querySelector('#labels').textContent === '1'")
    page.unroute("**/events*")
    page.locator("#connection").wait_for(state="hidden", timeout=15_000)


def test_the_form_shows_the_labelling_page_as_it_will_be(visitor: Visitor) -> None:
    page = visitor.open("/projects/new")
    page.get_by_label("Title").fill("Birds <i>of</i> the wood")
    page.locator("#labels").fill("owl\n<b>tit</b>\n5")
    page.get_by_text("More").click()
    words = "# Look twice\n\n**Owls** <script>alert(1)</script> [more](https://example.org)\n\n| a |\n|:-:|\n| 1 |"
    page.locator("#instructions").fill(words)
    page.locator("#preview h3", has_text="Look twice").wait_for()
    shown = page.locator("#preview")
    assert shown.locator("strong").first.inner_text() == "Birds <i>of</i> the wood"
    assert [one.inner_text().split() for one in shown.locator("li").all()] == [["owl", "1"], ["<b>tit</b>", "2"], ["5", "5"]]
    assert shown.locator("script, b, i").count() == 0
    assert shown.locator("a").get_attribute("rel") == "noopener noreferrer nofollow"
    assert shown.locator("th").get_attribute("class") == "at-center"
    page.locator("#category").select_option("audio")
    page.get_by_text("Here stands the sound").wait_for()
    kinds = page.locator("#kinds label:visible").all_inner_texts()
    assert [kind.strip() for kind in kinds] == ["Exactly one", "Any number", "Stretches of time"]
    page.locator("#category").select_option("regression")
    page.get_by_text("Written into a field; Enter saves.").wait_for()
    assert page.locator("#labels").is_disabled() and page.locator("input[name=kind]:checked").get_attribute("value") == "number"


def test_instructions_in_markdown_stand_on_the_labelling_page(app: App, visitor: Visitor) -> None:
    slug = app.texts("guided", 2, instructions="Only **birds**.\n\n<img src=x onerror=alert(1)>")
    page = visitor.open(f"/projects/{slug}/label")
    page.get_by_text("Instructions").click()
    assert page.locator(".instructions strong").inner_text() == "birds"
    assert page.locator(".instructions img").count() == 0
    assert "<img src=x onerror=alert(1)>" in page.locator(".instructions").inner_text()


def test_the_form_asks_what_the_chosen_kind_has_and_the_settings_change_it(app: App, visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.open("/projects/new", viewport={"width": 1180, "height": 1100})
    page.get_by_label("Title").fill("Tree heights")
    expect(page.get_by_label("Unit", exact=True)).to_be_hidden()
    page.get_by_label("What is to be labelled").select_option("regression")
    page.get_by_label("Unit", exact=True).fill("m")
    page.get_by_label("Least", exact=True).fill("0")
    page.get_by_label("Most", exact=True).fill("120")
    check(page)
    page.screenshot(path=tmp_path / "limits-en.png", full_page=True)
    page.get_by_role("button", name="Create project").click()
    page.wait_for_url("**/tree-heights/data")
    assert app.call("GET", "/projects/tree-heights")["limits"] == {"number": {"unit": "m", "least": 0.0, "most": 120.0}}
    page = visitor.open("/projects/tree-heights/settings", locale="zh-CN", viewport={"width": 1180, "height": 1100})
    expect(page.get_by_label("单位")).to_have_value("m")
    page.get_by_label("最大值", exact=True).fill("")
    page.screenshot(path=tmp_path / "limits-zh.png", full_page=True)
    page.get_by_role("button", name="保存").click()
    page.wait_for_load_state()
    assert app.call("GET", "/projects/tree-heights")["limits"] == {"number": {"unit": "m", "least": 0.0}}
