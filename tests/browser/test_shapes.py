"""Boxes, polygons and keypoints on pictures: by mouse, by touch and by keys alone; drafts, undo, and what the app got."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Page

from tests.browser.conftest import App, Visitor, wait_until
from tests.browser.test_every_page import check

WIDTH, HEIGHT = 640, 400
LABELS = ["car", "person", "dog"]
DIST = Path(__file__).resolve().parents[2] / "webapp" / "static" / "dist"
KINDS = {"box": "boxes", "polygon": "polygons", "point": "keypoints"}


def picture(seed: int = 0) -> str:
    """Return a picture of some coloured blocks as a link."""
    image = Image.new("RGB", (WIDTH, HEIGHT), (236, 240, 244))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 300, WIDTH, HEIGHT), fill=(96, 110, 96))
    draw.rectangle((80, 240, 260, 330), fill=(178, 60, 50))
    draw.ellipse((380 + 5 * seed, 120, 420 + 5 * seed, 160), fill=(230, 190, 150))
    draw.rectangle((370 + 5 * seed, 160, 430 + 5 * seed, 320), fill=(40, 70, 140))
    out = io.BytesIO()
    image.save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def desk(
    app: App, visitor: Visitor, slug: str, shape: str = "box", marks: list[dict[str, Any]] | None = None, **options: Any
) -> Page:
    """Create a project of two pictures, the first with a draft of `marks`, and open its labelling page."""
    rows: list[dict[str, Any]] = [
        {"id": "a", "name": "street a", "link": picture()},
        {"id": "b", "name": "street b", "link": picture(1)},
    ]
    for row in rows if marks else []:
        row["draft"] = {"marks": marks, "confidence": 0.7}
    app.project(slug, rows, category="object-detection", kind=KINDS[shape], labels=LABELS)
    page = visitor.open(f"/projects/{slug}/label", **options)
    page.wait_for_selector(".marking[data-ready]")
    return page


def at(page: Page, x: float, y: float) -> tuple[float, float]:
    """Return the place in the window of a pixel of the picture."""
    box = page.locator(".marking .sheet").bounding_box()
    assert box is not None
    return box["x"] + x / WIDTH * box["width"], box["y"] + y / HEIGHT * box["height"]


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag from one pixel of the picture to another."""
    page.mouse.move(*at(page, *start))
    page.mouse.down()
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    for place in (middle, end):
        page.mouse.move(*at(page, *place))
    page.mouse.up()


def rows(page: Page) -> list[str]:
    """Return what the list of marks says."""
    found: list[str] = page.locator(".mark-list li").evaluate_all("all => all.map((row) => row.getAttribute('aria-label'))")
    return found


def fields(page: Page) -> list[float]:
    """Return the numbers of the selected mark."""
    return [float(one) for one in page.locator(".mark-fields input").evaluate_all("all => all.map((field) => field.value)")]


def saved(app: App, page: Page, slug: str, item: str = "a") -> dict[str, Any]:
    """Accept what is on the stage and return what the app has of the item."""
    before = page.locator(".marking").get_attribute("aria-label")
    page.locator("#accept").click()
    page.wait_for_function("before => document.querySelector('.marking')?.ariaLabel !== before", arg=before)
    page.wait_for_function("() => document.getElementById('saving').textContent === 'All saved.'")
    history = app.call("GET", f"/projects/{slug}/items/{item}")["history"]
    found: dict[str, Any] = max(history, key=lambda one: one["revision"])
    return found


def near(where: list[float], pixels: list[float], within: float = 3.0) -> bool:
    """Return whether shares are those of some pixels."""
    sizes = (WIDTH, HEIGHT)
    return len(where) == len(pixels) and all(
        abs(w * sizes[i % 2] - p) <= within for i, (w, p) in enumerate(zip(where, pixels, strict=True))
    )


