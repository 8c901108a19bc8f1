"""A whole day of an annotator through the pages, by keyboard: drafts, skips, undo, minutes offline, history, a returned item."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.conftest import App, Visitor, press, wait_until


def shown(page: Page) -> str:
    """Return the item on the stage by its id: 'text number 3' is t03."""
    return f"t{int(page.locator('.words').inner_text().split()[-1]):02d}"


def answer(page: Page, key: str) -> str:
    """Press a key and wait for another item; return the one that was answered."""
    item = shown(page)
    page.keyboard.press(key)
    expect(page.locator("#stage-body")).not_to_contain_text(f"text number {int(item[1:])}")
    return item


def saved(page: Page) -> None:
    expect(page.locator("#saving")).to_have_text("All saved.")


def start_work(page: Page) -> Page:
    """Walk by keyboard from the list of projects to the labelling page."""
    page.goto("/")
    press(page, "button", "Label A day of birds", "main")
    page.wait_for_selector(".words")
    return page


def test_a_day_of_an_annotator(app: App, visitor: Visitor) -> None:
    visitor.expected.append("ERR_INTERNET_DISCONNECTED")
    slug = app.texts("day-of-an-annotator", 10, title="A day of birds", instructions="Only **birds**.")
    app.call("POST", f"/projects/{slug}/members", {"name": "bob", "role": "annotator"})
    app.call("PUT", f"/projects/{slug}/work", {"review": "all"})

    page = start_work(visitor.enter("bob"))
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_contain_text("accept the draft, or save what is chosen")
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    page.get_by_text("Instructions").click()
    expect(page.locator(".instructions strong")).to_have_text("birds")
    page.locator("summary").blur()
    expect(page.locator("#draft")).to_contain_text("80 %")

    said = {answer(page, "Enter"): ["tit"], answer(page, "1"): ["owl"]}
    later = answer(page, "s")
    wrong = answer(page, "3")
    page.keyboard.press("u")
    expect(page.locator(".words")).to_have_text(f"text number {int(wrong[1:])}")
    expect(page.locator("#said")).not_to_be_empty()
    said[answer(page, "1")] = ["owl"]
    said[answer(page, ".")] = []
    saved(page)
    assert app.labels_of(slug) == said

    page.context.set_offline(True)
    said |= {answer(page, "Enter"): ["tit"], answer(page, "3"): ["jay"]}
    expect(page.locator("#waiting li")).to_have_count(2)
    assert len(app.labels_of(slug)) == 4
    page.context.set_offline(False)
    saved(page)
    assert app.labels_of(slug) == said
    page.goto("/")

    mistaken = next(item for item, labels in said.items() if labels == ["jay"])
    review = {"n": 1, "reason": "", "item_id": mistaken}
    lease = app.call("POST", f"/projects/{slug}/reviews/next", review)["items"][0]["lease"]
    body = {"item_id": mistaken, "lease": lease, "action": "return", "comment": "look at the beak"}
    app.call("POST", f"/projects/{slug}/reviews", body)

    start_work(page)
    said[answer(page, "Enter")] = ["tit"]  # it was on screen before the break
    expect(page.locator("#returned")).to_have_text("ada sent this back (jay): look at the beak")
    assert shown(page) == mistaken
    said[answer(page, "1")] = ["owl"]
    expect(page.locator("#returned")).to_be_hidden()
    while len(said) < 9:
        assert shown(page) not in (later, *said)
        said[answer(page, "Enter")] = ["tit"]
    assert shown(page) == later
    expect(page.locator("#stop")).to_be_hidden()  # nothing else is left, but this is
    page.keyboard.press("2")
    said[later] = ["tit"]
    expect(page.locator("#empty")).to_contain_text("Nothing is left")
    saved(page)
    wait_until(lambda: app.labels_of(slug) == said, "every answer is kept as it was said")

    press(page, "link", "Data", "header")
    press(page, "link", "All items with what was said of them", "main")
    expect(page.locator("main .lines li")).to_have_count(10)
    press(page, "link", mistaken, "main")
    expect(page.locator("#history > li")).to_have_count(2)
    assert [line.split()[0] for line in page.locator("#history .value-by").all_inner_texts()] == ["bob", "bob"]
    expect(page.locator("#history > li").first).to_contain_text("owl")
    expect(page.locator("#history > li").last).to_contain_text("jay")
    expect(page.locator("main").get_by_role("button")).to_have_count(0)
