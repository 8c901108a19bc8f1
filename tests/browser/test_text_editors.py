"""Spans, relations, numbers, free text and pairs: by mouse and by keys alone, corrected drafts, undo, and what the app then has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import App, Visitor, wait_until
from tests.browser.test_every_page import check
from tests.browser.test_labelling import wait_saved

TEXT = "Ada Lovelace met Charles Babbage in London."
WIDE = "😀 Zoë lives in 東京都 👩‍👩‍👧 and 𝒜dele\u0301 too"


def span_project(app: App, slug: str, rows: list[dict[str, Any]], kind: str = "spans", **more: Any) -> str:
    return app.project(slug, rows, category="token-classification", kind=kind, labels=["person", "place"], **more)


def open_text(visitor: Visitor, slug: str, **options: Any) -> Page:
    page = visitor.open(f"/projects/{slug}/label", **options)
    page.wait_for_selector(".span-text")
    return page


def drag(page: Page, words: str, nth: int = 0) -> None:
    """Select words of the text with the mouse."""
    box = page.evaluate(
        """([words, nth]) => {
          const walker = document.createTreeWalker(document.querySelector(".span-text"), NodeFilter.SHOW_TEXT);
          for (let node = walker.nextNode(); node; node = walker.nextNode()) {
            let at = -1;
            for (let n = 0; n <= nth; n += 1) at = node.data.indexOf(words, at + 1);
            if (at < 0) continue;
            const range = document.createRange();
            range.setStart(node, at);
            range.setEnd(node, at + words.length);
            const rects = [...range.getClientRects()];
            const [first, last] = [rects[0], rects.at(-1)];
            return [first.left + 1, first.top + first.height / 2, last.right - 1, last.top + last.height / 2];
          }
        }""",
        [words, nth],
    )
    page.mouse.move(box[0], box[1])
    page.mouse.down()
    page.mouse.move((box[0] + box[2]) / 2, box[1], steps=3)
    page.mouse.move(box[2], box[3], steps=3)
    page.mouse.up()


def listed(page: Page, which: str = "spans") -> list[str]:
    return [" ".join(text.split()) for text in page.locator(f"#{which}-list [role=option]").all_text_contents()]


def said_of(app: App, slug: str, item: str) -> dict[str, Any]:
    """Return the newest revision of an item, once it is there."""
    history = wait_until(lambda: app.call("GET", f"/projects/{slug}/items/{item}")["history"], "an answer")
    newest: dict[str, Any] = max(history, key=lambda one: one["revision"])
    return newest


def marked(said: dict[str, Any], text: str) -> set[tuple[str, str]]:
    """Return label and marked words, by code points as Python counts them."""
    return {(mark["label"], text[int(mark["where"][0]) : int(mark["where"][1])]) for mark in said["marks"]}


def test_spans_overlap_by_mouse_and_are_saved(app: App, visitor: Visitor) -> None:
    span_project(app, "spans-mouse", [{"id": "a", "text": TEXT}, {"id": "b", "text": "second"}])
    page = open_text(visitor, "spans-mouse")
    drag(page, "Ada Lovelace")
    page.get_by_role("button", name="person").click()
    drag(page, "Lovelace met Charles")
    page.keyboard.press("2")
    assert listed(page) == ["person Ada Lovelace", "place Lovelace met Charles"]
    boxes = page.locator(".span-mark")
    expect(boxes).to_have_count(2)
    heights = [round(boxes.nth(at).bounding_box()["height"]) for at in range(2)]  # type: ignore[index]
    assert heights[1] > heights[0], "the overlapping span has a line of its own below"
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('.span-text')?.innerText.includes('second')")
    wait_saved(page)
    said = said_of(app, "spans-mouse", "a")
    assert marked(said, TEXT) == {("person", "Ada Lovelace"), ("place", "Lovelace met Charles")}
    assert said["labels"] == ["person", "place"]


def test_spans_by_keys_alone_with_undo_and_number_fields(app: App, visitor: Visitor) -> None:
    span_project(app, "spans-keys", [{"id": "a", "text": TEXT}])
    page = open_text(visitor, "spans-keys")
    page.keyboard.press("1")
    assert page.locator("#said").inner_text() == "Select words in the text first, or a span to change."
    page.keyboard.press("Home")
    page.keyboard.press("Control+Shift+ArrowRight")
    page.keyboard.press("Control+Shift+ArrowRight")
    page.keyboard.press("1")
    assert listed(page) == ["person Ada Lovelace"]
    page.keyboard.press("2")
    assert listed(page) == ["place Ada Lovelace"], "a label's key changes the selected span"
    page.keyboard.press("u")
    assert listed(page) == ["person Ada Lovelace"]
    page.keyboard.press("Delete")
    assert listed(page) == []
    page.keyboard.press("Control+z")
    assert listed(page) == ["person Ada Lovelace"]
    page.keyboard.press("]")
    page.get_by_label("End").fill("3")
    page.get_by_label("End").press("Tab")
    assert listed(page) == ["person Ada"]
    page.get_by_label("End").fill("999")
    page.get_by_label("End").press("Tab")
    assert listed(page) == ["person Ada"]
    assert "within 0 to 43" in page.locator("#said").inner_text()
    page.locator("#spans-list").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    assert marked(said_of(app, "spans-keys", "a"), TEXT) == {("place", "Ada")}


def test_offsets_count_code_points_where_characters_have_two_units(app: App, visitor: Visitor) -> None:
    draft = {"marks": [{"id": "d", "label": "place", "where": [WIDE.index("東"), WIDE.index("都") + 1], "confidence": 0.6}]}
    span_project(app, "spans-wide", [{"id": "a", "text": WIDE, "draft": draft}])
    page = open_text(visitor, "spans-wide")
    assert listed(page) == ["place 東京都 60 %"]
    assert page.locator(".span-mark.is-draft").count() == 1
    drag(page, "Zoë")
    page.keyboard.press("1")
    drag(page, "𝒜dele\u0301")
    page.keyboard.press("1")
    drag(page, "👩‍👩‍👧")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    expected = {("place", "東京都"), ("person", "Zoë"), ("person", "𝒜dele\u0301"), ("place", "👩‍👩‍👧")}
    assert marked(said_of(app, "spans-wide", "a"), WIDE) == expected


def test_relations_by_keys_and_by_mouse(app: App, visitor: Visitor, screenshots: Path | None) -> None:
    marks = [
        {"id": "x", "label": "person", "where": [0, 12], "confidence": 0.9},
        {"id": "y", "label": "person", "where": [17, 32], "confidence": 0.8},
        {"id": "z", "label": "place", "where": [36, 42], "confidence": 0.7},
    ]
    span_project(app, "relations", [{"id": "a", "text": TEXT, "draft": {"marks": marks}}], kind="relations")
    page = open_text(visitor, "relations")
    page.keyboard.press("]")
    page.keyboard.press("r")
    page.keyboard.press("]")
    page.keyboard.press("Enter")
    assert listed(page, "relations") == ["person Ada Lovelace → Charles Babbage"]
    page.keyboard.press("2")
    assert listed(page, "relations") == ["place Ada Lovelace → Charles Babbage"]
    page.locator("#spans-list [role=option]").nth(1).click()
    page.keyboard.press("r")
    x, y = page.evaluate(
        "() => (({x, y}) => [x + 5, y + 5])(document.querySelector('.span-mark[data-mark=z]').getBoundingClientRect())"
    )
    page.mouse.click(x, y)
    assert listed(page, "relations")[1] == "place Charles Babbage → London"
    assert page.locator(".arc").count() == 2
    page.keyboard.press("Delete")
    assert page.locator(".arc").count() == 1
    page.keyboard.press("u")
    assert page.locator(".arc").count() == 2
    check(page)
    if screenshots:
        page.screenshot(path=screenshots / "relations-en.png")
        page.get_by_role("button", name="中文").click()
        page.wait_for_selector(".span-mark")
        page.keyboard.press("]")
        page.keyboard.press("r")
        page.keyboard.press("]")
        page.keyboard.press("Enter")
        page.wait_for_selector(".arc")
        page.screenshot(path=screenshots / "relations-zh.png")
        page.get_by_role("button", name="English").click()
        return
    page.keyboard.press("Enter")
    said = said_of(app, "relations", "a")
    words = {mark["id"]: TEXT[int(mark["where"][0]) : int(mark["where"][1])] for mark in said["marks"]}
    found = {(one["label"], words[one["source"]], words[one["target"]]) for one in said["relations"]}
    assert found == {("place", "Ada Lovelace", "Charles Babbage"), ("place", "Charles Babbage", "London")}
    assert said["is_corrected"]


def test_a_removed_span_takes_its_relations_along_and_an_accepted_draft_is_no_correction(app: App, visitor: Visitor) -> None:
    marks = [{"id": "x", "label": "person", "where": [0, 3]}, {"id": "y", "label": "person", "where": [4, 12]}]
    draft = {"marks": marks, "relations": [{"label": "place", "source": "x", "target": "y"}], "confidence": 0.9}
    rows = [{"id": "a", "text": TEXT, "draft": draft}, {"id": "b", "text": TEXT, "draft": draft}]
    span_project(app, "relations-draft", rows, kind="relations")
    page = open_text(visitor, "relations-draft")
    page.wait_for_selector(".arc")
    page.keyboard.press("]")
    page.keyboard.press("Delete")
    assert (page.locator(".arc").count(), len(listed(page))) == (0, 1)
    page.keyboard.press("Enter")
    page.wait_for_selector(".arc")
    page.keyboard.press("Enter")
    wait_until(lambda: app.call("GET", "/projects/relations-draft/status")["labels"] == 2, "both are saved")
    by_item = {item: said_of(app, "relations-draft", item)["is_corrected"] for item in ("a", "b")}
    assert sorted(by_item.values()) == [False, True]


def test_on_a_phone_a_tap_on_a_label_takes_the_selected_words(app: App, visitor: Visitor) -> None:
    span_project(app, "spans-touch", [{"id": "a", "text": TEXT}])
    page = open_text(visitor, "spans-touch", viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.evaluate("""() => {
      const node = document.querySelector(".span-block").firstChild;
      document.getSelection().setBaseAndExtent(node, 0, node, 13);
      const collapse = () => document.getSelection().collapseToEnd();
      document.querySelector("#choices").addEventListener("pointerdown", () => setTimeout(collapse), { once: true });
    }""")
    page.wait_for_function("() => CSS.highlights.has('pending')")
    page.locator("#choices button").first.tap()
    page.wait_for_selector("#spans-list [role=option]")
    assert listed(page) == ["person Ada Lovelace"]


def test_html_in_a_text_and_in_a_label_is_shown_as_text(app: App, visitor: Visitor) -> None:
    evil = "<img src=x onerror=alert(1)> <b>bold</b>"
    app.project("spans-html", [{"id": "a", "text": evil}], category="token-classification", kind="spans", labels=["<i>odd</i>"])
    page = open_text(visitor, "spans-html")
    assert page.locator(".span-text").inner_text().startswith(evil)
    drag(page, "<b>bold</b>")
    page.keyboard.press("1")
    assert listed(page) == ["<i>odd</i> <b>bold</b>"]
    assert page.locator(".span-text b, .span-text img, .editor-side b, .editor-side i").count() == 0
    page.keyboard.press("Enter")
    assert marked(said_of(app, "spans-html", "a"), evil) == {("<i>odd</i>", "<b>bold</b>")}


def test_none_of_these_is_an_answer_of_its_own(app: App, visitor: Visitor) -> None:
    span_project(app, "spans-none", [{"id": "a", "text": TEXT}])
    app.project("labels-none", [{"id": "t", "text": "neither"}])
    page = open_text(visitor, "spans-none")
    page.keyboard.press(".")
    assert (said_of(app, "spans-none", "a")["is_none"], app.labels_of("spans-none")) == (True, {"a": []})
    page = visitor.open("/projects/labels-none/label")
    page.wait_for_selector(".words")
    page.get_by_role("button", name="None of these").click()
    assert said_of(app, "labels-none", "t")["is_none"] is True


def test_a_number_by_keys_its_draft_shown_and_kept_exact(app: App, visitor: Visitor) -> None:
    rows = [{"id": str(at), "row": {"rooms": at, "street": "<b>x</b>"}, "draft": {"number": 3.14159265358979}} for at in range(3)]
    app.project("numbers", rows, category="regression", kind="number", labels=[])
    page = visitor.open("/projects/numbers/label")
    field = page.get_by_label("Value")
    page.wait_for_function("() => document.activeElement?.id === 'number-field'")
    assert field.input_value() == "3.14159"
    page.keyboard.press("Enter")
    wait_until(lambda: app.call("GET", "/projects/numbers/status")["labels"] == 1, "the first is saved")
    page.keyboard.press("+")
    page.keyboard.press("+")
    page.keyboard.press("-")
    assert float(field.input_value()) == pytest.approx(3.24159)
    page.keyboard.press("Control+a")
    page.keyboard.type("x")
    page.keyboard.press("Enter")
    assert page.locator("#said").inner_text() == "Enter a number first, or skip the item."
    field.fill("-2,5")
    page.keyboard.press("Enter")
    wait_until(lambda: app.call("GET", "/projects/numbers/status")["labels"] == 2, "the second is saved")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    said = [app.call("GET", f"/projects/numbers/items/{at}")["history"] for at in range(3)]
    assert sorted(one[0]["number"] for one in said if one) == [-2.5, 3.14159265358979]
    assert page.locator(".record b").count() == 0


def test_a_written_text_survives_a_reload_and_is_forgotten_once_it_is_saved(app: App, visitor: Visitor) -> None:
    rows = [{"id": "a", "text": "Summarise this."}, {"id": "b", "text": "And this."}]
    app.project("writing", rows, category="writing", kind="free-text", labels=[])
    page = visitor.open("/projects/writing/label")
    page.wait_for_function("() => document.activeElement?.tagName === 'TEXTAREA'")
    page.keyboard.press("Control+Enter")
    assert page.locator("#said").inner_text() == "Write something first, or skip the item."
    page.keyboard.type("Short 😀\n<b>line</b>")
    assert page.locator(".writing-count").inner_text() == "19 characters"
    page.reload()
    page.wait_for_selector("textarea")
    assert page.locator("textarea").input_value() == "Short 😀\n<b>line</b>"
    assert page.locator("#said").inner_text() == "What you had typed is back."
    page.locator("textarea").focus()
    page.keyboard.press("Control+Enter")
    page.wait_for_function("() => document.querySelector('textarea').value === ''")
    wait_saved(page)
    said = [app.call("GET", f"/projects/writing/items/{item}")["history"] for item in ("a", "b")]
    assert [one[0]["text"] for one in said if one] == ["Short 😀\n<b>line</b>"]
    assert page.evaluate("Object.keys(localStorage).filter((name) => name.startsWith('labelloop.text.'))") == []


def test_pairs_are_chosen_by_arrows_and_their_differences_are_marked(app: App, visitor: Visitor) -> None:
    pair = {"a": {"text": "The owl sleeps by day."}, "b": {"text": "The owl hunts by night."}}
    rows = [{"id": str(at), "pair": pair} for at in range(3)]
    app.project("pairs", rows, category="pairs", kind="multiclass", labels=["left", "tie", "right"])
    page = visitor.open("/projects/pairs/label")
    page.wait_for_selector(".pair")
    assert page.locator("mark.differs").all_inner_texts() == ["sleeps", "day", "hunts", "night"]
    for at, key in enumerate(("ArrowLeft", "ArrowRight", "ArrowDown")):
        page.keyboard.press(key)
        wait_until(lambda at=at: app.call("GET", "/projects/pairs/status")["labels"] == at + 1, key)  # type: ignore[misc]
    assert sorted(label for labels in app.labels_of("pairs").values() for label in labels) == ["left", "right", "tie"]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_editors_are_accessible_in_both_languages_and_on_a_phone(
    app: App, visitor: Visitor, language: str, screenshots: Path | None
) -> None:
    slug = f"a11y-{language}"
    marks = [{"id": "x", "label": "person", "where": [0, 12], "confidence": 0.9}, {"id": "y", "label": "place", "where": [4, 20]}]
    draft = {"marks": marks, "relations": [{"label": "place", "source": "x", "target": "y"}]}
    span_project(app, f"{slug}-spans", [{"id": "a", "text": TEXT, "draft": draft}], kind="relations")
    app.project(f"{slug}-numbers", [{"id": "a", "row": {"x": 1}}], category="regression", kind="number", labels=[])
    app.project(f"{slug}-words", [{"id": "a", "text": TEXT}], category="writing", kind="free-text", labels=[])
    pair = {"a": {"text": TEXT}, "b": {"text": TEXT + " Again."}}
    app.project(f"{slug}-pairs", [{"id": "a", "pair": pair}], category="pairs", kind="multiclass", labels=["left", "right"])
    phone: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    locale = "zh-CN" if language == "zh" else "en-US"
    for path, ready in (("spans", ".arc"), ("numbers", "#number-field"), ("words", "textarea"), ("pairs", ".pair")):
        page = visitor.open(f"/projects/{slug}-{path}/label", locale=locale, **phone)
        page.wait_for_selector(ready, state="attached")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        if screenshots:
            page.screenshot(path=screenshots / "all" / f"phone-{path}-{language}.png", full_page=True)
        check(page)
        page.emulate_media(color_scheme="dark")
        check(page, "color-contrast")


def test_a_long_text_with_a_thousand_spans_draws_only_what_is_in_sight(app: App, visitor: Visitor) -> None:
    line = "word " * 19 + "end.\n"
    text = line * 1000
    marks = [{"id": f"m{at}", "label": "person", "where": [at * 100, at * 100 + 9], "confidence": 0.9} for at in range(1000)]
    span_project(app, "spans-long", [{"id": "a", "text": text, "draft": {"marks": marks}}])
    page = open_text(visitor, "spans-long")
    page.wait_for_selector(".span-mark")
    assert page.locator("#spans-list [role=option]").count() == 1000
    assert 0 < page.locator(".span-mark").count() < 200
    page.locator("#spans-list").focus()
    page.keyboard.press("ArrowUp")
    page.wait_for_selector(".span-mark[data-mark=m999]")


def test_the_history_of_an_item_is_shown_to_members_and_cannot_be_changed(
    app: App, visitor: Visitor, screenshots: Path | None
) -> None:
    marks = [
        {"id": "x", "label": "person", "shape": "span", "where": [0, 12]},
        {"id": "y", "label": "place", "shape": "span", "where": [4, 32]},
        {"id": "z", "label": "place", "shape": "span", "where": [36, 42]},
    ]
    relation = {"label": "place", "source": "x", "target": "z"}
    span_project(app, "history", [{"id": "dir/<b>a</b>", "text": TEXT, "marks": marks, "relations": [relation]}], kind="relations")
    app.call("POST", "/projects/history/annotations", {"item_id": "dir/<b>a</b>", "marks": marks[2:]})
    page = visitor.open("/projects/history/items")
    page.get_by_role("link", name="dir/<b>a</b>").click()
    page.wait_for_selector("#history h2")
    assert page.locator("#history h2").all_text_contents() == ["Revision 2", "Revision 1"]
    assert page.locator("#item mark").all_text_contents() == ["placeLondon"]
    first = page.locator("#history > li").nth(1)
    assert first.locator(".value-text").text_content() == "person" + "Ada place" + "Lovelace met Charles Babbage in placeLondon."
    assert "place: Ada Lovelace → London" in (first.text_content() or "")
    assert "ada" in (first.locator(".value-by").text_content() or "")
    assert page.locator("main button, main input, main textarea").count() == 0
    check(page)
    if screenshots:
        page.screenshot(path=screenshots / "item-history-en.png", full_page=True)
    visitor.expected.append("404")
    assert visitor.open("/projects/history/items?state=open").get_by_text("No item is in this state.").is_visible()
    assert visitor.open("/projects/history/items/nothing").locator("h1").inner_text() == "Not found"


@pytest.mark.parametrize(
    ("category", "kind", "row", "said", "shown"),
    [
        ("writing", "free-text", {"text": TEXT}, {"text": "<b>short</b>"}, "<b>short</b>"),
        ("regression", "number", {"row": {"x": 1}}, {"number": 2.5}, "Value: 2.5"),
        ("text-classification", "multilabel", {"text": TEXT}, {"labels": ["person"]}, "person"),
        ("text-classification", "multiclass", {"text": TEXT}, {"is_none": True}, "none of these labels"),
        ("pairs", "multiclass", {"pair": {"a": {"text": "one"}, "b": {"text": "two"}}}, {"labels": ["place"]}, "place"),
        ("token-classification", "spans", {"text": TEXT}, {"labels": []}, "nothing is marked"),
    ],
)
def test_every_kind_has_a_read_only_view(
    app: App, visitor: Visitor, category: str, kind: str, row: dict[str, Any], said: dict[str, Any], shown: str
) -> None:
    slug = f"view-{category}-{kind}"
    labels = [] if kind in ("number", "free-text") else ["person", "place"]
    app.project(slug, [{"id": "a", **row}], category=category, kind=kind, labels=labels)
    app.call("POST", f"/projects/{slug}/annotations", {"item_id": "a", **said})
    page = visitor.open(f"/projects/{slug}/items/a")
    page.wait_for_selector("#history h2")
    assert page.locator("#history .value-said").inner_text() == shown
    assert page.locator("#item .value-item").count() == 1
