"""A whole day of an admin through the pages: accounts and lost passwords, a worker that is missing, the log, webhooks, a backup."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from labelloop import messages as m
from tests.browser.conftest import PASSWORD, App, Visitor, press
from tests.browser.test_admin import node
from webapp.admin import backup
from webapp.admin.troubles import Reading
from webapp.db import readings

NEW_PASSWORD = "another horse battery"


@pytest.fixture
def cluster(app: App, sessions: object) -> App:
    """A cluster whose only train node is silent, as the pilot would have written it."""
    nodes = (node("gpu-1", "10.0.0.9", "train", is_alive=False), node("gpu-2", "10.0.0.10", "inference"))
    topology = m.Topology(epoch=4, train_rpc="", inference_rpc=("10.0.0.10:7002",))
    with app.database.write() as tx:
        reading = Reading(m.NodesReply(nodes=nodes, epoch=4, cluster_id="c1"), topology, ())
        readings.save_reading(tx, "cluster", reading, "", time.time() + 3600)
    return app


def care_for_people(visitor: Visitor, page: Page) -> None:
    """Add a person, send a link for a lost password, lock the person out and let them in again."""
    press(page, "link", "Administration", "header")
    press(page, "link", "Accounts", ".places")
    page.get_by_label("Name").fill("nadia")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("#people")).to_contain_text("nadia")
    press(page, "button", "Link for a new password nadia", "#people")
    link = page.locator("#made-link").inner_text()
    person = visitor.open("/login", None)
    person.goto(link)
    person.get_by_label("New password").fill(NEW_PASSWORD)
    person.keyboard.press("Enter")
    person.wait_for_url("**/")
    press(page, "button", "Lock out nadia", "#people")
    page.get_by_role("button", name="Let in nadia").wait_for()
    person.goto("/")
    person.get_by_role("button", name="Log in").wait_for()
    press(page, "button", "Let in nadia", "#people")
    page.get_by_role("button", name="Lock out nadia").wait_for()
    person.get_by_label("Name").fill("nadia")
    person.get_by_label("Password").fill(NEW_PASSWORD)
    person.keyboard.press("Enter")
    person.get_by_role("heading", name="Projects").wait_for()
    expect(person.get_by_role("link", name="Administration")).to_have_count(0)


def look_after_the_cluster(page: Page) -> None:
    """See at a glance what is missing: a red sentence with its way out, and the silent node in the table."""
    press(page, "link", "Administration", "header")
    said = page.get_by_role("alert").locator("#troubles li")
    expect(said).to_have_count(2)
    expect(said.first).to_contain_text("no train worker is online, so no label is learned")
    expect(said.first).to_contain_text("boot a node, then `labelloop assign NODE=train`")
    expect(said.last).to_contain_text("node gpu-1 has been silent for")
    red = page.locator("#troubles strong").first.evaluate("part => getComputedStyle(part).color").strip("rgb()").split(", ")
    assert int(red[0]) > 2 * max(int(red[1]), int(red[2])), f"the sentence is not red but {red}"
    expect(page.locator("#fine")).to_be_hidden()
    expect(page.locator("#nodes tr")).to_have_count(2)


def read_the_log(page: Page) -> None:
    """Find who was locked out, by kind and by person."""
    press(page, "link", "Log", "header")
    page.get_by_label("Person").select_option("ada")
    press(page, "button", "Show", "main")
    expect(page.locator("#operations")).to_contain_text("nadia")
    assert set(page.locator("#operations tr td:nth-child(2)").all_inner_texts()) == {"ada"}
    with page.expect_download() as download:
        press(page, "button", "Export as CSV", "main")
    assert "nadia" in Path(download.value.path()).read_text()


def keep_a_webhook(page: Page) -> None:
    """Add a webhook, whose key is shown once; try it out, see the message that waits, delete it."""
    press(page, "link", "Webhooks", "header")
    expect(page.locator("#hooks-empty")).to_be_visible()
    page.get_by_label("Address").fill("https://1.1.1.1/day")
    page.keyboard.press("Enter")
    expect(page.locator("#secret-text")).to_contain_text("whsec_")
    row = page.locator("#hooks tr", has_text="https://1.1.1.1/day")
    row.get_by_role("button", name="Test").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#deliveries tr")).to_have_count(1)
    row.get_by_role("button", name="Delete").focus()
    page.keyboard.press("Enter")
    expect(row).to_have_count(0)
    page.reload()
    expect(page.locator("#hooks-empty")).to_be_visible()
    expect(page.locator("body")).not_to_contain_text("whsec_")


def back_up(app: App, page: Page) -> None:
    """Ask for a backup and take it home."""
    press(page, "link", "Disk and backup", "header")
    press(page, "button", "Back up now", "main")
    expect(page.locator("#backups")).to_contain_text("waits for the pilot")
    assert backup.make_next(app.database, app.settings)
    download_link = page.get_by_role("link", name="Download").first
    download_link.focus()
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert Path(download.value.path()).stat().st_size > 10_000


def test_a_day_of_an_admin(visitor: Visitor, cluster: App) -> None:
    page = visitor.enter("ada")
    care_for_people(visitor, page)
    look_after_the_cluster(page)
    read_the_log(page)
    keep_a_webhook(page)
    back_up(cluster, page)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
