"""A whole day of an owner through the pages: a project from nothing, its people, labels, figures, exports, archive and end."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import PASSWORD, App, Visitor, press, wait_until
from webapp.media import MediaStore
from webapp.people.bulk import BulkRunner
from webapp.pilot import upkeep
from webapp.pilot.upkeep import Upkeep
from webapp.rooms import export_dir, media_dir
from webapp.transfer.exporter import Exporter

TITLE, SLUG, ITEMS = "Birds of a day", "birds-of-a-day", 30


def create(page: Page) -> None:
    """Fill the form of a new project by keyboard, looking at its preview."""
    press(page, "button", "New project", "main")
    page.wait_for_url("**/projects/new")
    page.keyboard.type(TITLE)
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.type("owl\ntit\ntits\njay")
    expect(page.locator("#preview strong")).to_have_text(TITLE)
    expect(page.locator("#preview li")).to_have_count(4)
    press(page, "button", "Create project", "main")
    page.wait_for_url(f"**/projects/{SLUG}/data")


def upload(app: App, page: Page, folder: Path) -> None:
    """Upload a table with one broken row; the broken row is listed."""
    table = folder / "birds.csv"
    rows = "".join(f"t{n:02d},text number {n}\n" for n in range(ITEMS))
    table.write_text(f"id,text\n{rows}broken,\n", encoding="utf-8")
    page.get_by_label("Files").set_input_files(table)
    press(page, "button", "Import", "main")
    expect(page.locator("#imports")).to_contain_text("waiting")
    app.import_all()
    expect(page.locator("#imports")).to_contain_text(f"{ITEMS} rows in, 1 failed")


def invite(visitor: Visitor, page: Page) -> Page:
    """Invite somebody; return the newcomer's page, who made an account from the link."""
    press(page, "link", "People", "header")
    page.get_by_label("Role").last.select_option("annotator")
    press(page, "button", "Make an invitation", "main")
    link = page.locator("#made-link").inner_text()
    newcomer = visitor.open("/login", None)
    newcomer.goto(link)
    newcomer.get_by_label("Name").fill("newt")
    newcomer.get_by_label("Password").fill(PASSWORD)
    newcomer.keyboard.press("Enter")
    newcomer.get_by_role("link", name=TITLE, exact=True).wait_for()
    page.reload()
    expect(page.locator("#people")).to_contain_text("newt")
    return newcomer


def label(page: Page, keys: str) -> None:
    """Answer one item after the other, a key each."""
    page.goto(f"/projects/{SLUG}/label")
    for key in keys:
        before = page.locator(".words").inner_text()
        page.keyboard.press(key)
        expect(page.locator("#stage-body")).not_to_have_text(before)
    expect(page.locator("#saving")).to_have_text("All saved.")


def rewrite(app: App, page: Page) -> None:
    """Do what the pilot does in the background after a change of labels."""
    upkeep.SETTLE_S = 0.0
    Upkeep(app.database, MediaStore(media_dir(app.settings)), 1e9, threading.Event()).cycle()
    expect(page.locator("#job")).to_contain_text("All labels bear the names of today")


def merge(page: Page) -> None:
    """Merge 'tits' into 'tit'."""
    page.get_by_role("checkbox", name="Choose tits for merging").focus()
    page.keyboard.press("Space")
    page.locator("#into").select_option("tit")
    press(page, "button", "Merge", "#merge")
    expect(page.locator("#label-list input[type=checkbox]")).to_have_count(3)


def change_labels(app: App, page: Page) -> None:
    """Rename a label and merge two, take the merging back, do it again."""
    press(page, "link", "Settings", "header")
    press(page, "link", "Rename or merge labels", "main")
    page.get_by_role("checkbox", name="Choose owl for merging").focus()
    page.keyboard.press("F2")
    page.keyboard.type("barn owl")
    page.keyboard.press("Enter")
    page.get_by_role("checkbox", name="Choose barn owl for merging").wait_for()
    rewrite(app, page)
    merge(page)
    page.get_by_role("checkbox", name="Choose jay for merging").focus()
    page.keyboard.press("Control+z")
    expect(page.locator("#label-list input[type=checkbox]")).to_have_count(4)
    rewrite(app, page)
    merge(page)
    rewrite(app, page)
    assert app.call("GET", f"/projects/{SLUG}")["labels"] == ["barn owl", "tit", "jay"]


