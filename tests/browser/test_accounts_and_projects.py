"""Accounts, and a project from nothing: created by keyboard, filled by upload, listed on the first page."""

from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.sync_api import Page

from tests.browser.conftest import PASSWORD, App, Visitor, sign_in


def type_into(page: Page, *words: str) -> None:
    """Type words into fields one after the other, going on with Tab."""
    for word in words:
        page.keyboard.type(word)
        page.keyboard.press("Tab")


def test_the_first_account_is_admin_and_the_next_is_not(visitor: Visitor) -> None:
    page = visitor.open("/")
    page.get_by_role("link", name="Administration").click()
    page.get_by_role("link", name="Accounts").click()
    assert re.search(r"ada\s+admin", page.locator("#people").inner_text())
    plain = visitor.open("/", "bob")
    assert plain.get_by_role("link", name="Administration").count() == 0


def test_an_invitation_link_leads_a_newcomer_into_the_project_and_its_code_leaves_the_address(app: App, visitor: Visitor) -> None:
    slug = app.texts("invited", 1)
    page = visitor.open(f"/projects/{slug}/people")
    page.get_by_role("button", name="Make an invitation").click()
    link = page.locator("#made-link").inner_text()
    newcomer = visitor.open("/login", None)
    newcomer.goto(link)
    assert "#" not in newcomer.url
    newcomer.get_by_label("Name").fill("newcomer")
    newcomer.get_by_label("Password").fill(PASSWORD)
    newcomer.keyboard.press("Enter")
    newcomer.get_by_role("link", name="invited").first.wait_for()
    page.goto(f"/projects/{slug}/people")
    assert re.search(r"newcomer\s+annotator", page.locator("#people").inner_text())
    page.get_by_role("button", name="Take out newcomer").click()
    page.wait_for_function("() => !document.querySelector('#people').innerText.includes('newcomer')")


def test_an_admins_link_sets_a_new_password_and_a_locked_out_person_comes_no_further(app: App, visitor: Visitor) -> None:
    app.call("POST", "/users", {"name": "forgetful", "password": PASSWORD})
    page = visitor.open("/people")
    page.get_by_role("button", name="Link for a new password forgetful").click()
    link = page.locator("#made-link").inner_text()
    person = visitor.open("/login", None)
    person.goto(link)
    person.get_by_label("New password").fill("another horse battery")
    person.keyboard.press("Enter")
    person.wait_for_url("**/")
    page.get_by_role("button", name="Lock out forgetful").click()
    page.get_by_role("button", name="Let in forgetful").wait_for()
    person.goto("/")
    person.get_by_role("button", name="Log in").wait_for()


def test_a_person_changes_the_password_and_stays_logged_in(app: App, visitor: Visitor) -> None:
    app.call("POST", "/users", {"name": "careful", "password": PASSWORD})
    page = visitor.open("/login", None)
    sign_in(page, app.url, "careful")
    page.goto("/account")
    page.get_by_label("Password now").fill(PASSWORD)
    page.get_by_label("New password").fill("another horse battery")
    page.get_by_role("button", name="Change password").click()
    page.get_by_text("Your password is changed").wait_for()


def test_a_wrong_password_is_a_clear_sentence_in_both_languages(visitor: Visitor) -> None:
    page = visitor.open("/login", None)
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill("wrong password")
    page.keyboard.press("Enter")
    assert page.get_by_role("alert").inner_text() == "name or password is wrong: check both, or ask an admin for a new password"
    assert page.get_by_label("Name").input_value() == "ada"
    page.get_by_role("button", name="中文").click()
    page.get_by_label("用户名").fill("ada")
    page.get_by_label("密码").fill("wrong password")
    page.keyboard.press("Enter")
    page.get_by_text("用户名或密码错误：请检查，或向管理员索取新密码").wait_for()


def test_a_stranger_is_led_to_the_login_and_back_to_where_they_wanted(app: App, visitor: Visitor) -> None:
    app.texts("wanted", 1)
    page = visitor.open("/projects/wanted/data", None)
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.locator("#upload").wait_for()
    assert "/login" not in page.url
    page.goto("/")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    page.goto("/login?next=//evil.example/")
    sign_in(page, app.url, "ada")


