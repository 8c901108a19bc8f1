"""Sounds: the waveform and its player, segments by mouse and by keys alone, drafts, undo, and what the app got."""

from __future__ import annotations

import io
import math
import struct
import wave
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import App, Visitor, wait_until
from tests.browser.test_every_page import check
from tests.browser.test_shapes import fields, rows
from webapp.media import MediaStore
from webapp.rooms import media_dir

SECONDS, RATE = 4, 8000


def sound() -> bytes:
    """Return a WAV of four seconds: a tone in the second and in the fourth."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        tones = (12000 * math.sin(n / 9) * (int(n / RATE) % 2) for n in range(SECONDS * RATE))
        file.writeframes(b"".join(struct.pack("<h", int(tone)) for tone in tones))
    return out.getvalue()


def desk(
    app: App, visitor: Visitor, slug: str, kind: str = "segments", marks: list[dict[str, Any]] | None = None, **options: Any
) -> Page:
    """Create a project of two sounds, the first with a draft of `marks`, and open its labelling page."""
    link = MediaStore(media_dir(app.settings)).save(slug, sound(), "wav")
    made: list[dict[str, Any]] = [{"id": "a", "name": "sound a", "link": link}, {"id": "b", "name": "sound b", "link": link + "?b"}]
    if marks:
        made[0]["draft"] = {"marks": marks, "confidence": 0.6}
    app.project(slug, made, category="audio", kind=kind, labels=["owl", "tit", "jay"])
    page = visitor.context(**options).new_page()
    serve(page)
    page.goto(f"/projects/{slug}/label")
    page.wait_for_selector(".wave[data-ready]")
    return page


def serve(page: Page) -> None:
    """Answer for the sound's file, in parts where a part is asked for."""
    whole = sound()

    def answer(route: Route) -> None:
        asked = route.request.headers.get("range", "")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        more = {"Content-Range": f"bytes {start}-{len(whole) - 1}/{len(whole)}"} if asked else {}
        headers = {"Content-Type": "audio/wav", "Accept-Ranges": "bytes", **more}
        route.fulfill(status=206 if asked else 200, headers=headers, body=whole[start:])

    page.route("**/media/**", answer)


def accepted(app: App, page: Page, slug: str) -> dict[str, Any]:
    """Accept what is said of the first sound and return what the app has."""
    page.locator("#accept").click()
    wait_until(lambda: app.call("GET", f"/projects/{slug}/items/a")["history"], "the answer is there")
    (answer,) = app.call("GET", f"/projects/{slug}/items/a")["history"]
    found: dict[str, Any] = answer
    return found


def test_a_sound_is_played_and_gone_through_by_keys_and_labelled(app: App, visitor: Visitor) -> None:
    page = desk(app, visitor, "sound-class", "multiclass")
    assert page.locator(".wave-clock").inner_text() == "0.00 / 4.00 s"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".wave-clock")).to_have_text("3.50 / 4.00 s")
    page.keyboard.press("p")
    page.wait_for_function("() => document.querySelector('audio').currentTime > 3.55")
    page.keyboard.press("2")
    wait_until(lambda: app.labels_of("sound-class"), "the answer is there")
    assert app.labels_of("sound-class") == {"a": ["tit"]}