def test_boxes_are_drawn_and_changed_by_mouse_and_arrive_as_shares(app: App, visitor: Visitor) -> None:
    page = desk(app, visitor, "boxes-mouse")
    drag(page, (80, 240), (260, 330))
    wait_until(lambda: rows(page) == ["1, car, 180 × 90 at 80, 240"], "the rows of the marks")
    page.keyboard.press("2")
    assert page.get_by_role("button", name="person").get_attribute("aria-pressed") == "true"
    page.keyboard.press("1")
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    drag(page, (370, 120), (430, 320))
    drag(page, (400, 200), (410, 200))  # the selected box is moved
    drag(page, (440, 320), (450, 330))  # and pulled at its corner
    assert [row.split(",")[1] for row in rows(page)] == [" car", " person"]
    answer = saved(app, page, "boxes-mouse")
    assert answer["labels"] == ["car", "person"]
    assert [mark["label"] for mark in answer["marks"]] == ["car", "person"]
    assert near(answer["marks"][0]["where"], [80, 240, 180, 90])
    assert near(answer["marks"][1]["where"], [380, 120, 70, 210], 4)


DRAFT = [
    {"id": "d1", "label": "car", "where": [0.125, 0.6, 0.28125, 0.225], "confidence": 0.83},
    {"id": "d2", "label": "dog", "where": [0.578125, 0.3, 0.09375, 0.5], "confidence": 0.41},
]


def test_boxes_are_made_by_keys_alone(app: App, visitor: Visitor) -> None:
    page = desk(app, visitor, "boxes-keys")
    page.keyboard.press("3")
    page.keyboard.press("n")
    assert [row.split(",")[1] for row in rows(page)] == [" dog"]
    page.keyboard.press("F2")
    for number in ("80", "240", "180", "90"):
        page.keyboard.press("Control+a")
        page.keyboard.type(number)
        page.keyboard.press("Tab")
    assert fields(page) == [80, 240, 180, 90]
    page.locator(".mark-fields input").first.focus()
    page.keyboard.press("Shift+ArrowUp")  # in a field: steps of ten
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Control+ArrowLeft")
    assert fields(page) == [91, 250, 179, 90]
    page.keyboard.press("n")
    page.keyboard.press("Delete")
    wait_until(lambda: rows(page) == ["1, dog, 179 × 90 at 91, 250"], "the rows of the marks")
    page.locator(".mark-list").focus()
    page.keyboard.press("Enter")  # accepts
    wait_until(lambda: len(app.call("GET", "/projects/boxes-keys/items/a")["history"]), "the answer is there")
    (answer,) = app.call("GET", "/projects/boxes-keys/items/a")["history"]
    assert answer["labels"] == ["dog"]
    assert near(answer["marks"][0]["where"], [91, 250, 179, 90], 0.01)


def test_marks_of_a_draft_are_dashed_with_their_confidence_until_they_are_touched(app: App, visitor: Visitor) -> None:
    page = desk(app, visitor, "boxes-draft", marks=DRAFT)
    wait_until(
        lambda: rows(page) == ["1, car, draft, 180 × 90 at 80, 240", "2, dog, draft, 60 × 200 at 370, 120"], "the rows of the marks"
    )
    assert page.locator(".tags .tag").all_inner_texts() == ["1 83 %", "3 41 %"]
    dashes = "getComputedStyle(document.querySelector('g[data-id={}] .a9s-inner')).strokeDasharray"
    assert page.evaluate(dashes.format("d1")) != "none"
    page.locator(".mark-list").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("2")  # the second is a person
    assert rows(page)[1] == "2, person, 60 × 200 at 370, 120"
    page.keyboard.press("Escape")
    assert page.evaluate(dashes.format("d2")) == "none" and page.evaluate(dashes.format("d1")) != "none"
    page.mouse.click(*at(page, 170, 280))
    drag(page, (170, 280), (190, 280))
    page.wait_for_function("() => document.querySelector('.mark-list .tag').innerText === '1'")
    page.keyboard.press("Escape")
    assert page.evaluate(dashes.format("d1")) == "none"
    answer = saved(app, page, "boxes-draft")
    assert answer["is_corrected"] and answer["labels"] == ["car", "person"]
    assert answer["marks"][0].get("confidence", 1.0) == 1.0, "what a person accepted is certain"


