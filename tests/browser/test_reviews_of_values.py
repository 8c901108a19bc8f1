"""A reviewer corrects whole values with the editors of the labelling page, by keyboard; who gets one back sees it as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PASSWORD, App, Visitor, wait_until
from tests.browser.test_every_page import check
from tests.browser.test_shapes import LABELS, picture

BOX = {"id": "a", "label": "car", "shape": "box", "where": [0.125, 0.6, 0.28125, 0.225]}
PERSON = {"id": "b", "label": "person", "shape": "box", "where": [0.578125, 0.3, 0.09375, 0.5]}
SPANS = [
    {"id": "a", "label": "bird", "shape": "span", "where": [0, 4]},
    {"id": "b", "label": "fish", "shape": "span", "where": [9, 13]},
]
ROW = {"id": "i0", "row": {"wings": 2, "colour": "brown"}}


def judged(app: App, slug: str, item: dict[str, Any], said: dict[str, Any], **more: Any) -> None:
    """Make a project of one item that bob has labelled, all of whose labels are reviewed."""
    app.project(slug, [item], **more)
    app.call("POST", f"/projects/{slug}/members", {"name": "bob", "role": "annotator"})
    app.call("PUT", f"/projects/{slug}/work", {"review": "all"})
    as_bob(app, slug, said)


def as_bob(app: App, slug: str, said: dict[str, Any]) -> None:
    token = app.token
    app.token = app.call("POST", "/tokens", {"name": "bob", "password": PASSWORD, "label": "say"})["token"]
    [item] = app.call("POST", f"/projects/{slug}/next", {"n": 1})["items"]
    app.call("POST", f"/projects/{slug}/annotations", {"item_id": item["item_id"], "lease": item["lease"], **said})
    app.token = token


def corrected(app: App, page: Page, slug: str) -> dict[str, Any]:
    """Press Enter and return the label that the item has then."""
    page.keyboard.press("Enter")
    expect(page.locator("#empty")).to_contain_text("No label waits")
    history = app.call("GET", f"/projects/{slug}/items/i0")["history"]
    found: dict[str, Any] = max(history, key=lambda one: one["revision"])
    assert found["source"] == "review"
    return found


def test_marks_are_corrected_on_the_picture_by_keyboard(
    app: App, visitor: Visitor, screenshots: Path | None, tmp_path: Path
) -> None:
    slug, item = "review-boxes", {"id": "i0", "name": "street", "link": picture()}
    judged(app, slug, item, {"marks": [BOX, PERSON]}, category="object-detection", kind="boxes", labels=LABELS)
    for language in ("zh-CN", "en-US"):
        page = visitor.open(f"/projects/{slug}/reviews?item=i0", locale=language, viewport={"width": 1180, "height": 760})
        page.wait_for_selector(".marking[data-ready]")
        expect(page.locator(".mark-list li")).to_have_count(2)
        check(page)
        page.screenshot(path=(screenshots or tmp_path) / f"reviews-boxes-{language[:2]}.png")
    page.keyboard.press("]")
    page.keyboard.press("3")
    page.keyboard.press("]")
    page.keyboard.press("Delete")
    said = corrected(app, page, slug)
    assert [(mark["label"], mark["where"]) for mark in said["marks"]] == [("dog", BOX["where"])]


def test_a_returned_mark_is_on_the_stage_as_it_was_with_its_comment(app: App, visitor: Visitor) -> None:
    slug, item = "review-return", {"id": "i0", "name": "street", "link": picture()}
    judged(app, slug, item, {"marks": [BOX]}, category="object-detection", kind="boxes", labels=LABELS)
    page = visitor.open(f"/projects/{slug}/reviews")
    page.wait_for_selector(".marking[data-ready]")
    page.keyboard.press("s")
    page.keyboard.type("too low")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#said")).to_have_text("Returned to bob.")
    bob = visitor.open(f"/projects/{slug}/label", "bob")
    bob.wait_for_selector(".marking[data-ready]")
    expect(bob.locator("#returned")).to_contain_text("ada sent this back (1 marks: car): too low")
    expect(bob.locator(".mark-list li")).to_have_count(1)
    bob.keyboard.press("Enter")
    wait_until(lambda: app.call("GET", f"/projects/{slug}/reviews")["waiting"] == {"returned": 1}, "the answer")
    page.reload()
    page.wait_for_selector(".marking[data-ready]")
    page.keyboard.press("s")
    page.keyboard.type("still too low")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#said")).to_have_text("Returned to bob.")


def test_a_span_and_its_relation_are_corrected_by_keyboard(app: App, visitor: Visitor) -> None:
    slug, labels = "review-spans", ["bird", "fish", "eats"]
    said = {"marks": SPANS, "relations": [{"label": "eats", "source": "a", "target": "b"}]}
    item = {"id": "i0", "text": "gull ate fish"}
    judged(app, slug, item, said, category="token-classification", kind="relations", labels=labels)
    page = visitor.open(f"/projects/{slug}/reviews")
    expect(page.locator("[data-spans]")).to_contain_text("gull ate fish")
    page.keyboard.press("]")
    page.keyboard.press("2")
    found = corrected(app, page, slug)
    assert sorted(mark["label"] for mark in found["marks"]) == ["fish", "fish"] and len(found["relations"]) == 1


@pytest.mark.parametrize(
    ("kind", "item", "said", "more", "keys", "now"),
    [
        ("number", ROW, {"number": 12.0}, {"category": "regression", "limits": {"number": {"unit": "cm", "most": 50}}}, "14", 14.0),
        ("free-text", {"id": "i0", "text": "a gull"}, {"text": "une mouette"}, {"category": "writing"}, None, "un goéland"),
    ],
)
def test_a_number_and_a_text_are_corrected_where_they_stand(
    app: App, visitor: Visitor, kind: str, item: dict[str, Any], said: dict[str, Any], more: dict[str, Any], keys: str, now: Any
) -> None:
    slug = f"review-{kind}"
    judged(app, slug, item, said, kind=kind, labels=[], **more)
    page = visitor.open(f"/projects/{slug}/reviews")
    field = page.locator("#stage-body textarea, #stage-body #number-field").first
    expect(field).to_have_value(str(next(iter(said.values()))).removesuffix(".0"))
    check(page)
    if kind == "number":
        expect(page.locator(".number-row")).to_contain_text("cm")
        field.fill("99")
        page.keyboard.press("Enter")
        expect(page.locator("#said")).to_contain_text("within")
    field.fill(keys or str(now))
    if kind == "free-text":
        page.keyboard.press("Escape")
    assert corrected(app, page, slug)["number" if kind == "number" else "text"] == now