def set_work(app: App, page: Page) -> None:
    """Known answers and two people an item, on the page of quality."""
    press(page, "link", "Quality", "header")
    expect(page.locator("#fact-items")).to_have_text("0")
    known = next(iter(app.labels_of(SLUG)))
    page.locator("#gold-items").fill(known)
    page.keyboard.press("Enter")
    expect(page.locator("#gold-said")).to_contain_text("1 marked")
    page.locator("#work-gold_share").fill("0.1")
    page.locator("#work-overlap").fill("2")
    page.keyboard.press("Enter")
    expect(page.locator("#work-said")).to_have_text("All saved.")
    assert (app.call("GET", f"/projects/{SLUG}/work")["overlap"], app.call("GET", f"/projects/{SLUG}/gold")["total"]) == (2, 1)
    page.locator("#work-gold_share").fill("0")
    page.locator("#work-overlap").fill("1")
    page.keyboard.press("Enter")
    wait_until(lambda: app.call("GET", f"/projects/{SLUG}/work")["overlap"] == 1, "one opinion an item again")


def accept_at_once(app: App, page: Page) -> None:
    """Accept sure drafts with an audit, and answer its two items without a draft, one of them otherwise."""
    labelled = app.labels_of(SLUG)
    app.draft(SLUG, {f"t{n:02d}": (("tit",), 0.9) for n in range(ITEMS) if f"t{n:02d}" not in labelled})
    page.reload()
    expect(page.locator("#fact-items")).to_have_text("0")
    page.locator("#bulk-least").fill("0.8")
    page.locator("#bulk-audit").fill("2")
    page.keyboard.press("Enter")
    expect(page.locator("#bulk-jobs li")).to_contain_text("waiting")
    BulkRunner(app.database, threading.Event()).cycle()
    expect(page.locator("#bulk-jobs li")).to_contain_text("2 items go to people without the draft")
    accepted = app.call("GET", f"/projects/{SLUG}/bulk")["jobs"][0]["accepted"]
    expect(page.locator("#bulk-jobs li")).to_contain_text(f"{accepted} accepted")
    assert accepted > ITEMS // 3, "all but those that the annotator holds"
    label(page, "2")
    expect(page.locator("#draft")).to_contain_text("no draft", ignore_case=True)
    page.keyboard.press("3")
    expect(page.locator("#empty")).to_contain_text("Nothing is left")
    expect(page.locator("#saving")).to_have_text("All saved.")
    press(page, "link", "Quality", "header")
    expect(page.locator(".audit")).to_contain_text("2 of 2 looked at, 1 wrong; error 50.0 %")


def export(app: App, page: Page) -> None:
    """Take the labels out, at once and in the background."""
    press(page, "link", "Data", "header")
    with page.expect_download() as download:
        press(page, "button", "JSONL", "main")
    lines = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
    assert {line["id"]: line["labels"] for line in lines} == app.labels_of(SLUG)
    page.locator("#format").select_option("csv")
    press(page, "button", "Export in the background", "main")
    expect(page.locator("#exports article")).to_have_count(1)
    Exporter(app.database, MediaStore(media_dir(app.settings)), export_dir(app.settings)).run_all()
    with page.expect_download() as download:
        press(page, "button", "Download", "#exports")
    assert len(Path(download.value.path()).read_text().splitlines()) == len(lines) + 1


def put_away_and_bring_back(page: Page) -> None:
    """Archive and bring back, delete and restore."""
    for act, back in (("Archive", "Bring back"), ("Delete", "Restore")):
        press(page, "link", "Settings", "header")
        press(page, "button", act, "main")
        page.wait_for_url("**/archive")
        press(page, "button", f"{back} {TITLE}", "main")
        page.wait_for_url(f"**/projects/{SLUG}")


def test_a_day_of_an_owner(app: App, visitor: Visitor, tmp_path: Path) -> None:
    app.call("POST", "/users", {"name": "otto", "password": PASSWORD})
    page = visitor.enter("otto")
    create(page)
    upload(app, page, tmp_path)
    newcomer = invite(visitor, page)
    label(newcomer, "1234")
    assert sorted(app.labels_of(SLUG).values()) == [["jay"], ["owl"], ["tit"], ["tits"]]
    press(page, "link", "Status", "header")
    expect(page.locator("#labels")).to_have_text("4")
    expect(page.locator("#spread-list li")).to_have_count(4)
    change_labels(app, page)
    assert sorted(app.labels_of(SLUG).values()) == [["barn owl"], ["jay"], ["tit"], ["tit"]]
    set_work(app, page)
    accept_at_once(app, page)
    export(app, page)
    put_away_and_bring_back(page)
    expect(page.locator("#labels")).to_have_text(str(len(app.labels_of(SLUG))))