def test_a_token_is_shown_once_works_and_is_revoked_without_a_reload(app: App, visitor: Visitor) -> None:
    page = visitor.open("/account", "bob")
    page.get_by_label("What it is for").fill("nightly export")
    page.get_by_role("button", name="Create token").click()
    secret = page.locator("code").inner_text()
    assert len(secret) > 30
    revoke = page.get_by_role("button", name="Revoke nightly export")
    revoke.click()
    revoke.wait_for(state="detached")
    assert page.locator("code").inner_text() == secret, "the page was loaded anew"
    page.goto("/account")
    assert secret not in page.content()


def test_a_project_is_created_by_keyboard_alone(app: App, visitor: Visitor) -> None:
    page = visitor.open("/")
    page.get_by_role("button", name="New project").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/projects/new")
    page.keyboard.type("Garden birds")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.type("owl")
    page.keyboard.press("Enter")
    page.keyboard.type("山雀")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.press("Control+a")
    type_into(page, "90")
    page.keyboard.press("Control+a")
    page.keyboard.type("500")
    page.keyboard.press("Enter")
    page.wait_for_url("**/projects/garden-birds/data")
    made = app.call("GET", "/projects/garden-birds")
    found = {name: made[name] for name in ("title", "category", "labels", "kind", "target", "budget")}
    assert found == {
        "title": "Garden birds",
        "category": "text-classification",
        "labels": ["owl", "山雀"],
        "kind": "multilabel",
        "target": 0.9,
        "budget": 500,
    }


def test_a_project_that_cannot_be_is_refused_with_the_form_kept(visitor: Visitor) -> None:
    page = visitor.open("/projects/new")
    page.get_by_label("Title").fill("One label")
    page.get_by_label("Labels", exact=True).fill("owl")
    page.get_by_role("button", name="Create project").click()
    assert "give 2 to 1000 different labels" in page.get_by_role("alert").inner_text()
    assert page.get_by_label("Title").input_value() == "One label"


def test_csv_and_jsonl_are_uploaded_together_and_failed_rows_are_listed(app: App, visitor: Visitor, tmp_path: Path) -> None:
    app.project("uploads", [])
    table = tmp_path / "first.csv"
    table.write_text("id,text\na,first text\nb,第二\nc,\n", encoding="utf-8")
    lines = tmp_path / "second.jsonl"
    lines.write_text(json.dumps({"id": "d", "text": "fourth"}) + "\nno json\n", encoding="utf-8")
    page = visitor.open("/projects/uploads/data")
    page.get_by_label("Files").set_input_files([table, lines])
    page.get_by_role("button", name="Import").click()
    page.locator("#imports").get_by_text("waiting").first.wait_for()
    assert page.locator("#imports progress").count() == 2
    app.import_all()
    page.locator("#imports").get_by_text("2 rows in, 1 failed").wait_for()
    page.locator("#imports").get_by_text("1 rows in, 1 failed").wait_for()
    assert page.locator("#imports progress").first.get_attribute("value") == "1"
    for summary in page.get_by_text("Rows that failed").all():
        summary.click()
    reasons = " ".join(page.locator("#imports li").all_inner_texts())
    assert "the text is empty" in reasons
    assert "not a JSON object" in reasons
    assert app.call("GET", "/projects/uploads/status")["items"] == 3
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    assert Path(download.value.path()).read_text().startswith("id,")
    page.get_by_label("Items").select_option("all")
    page.get_by_role("button", name="Export in the background").click()
    page.locator("#exports").get_by_role("button", name="Cancel").click()
    page.locator("#exports article").wait_for(state="detached")


def test_an_annotator_sees_the_export_but_no_import(app: App, visitor: Visitor) -> None:
    app.texts("shared", 2)
    app.call("POST", "/projects/shared/members", {"name": "bob", "role": "annotator"})
    page = visitor.open("/projects/shared/data", "bob")
    page.get_by_role("button", name="CSV").wait_for()
    assert page.locator("#upload").count() == 0


def test_the_list_of_projects_follows_the_labelling_without_a_reload(app: App, visitor: Visitor) -> None:
    app.texts("listed", 4, title="Listed birds")
    context = visitor.context()
    context.clock.install()
    page = context.new_page()
    page.goto("/")
    card = page.locator("article", has_text="Listed birds")
    assert "0 of 4 labelled" in card.inner_text()
    app.call("POST", "/projects/listed/annotations", {"item_id": "t00", "labels": ["owl"]})
    context.clock.run_for(11_000)
    card.get_by_text("1 of 4 labelled").wait_for()
