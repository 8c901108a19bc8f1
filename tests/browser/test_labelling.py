"""The labelling page by keys: accept, change, undo, skip; it never waits for the network and loses nothing without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route

from scripts.samples import load_sample
from tests.browser.conftest import App, Visitor, wait_until
from tests.browser.test_outbox import KEPT


def shown(page: Page) -> str:
    """Return the text on the stage."""
    return page.locator(".words").inner_text()


def open_desk(visitor: Visitor, slug: str) -> Page:
    """Open a labelling page and wait for its first item."""
    page = visitor.open(f"/projects/{slug}/label")
    page.wait_for_selector(".words, .record, .picture img")
    return page


def wait_saved(page: Page) -> None:
    """Wait until nothing is on its way."""
    page.wait_for_function("() => document.getElementById('saving').textContent === 'All saved.'")


def press_and_see_next(page: Page, key: str) -> None:
    """Press a key and wait for another item."""
    before = shown(page)
    page.keyboard.press(key)
    page.wait_for_function("before => document.querySelector('.words')?.innerText !== before", arg=before)


def test_a_draft_is_accepted_by_enter_and_corrected_by_a_digit(app: App, visitor: Visitor) -> None:
    app.texts("accept")
    page = open_desk(visitor, "accept")
    assert page.locator("#draft strong").inner_text() == "tit"
    assert page.locator("#draft .sure").inner_text() == "80 %"
    assert page.get_by_role("button", name="tit").get_attribute("aria-pressed") == "true"
    first = shown(page)
    press_and_see_next(page, "Enter")
    second = shown(page)
    press_and_see_next(page, "1")
    wait_saved(page)
    assert (page.locator("#count-labels").inner_text(), page.locator("#count-corrected").inner_text()) == ("2", "1")
    status = app.call("GET", "/projects/accept/status")
    assert (status["labels"], status["drafted"], status["corrected"]) == (2, 2, 1)
    named = {f"text number {int(item_id[1:])}": labels for item_id, labels in app.labels_of("accept").items()}
    assert named == {first: ["tit"], second: ["owl"]}


def test_the_next_item_is_there_at_once_while_the_answer_is_still_on_its_way(app: App, visitor: Visitor) -> None:
    app.texts("quick")
    page = open_desk(visitor, "quick")
    held: list[Route] = []
    is_released: list[bool] = []

    def hold(route: Route) -> None:
        if is_released:
            route.continue_()
        else:
            held.append(route)

    page.route("**/annotations", hold)
    seen = [shown(page)]
    for _ in range(3):
        press_and_see_next(page, "Enter")
        seen.append(shown(page))
    assert len(set(seen)) == 4
    assert page.locator("#saving").inner_text() == "Saving 3…"
    assert app.call("GET", "/projects/quick/status")["labels"] == 0
    assert len(held) == 1, "one answer after the other is sent"
    is_released.append(True)
    held[0].continue_()
    wait_saved(page)
    assert len(app.labels_of("quick")) == 3


def test_undo_takes_the_label_back_and_the_new_choice_counts(app: App, visitor: Visitor) -> None:
    app.texts("undo")
    page = open_desk(visitor, "undo")
    first = shown(page)
    press_and_see_next(page, "3")
    second = shown(page)
    page.keyboard.press("u")
    page.wait_for_function("first => document.querySelector('.words').innerText === first", arg=first)
    item_id = f"t{int(first.split()[-1]):02d}"
    history = app.call("GET", f"/projects/undo/items/{item_id}")["history"]
    assert [(one["revision"], one["labels"], one["is_deleted"]) for one in sorted(history, key=lambda one: one["revision"])] == [
        (1, ["jay"], False),
        (2, [], True),
    ]
    assert page.get_by_role("button", name="jay").get_attribute("aria-pressed") == "true"
    press_and_see_next(page, "2")
    assert shown(page) == second
    wait_saved(page)
    assert app.labels_of("undo") == {item_id: ["tit"]}
    status = app.call("GET", "/projects/undo/status")
    counts = page.locator("#count-labels").inner_text(), page.locator("#count-corrected").inner_text()
    assert counts == (str(status["labels"]), str(status["corrected"]))
    page.keyboard.press("Control+z")
    page.wait_for_function("first => document.querySelector('.words').innerText === first", arg=first)
    wait_until(lambda: app.labels_of("undo") == {}, "the label is withdrawn")


def test_a_skipped_item_comes_back_only_when_nothing_else_is_left(app: App, visitor: Visitor) -> None:
    app.texts("skip", 4)
    page = open_desk(visitor, "skip")
    skipped = shown(page)
    press_and_see_next(page, "s")
    for _ in range(3):
        assert shown(page) != skipped
        press_and_see_next(page, "Enter")
    assert shown(page) == skipped
    page.keyboard.press("Enter")
    page.locator("#empty").get_by_text("Nothing is left").wait_for()
    wait_saved(page)
    assert len(app.labels_of("skip")) == 4


def test_a_picture_is_zoomed_moved_and_fitted(visitor: Visitor, digits: str) -> None:
    page = visitor.open("/projects/digits/label")
    image = page.locator(".picture img")
    image.wait_for()
    page.wait_for_function("() => document.querySelector('.picture img').style.transform.includes('scale')")
    fitted = image.bounding_box()
    stage = page.locator(".stage").bounding_box()
    assert fitted is not None
    assert stage is not None
    assert abs(fitted["x"] + fitted["width"] / 2 - stage["x"] - stage["width"] / 2) < 3
    assert abs(fitted["y"] + fitted["height"] / 2 - stage["y"] - stage["height"] / 2) < 3
    assert fitted["height"] <= stage["height"] < fitted["height"] * 1.1
    page.keyboard.press("+")
    assert image.bounding_box()["width"] == pytest.approx(fitted["width"] * 1.25, rel=0.01)  # type: ignore[index]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    moved = image.bounding_box()
    assert moved is not None
    assert moved["x"] + moved["width"] / 2 == pytest.approx(stage["x"] + stage["width"] / 2 - 40, abs=3)
    assert moved["y"] + moved["height"] / 2 == pytest.approx(stage["y"] + stage["height"] / 2 - 40, abs=3)
    page.keyboard.press("f")
    assert image.bounding_box() == pytest.approx(fitted)
    page.mouse.move(stage["x"] + 200, stage["y"] + 200)
    page.mouse.wheel(0, -100)
    wait_until(lambda: image.bounding_box()["width"] > fitted["width"] * 1.1, "the wheel zooms")  # type: ignore[index]
    page.mouse.down()
    page.mouse.move(stage["x"] + 260, stage["y"] + 200)
    page.mouse.up()
    dragged = image.bounding_box()
    assert dragged is not None
    assert dragged["x"] + dragged["width"] / 2 == pytest.approx(stage["x"] + stage["width"] / 2 + 60, abs=4)
    page.get_by_role("button", name="Fit").click()
    assert image.bounding_box() == pytest.approx(fitted)


def test_labels_that_are_digits_have_themselves_as_keys(app: App, visitor: Visitor, digits: str) -> None:
    page = visitor.open("/projects/digits/label")
    page.wait_for_selector(".picture img")
    name = page.locator(".picture img").get_attribute("alt")
    keys = page.locator("#choices kbd").all_inner_texts()
    assert keys == list("0123456789")
    page.keyboard.press("7")
    page.wait_for_function("name => document.querySelector('.picture img').alt !== name", arg=name)
    wait_saved(page)
    assert app.labels_of("digits")[str(name)] == ["7"]


def test_several_labels_are_switched_and_saved_together(app: App, visitor: Visitor) -> None:
    app.texts("many", kind="multilabel")
    page = open_desk(visitor, "many")
    first = shown(page)
    page.keyboard.press("1")
    page.keyboard.press("2")
    page.keyboard.press("3")
    pressed = page.locator("#choices button[aria-pressed=true] span").all_inner_texts()
    assert pressed == ["owl", "jay"]
    assert shown(page) == first
    press_and_see_next(page, "Enter")
    wait_saved(page)
    assert list(app.labels_of("many").values()) == [["owl", "jay"]]


def test_chinese_texts_and_table_rows_are_shown(app: App, visitor: Visitor) -> None:
    app.project("poems", [{"id": "p1", "text": "床前明月光，\n疑是地上霜。"}], labels=["唐诗", "宋词"])
    page = open_desk(visitor, "poems")
    assert shown(page) == "床前明月光，\n疑是地上霜。"
    assert page.locator("#choices span").all_inner_texts() == ["唐诗", "宋词"]
    page.keyboard.press("1")
    wait_saved(page)
    assert app.labels_of("poems") == {"p1": ["唐诗"]}
    row = {"size_mm": 12.5, "kind": "cell", "是否": True}
    app.project("cells", [{"id": "c1", "row": row}], category="tables")
    table = open_desk(visitor, "cells")
    assert table.locator(".record tr").all_inner_texts() == ["size_mm\t12.5", "kind\tcell", "是否\ttrue"]


def test_html_in_texts_labels_rows_and_titles_is_only_text(app: App, visitor: Visitor) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    label = "<b onclick=alert(1)>owl</b>"
    title, text = f"Evil {evil}", f"text {evil}"
    app.project(
        "evil", [{"id": "e1", "text": text}, {"id": "e2", "text": "mild"}], labels=[label, "tit"], title=title, instructions=evil
    )
    app.draft("evil", {"e1": ((label,), 0.9)})
    app.tell("evil", next_training=evil, stop=evil, comparer=evil)
    page = open_desk(visitor, "evil")
    assert shown(page) == text
    assert page.locator("#draft strong").inner_text() == label
    assert page.locator("#choices span").first.inner_text() == label
    page.keyboard.press("1")
    wait_saved(page)
    for path in ("/projects/evil", "/projects/evil/data", "/"):
        page.goto(path)
        page.locator("body").get_by_text("Evil <img").first.wait_for()
        assert "owned" not in page.title() or "Evil" in page.title()
        assert page.locator("img[src=x]").count() == 0
    page.goto("/projects/evil")
    page.wait_for_function("() => document.getElementById('next-training').textContent.startsWith('<img')")
    assert app.labels_of("evil")["e1"] == [label]


def test_the_help_lists_the_keys_and_closes(app: App, visitor: Visitor) -> None:
    app.texts("help")
    page = open_desk(visitor, "help")
    first = shown(page)
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("1")
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()
    assert shown(page) == first
    page.locator("#help-open").click()
    page.get_by_role("button", name="Close").click()
    assert not page.locator("#help").is_visible()


def test_a_spent_budget_is_said_instead_of_a_next_item(app: App, visitor: Visitor) -> None:
    app.texts("budget", 12, budget=2)
    page = open_desk(visitor, "budget")
    press_and_see_next(page, "Enter")
    page.keyboard.press("Enter")
    wait_saved(page)
    page.get_by_text("the labelling budget of 2 labels is reached").wait_for()


def test_answers_wait_in_the_browser_while_the_app_is_away_and_go_out_once(app: App, visitor: Visitor) -> None:
    visitor.expected.append("ERR_FAILED")
    app.texts("away")
    page = open_desk(visitor, "away")
    page.route("**/api/**", lambda route: route.abort())
    for _ in range(3):
        press_and_see_next(page, "Enter")
    page.get_by_text("The app does not answer").first.wait_for()
    assert page.evaluate(KEPT) == 3
    assert app.call("GET", "/projects/away/status")["labels"] == 0
    page.reload()
    page.wait_for_function("() => document.getElementById('saving').textContent === 'Saving 3…'")
    page.unroute("**/api/**")
    wait_saved(page)
    assert len(app.labels_of("away")) == 3
    assert page.evaluate(KEPT) == 0
    press_and_see_next(page, "Enter")
    wait_saved(page)
    assert len(app.labels_of("away")) == 4


def test_an_answer_whose_reply_was_lost_is_saved_once(app: App, visitor: Visitor) -> None:
    visitor.expected.append("ERR_FAILED")
    app.texts("lost")
    page = open_desk(visitor, "lost")
    sent: list[str] = []

    def lose(route: Route) -> None:
        sent.append(json.loads(route.request.post_data or "")["key"])
        if len(sent) > 1:
            route.continue_()
        else:
            route.fetch()
            route.abort()

    page.route("**/annotations", lose)
    press_and_see_next(page, "1")
    wait_saved(page)
    assert len(sent) == 2
    assert sent[0] == sent[1]
    assert list(app.labels_of("lost").values()) == [["owl"]]
    (item_id,) = app.labels_of("lost")
    assert len(app.call("GET", f"/projects/lost/items/{item_id}")["history"]) == 1


def test_two_tabs_get_different_items_and_label_each_once(app: App, visitor: Visitor) -> None:
    app.texts("tabs", 16)
    context = visitor.context()
    pages = [context.new_page(), context.new_page()]
    for page in pages:
        page.goto("/projects/tabs/label")
        page.wait_for_selector(".words")
    seen = []
    for _ in range(4):
        for page in pages:
            seen.append(shown(page))
            press_and_see_next(page, "Enter")
    for page in pages:
        wait_saved(page)
    assert len(set(seen)) == 8
    assert len(app.labels_of("tabs")) == 8
    assert app.call("GET", "/projects/tabs/status")["labels"] == 8


def test_a_reload_goes_on_with_the_same_item(app: App, visitor: Visitor) -> None:
    app.texts("reload")
    page = open_desk(visitor, "reload")
    press_and_see_next(page, "Enter")
    now = shown(page)
    wait_saved(page)
    page.reload()
    page.wait_for_selector(".words")
    assert shown(page) == now


def test_a_zip_of_pictures_is_labelled_as_it_came(app: App, visitor: Visitor, tmp_path: Path) -> None:
    import zipfile

    app.project("zipped", [], category="image-classification", labels=["a", "b"])
    archive = tmp_path / "pictures.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for item in load_sample("digits", tmp_path).pool()[:5]:
            file.writestr(item.item_id, item.content)
        file.writestr("broken.png", b"this is no picture")
    page = visitor.open("/projects/zipped/data")
    page.get_by_label("Files").set_input_files(archive)
    page.get_by_role("button", name="Import").click()
    page.get_by_text("Uploaded; the import goes on").first.wait_for()
    app.import_all()
    page.get_by_text("5 rows in, 1 failed").wait_for()
    page.get_by_text("Rows that failed").click()
    assert "not an image" in page.locator("#imports li").inner_text()
    page.goto("/projects/zipped/label")
    page.wait_for_function("() => document.querySelector('.picture img')?.naturalWidth === 8")