def test_undo_and_redo_within_the_item_come_before_undo_of_the_last_answer(app: App, visitor: Visitor) -> None:
    page = desk(app, visitor, "boxes-undo", marks=DRAFT)
    drag(page, (500, 50), (600, 150))
    page.keyboard.press("Delete")
    page.keyboard.press("[")
    page.keyboard.press("Delete")
    assert len(rows(page)) == 1
    page.keyboard.press("Control+z")
    assert len(rows(page)) == 2
    page.keyboard.press("u")
    assert len(rows(page)) == 3
    page.keyboard.press("u")
    assert [row.split(",")[2] for row in rows(page)] == [" draft", " draft"]
    page.keyboard.press("Control+y")
    assert rows(page)[2].startswith("3, car, 100 × 100 at 500, ")
    drag(page, (550, 100), (540, 100))
    assert rows(page)[2].startswith("3, car, 100 × 100 at 490, ")
    page.keyboard.press("u")
    assert fields(page) == pytest.approx([500, 50, 100, 100], abs=1), "a drag is one step"
    assert page.locator("#saving").inner_text() in ("", "All saved.")


def test_a_polygon_is_drawn_its_corners_moved_and_an_open_one_is_not_saved(app: App, visitor: Visitor) -> None:
    page = desk(app, visitor, "polygons", "polygon")
    corners = [(80, 240), (260, 240), (260, 330), (150, 370)]
    drag(page, corners[0], corners[1])
    for corner in corners[2:]:
        page.mouse.move(*at(page, *corner))
        page.mouse.click(*at(page, *corner))
    page.keyboard.press("Enter")
    assert page.locator("#said").inner_text().startswith("The polygon is not closed")
    page.mouse.move(*at(page, 82, 242))
    page.mouse.click(*at(page, 81, 241))
    wait_until(lambda: rows(page) == ["1, car, 4 corners"], "the rows of the marks")
    drag(page, corners[2], (300, 350))
    page.get_by_role("button", name="Add a corner").click()
    page.locator(".mark-fields input").nth(8).fill("100")
    page.locator(".mark-fields input").nth(9).fill("380")
    page.keyboard.press("Enter")
    answer = saved(app, page, "polygons")
    assert near(answer["marks"][0]["where"], [80, 240, 260, 240, 300, 350, 150, 370, 100, 380], 4)


def test_keypoints_are_set_moved_and_deleted(app: App, visitor: Visitor) -> None:
    page = desk(app, visitor, "points", "point")
    for x, y in ((100, 100), (200, 150), (300, 200)):
        page.mouse.click(*at(page, x, y))
    page.keyboard.press("2")
    drag(page, (200, 150), (220, 170))
    page.keyboard.press("3")
    page.mouse.click(*at(page, 100, 100))
    page.keyboard.press("Delete")
    page.keyboard.press("F2")
    answer = saved(app, page, "points")
    assert [mark["label"] for mark in answer["marks"]] == ["dog", "person"]
    assert near(answer["marks"][0]["where"], [220, 170]) and near(answer["marks"][1]["where"], [300, 200])


def test_the_picture_is_zoomed_and_moved_while_boxes_are_drawn(app: App, visitor: Visitor) -> None:
    page = desk(app, visitor, "boxes-zoom")
    page.mouse.move(*at(page, 400, 140))
    for _ in range(6):
        page.mouse.wheel(0, -100)
    before = page.locator(".marking .sheet").bounding_box()
    page.get_by_role("button", name="Move the picture").click()
    drag(page, (400, 140), (380, 130))
    after = page.locator(".marking .sheet").bounding_box()
    assert before and after and before["x"] - after["x"] > 10 and rows(page) == []
    page.get_by_role("button", name="Move the picture").click()
    drag(page, (385, 125), (415, 155))
    assert fields(page) == pytest.approx([385, 125, 30, 30], abs=1)
    page.get_by_role("button", name="Fit", exact=True).click()
    assert fields(page) == pytest.approx([385, 125, 30, 30], abs=1)