def test_segments_are_set_by_keys_alone(app: App, visitor: Visitor) -> None:
    page = desk(app, visitor, "segments-keys")
    page.keyboard.press("2")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("i")
    assert page.locator("#said").inner_text() == "In point at 1.00 s; O sets the out point."
    page.keyboard.press("ArrowRight")
    page.keyboard.press("o")
    wait_until(lambda: rows(page) == ["1, tit, 1.00 to 1.50 s"], "the rows of the marks")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("o")  # the selected one ends later
    page.keyboard.press("F2")
    page.keyboard.press("Control+a")
    page.keyboard.type("0.75")
    page.keyboard.press("Enter")
    assert fields(page) == [0.75, 2.0]
    page.keyboard.press("Escape")
    page.keyboard.press("3")
    page.keyboard.press("n")
    wait_until(lambda: rows(page) == ["1, tit, 0.75 to 2.00 s", "2, jay, 2.00 to 3.00 s"], "the rows of the marks")
    page.keyboard.press("n")
    page.keyboard.press("Delete")
    page.keyboard.press("[")
    page.keyboard.press("u")
    page.keyboard.press("u")
    assert len(rows(page)) == 2
    answer = accepted(app, page, "segments-keys")
    assert answer["labels"] == ["tit", "jay"]
    assert [(mark["label"], mark["where"]) for mark in answer["marks"]] == [("tit", [0.75, 2.0]), ("jay", [2.0, 3.0])]


def test_segments_are_drawn_moved_and_pulled_by_mouse_and_a_draft_is_changed(app: App, visitor: Visitor) -> None:
    page = desk(app, visitor, "segments-mouse", marks=[{"id": "d", "label": "jay", "where": [3, 3.9], "confidence": 0.62}])
    wait_until(lambda: rows(page) == ["1, jay, draft, 3.00 to 3.90 s"], "the rows of the marks")
    box = page.locator(".wave-place").bounding_box()
    assert box is not None

    def drag(start: float, end: float) -> None:
        for at, act in ((start, page.mouse.down), ((start + end) / 2, None), (end, page.mouse.up)):
            page.mouse.move(box["x"] + at / SECONDS * box["width"], box["y"] + 60, steps=3)
            if act:
                act()

    drag(1.0, 2.0)
    assert [row.split(",")[1] for row in rows(page)] == [" jay", " owl"]
    assert fields(page) == pytest.approx([1, 2], abs=0.05)
    drag(1.5, 1.75)
    assert fields(page) == pytest.approx([1.25, 2.25], abs=0.05)
    drag(3.5, 3.25)
    assert rows(page)[0].startswith("1, jay, 2.7"), "a touched draft is a draft no more"
    answer = accepted(app, page, "segments-mouse")
    assert answer["is_corrected"] and answer["labels"] == ["owl", "jay"]
    assert answer["marks"][1]["where"] == pytest.approx([1.25, 2.25], abs=0.05)


def test_a_sound_that_cannot_be_read_says_so_and_can_be_skipped(app: App, visitor: Visitor) -> None:
    visitor.expected += ["404", "Failed to load", "decode"]
    link = MediaStore(media_dir(app.settings)).save("sound-broken", b"no sound", "wav")
    app.project("sound-broken", [{"id": "a", "link": link}], category="audio", kind="segments", labels=["owl"])
    page = visitor.context().new_page()
    page.route("**/media/**", lambda route: route.fulfill(status=200, content_type="audio/wav", body=b"no sound"))
    page.goto("/projects/sound-broken/label")
    page.wait_for_function("() => document.querySelector('.wave-clock')?.textContent.startsWith('The waveform')")
    page.keyboard.press("n")
    page.keyboard.press("s")
    page.wait_for_function("() => document.getElementById('said').textContent === 'Skipped.'")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_waveform_is_accessible_in_light_and_dark(
    app: App, visitor: Visitor, language: str, screenshots: Path | None, tmp_path: Path
) -> None:
    screenshots = screenshots or tmp_path
    marks: list[dict[str, Any]] = [
        {"id": "d", "label": "jay", "where": [3, 3.9], "confidence": 0.62},
        {"id": "e", "label": "tit", "where": [1, 2]},
    ]
    options: dict[str, Any] = {"locale": "zh-CN" if language == "zh" else "en-US", "viewport": {"width": 1180, "height": 760}}
    page = desk(app, visitor, f"segments-look-{language}", marks=marks, **options)
    page.keyboard.press("]")
    check(page)
    page.screenshot(path=screenshots / f"segments-{language}.png")
    page.emulate_media(color_scheme="dark")
    check(page, "color-contrast")