def test_two_hundred_boxes_are_shown_and_the_last_is_moved(app: App, visitor: Visitor) -> None:
    many = [
        {"id": f"m{i}", "label": LABELS[i % 3], "where": [(i % 20) / 20, (i // 20) / 10, 0.04, 0.08], "confidence": 0.9}
        for i in range(200)
    ]
    page = desk(app, visitor, "boxes-many", marks=many)
    assert page.locator(".a9s-annotation[data-id]").count() == 200
    page.keyboard.press("[")
    page.keyboard.press("ArrowLeft")
    assert len(rows(page)) == 200 and rows(page)[-1].startswith("200, person, 26 × 32 at 607, 360")
    answer = saved(app, page, "boxes-many")
    assert len(answer["marks"]) == 200


def test_none_of_these_and_a_picture_with_nothing_on_it(app: App, visitor: Visitor) -> None:
    page = desk(app, visitor, "boxes-none", marks=DRAFT)
    page.locator(".marking").focus()
    page.keyboard.press("Delete")
    while rows(page):
        page.keyboard.press("]")
        page.keyboard.press("Delete")
    assert saved(app, page, "boxes-none")["labels"] == []


def test_a_box_is_drawn_by_one_finger_and_two_zoom_without_drawing(app: App, visitor: Visitor) -> None:
    page = desk(app, visitor, "boxes-touch", viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(at(page, *place) for place in places)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", (200, 150))
    for x, y in ((250, 200), (360, 300), (400, 330)):
        fingers("touchMove", (x, y))
    fingers("touchEnd")
    assert len(rows(page)) == 1 and fields(page) == pytest.approx([200, 150, 200, 180], abs=6)
    before = page.locator(".marking .sheet").bounding_box()
    first, second = at(page, 500, 60), at(page, 560, 60)
    for kind, by in (("touchStart", 0), ("touchMove", 20), ("touchMove", 40)):
        points = [{"x": first[0] - by, "y": first[1], "id": 0}, {"x": second[0] + by, "y": second[1], "id": 1}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    after = page.locator(".marking .sheet").bounding_box()
    assert before and after and after["width"] > before["width"] * 1.3
    assert len(rows(page)) == 1


READ_ONLY = """async ([chunk, kind, item, marks]) => {
  const { Editor } = await import(chunk);
  const [stage, side] = [document.createElement("div"), document.createElement("div")];
  document.querySelector(".labelling").replaceChildren(stage, side);
  const page = { labels: ["car", "person", "dog"], kind };
  new Editor({ stage, side, page, isReadOnly: true, changed() {} }).show(item, { labels: [], marks });
  return side.children.length;
}"""


@pytest.mark.parametrize(
    ("shape", "where"), [("box", DRAFT[0]["where"]), ("polygon", [0.1, 0.6, 0.4, 0.6, 0.3, 0.9]), ("point", [0.5, 0.5])]
)
def test_marks_are_shown_read_only(app: App, visitor: Visitor, shape: str, where: list[float]) -> None:
    chunk = next(path.name for path in DIST.glob("part-*.js") if "polygon_is_open" in path.read_text())
    page = desk(app, visitor, f"read-only-{shape}", shape)
    marks = [{"id": "m", "label": "dog", "shape": shape, "where": where}]
    item = {"name": "street", "media": picture()}
    assert page.evaluate(READ_ONLY, [f"/static/dist/{chunk}", KINDS[shape], item, marks]) == 0
    assert page.locator(".still img").get_attribute("alt") == "Item street, dog"
    assert page.locator(".still .tag").inner_text() == "3"
    sheet, drawn = (page.locator(one).bounding_box() for one in (".still .sheet", ".still .line, .still .dot"))
    assert sheet and drawn
    assert drawn["x"] - sheet["x"] == pytest.approx(sheet["width"] * where[0], abs=12)
    check(page)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_editor_is_accessible_and_readable_on_a_phone(
    app: App, visitor: Visitor, language: str, screenshots: Path | None, tmp_path: Path
) -> None:
    screenshots = screenshots or tmp_path
    locale = "zh-CN" if language == "zh" else "en-US"
    page = desk(app, visitor, f"boxes-look-{language}", marks=DRAFT, locale=locale, viewport={"width": 1180, "height": 760})
    drag(page, (480, 60), (600, 180))
    check(page)
    page.screenshot(path=screenshots / f"boxes-{language}.png")
    page.emulate_media(color_scheme="dark")
    check(page, "color-contrast")
    phone = visitor.open(
        f"/projects/boxes-look-{language}/label", locale=locale, viewport={"width": 390, "height": 844}, has_touch=True
    )
    phone.wait_for_selector(".marking[data-ready]")
    phone.locator(".mark-list li").first.tap()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    assert phone.locator(".mark-fields input").count() == 4
