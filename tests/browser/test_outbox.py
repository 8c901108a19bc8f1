"""Answers on their way outlive minutes without a network, a page killed in the middle, a full browser; two tabs send each once."""

from __future__ import annotations

from playwright.sync_api import BrowserContext, Page

from tests.browser.conftest import App, Visitor, wait_until

KEPT = """() => new Promise((resolve, reject) => {
  const asked = indexedDB.open("labelloop", 1);
  asked.onerror = () => reject(asked.error);
  asked.onsuccess = () => {
    const counted = asked.result.transaction("answers").objectStore("answers").count();
    counted.onsuccess = () => { asked.result.close(); resolve(counted.result); };
  };
})"""
FULL = """() => {}; IDBObjectStore.prototype.put = function () {
  throw new DOMException("no room", "QuotaExceededError");
}"""


def desk(context: BrowserContext, slug: str) -> Page:
    """Open a labelling page in a new tab and wait for its first item."""
    page = context.new_page()
    page.goto(f"/projects/{slug}/label")
    page.wait_for_selector(".words")
    return page


def label(page: Page, n: int) -> None:
    """Accept `n` items, each when it is on screen."""
    for _ in range(n):
        before = page.locator(".words").inner_text()
        page.keyboard.press("Enter")
        page.wait_for_function("before => document.querySelector('.words')?.innerText !== before", arg=before)


def wait_for_saving(page: Page, words: str) -> None:
    """Wait until the line about saving says `words`."""
    page.wait_for_function("words => document.getElementById('saving').textContent === words", arg=words)


def test_a_page_killed_in_the_middle_loses_nothing_and_doubles_nothing(app: App, visitor: Visitor) -> None:
    visitor.expected.append("ERR_FAILED")
    app.texts("killed", 12)
    context = visitor.context()
    page = desk(context, "killed")
    label(page, 1)
    wait_for_saving(page, "All saved.")
    context.route("**/annotations", lambda route: (route.fetch(), route.abort()))  # saved there, the reply lost
    label(page, 3)
    page.wait_for_function("() => document.querySelectorAll('#waiting li').length === 3")
    assert page.evaluate(KEPT) == 3
    page.close(run_before_unload=False)
    context.unroute("**/annotations")
    again = desk(context, "killed")
    wait_for_saving(again, "All saved.")
    wait_until(lambda: again.evaluate(KEPT) == 0, "nothing is left in the browser")
    assert app.call("GET", "/projects/killed/status")["labels"] == 4
    for item_id in app.labels_of("killed"):
        assert len(app.call("GET", f"/projects/killed/items/{item_id}")["history"]) == 1


def test_a_second_tab_leaves_the_answers_of_a_living_one_alone_and_takes_over_those_of_a_closed_one(
    app: App, visitor: Visitor
) -> None:
    visitor.expected.append("ERR_FAILED")
    app.texts("two-living-tabs", 16)
    context = visitor.context()
    first = desk(context, "two-living-tabs")
    first.route("**/annotations", lambda route: route.abort())
    label(first, 2)
    first.wait_for_function("() => document.querySelectorAll('#waiting li').length === 2")
    second = desk(context, "two-living-tabs")
    label(second, 1)
    wait_for_saving(second, "All saved.")
    assert app.call("GET", "/projects/two-living-tabs/status")["labels"] == 1
    first.close()
    wait_until(lambda: second.evaluate(KEPT) == 0, "nothing is left in the browser")
    wait_for_saving(second, "All saved.")
    assert app.call("GET", "/projects/two-living-tabs/status")["labels"] == 3


def test_work_goes_on_offline_and_goes_out_when_the_network_is_back(app: App, visitor: Visitor) -> None:
    visitor.expected.append("ERR_INTERNET_DISCONNECTED")
    app.texts("offline", 12)
    context = visitor.context()
    page = desk(context, "offline")
    context.set_offline(True)
    label(page, 3)
    page.get_by_text("The app does not answer").first.wait_for()
    assert page.locator("#waiting li").count() == 3
    context.set_offline(False)
    wait_for_saving(page, "All saved.")
    assert page.locator("#waiting li").count() == 0 and len(app.labels_of("offline")) == 3


def test_a_browser_without_room_says_so_and_saves_all_the_same(app: App, visitor: Visitor) -> None:
    visitor.expected.append("ERR_FAILED")
    app.texts("full", 12)
    context = visitor.context()
    context.add_init_script(FULL)
    page = desk(context, "full")
    page.route("**/annotations", lambda route: route.abort())
    label(page, 2)
    page.get_by_text("This browser has no room left").wait_for()
    page.unroute("**/annotations")
    wait_for_saving(page, "All saved.")
    assert page.locator("#problem").inner_text() == "" and len(app.labels_of("full")) == 2


def test_answers_that_an_earlier_release_left_behind_are_sent(app: App, visitor: Visitor) -> None:
    app.texts("earlier", 4)
    context = visitor.context()
    page = desk(context, "earlier")
    left = '{"at": 1, "body": {"item_id": "t03", "lease": "", "labels": ["owl"], "seconds": 1, "key": "left", "next": 0}}'
    user = page.evaluate("JSON.parse(document.getElementById('page-data').textContent).user")
    page.evaluate("([name, value]) => localStorage.setItem(name, value)", [f"labelloop.answer.{user}.earlier.left", left])
    page.reload()
    page.wait_for_function("() => !Object.keys(localStorage).some(name => name.includes('.answer.'))")
    wait_until(lambda: page.evaluate(KEPT) == 0, "nothing is left in the browser")
    assert app.labels_of("earlier") == {"t03": ["owl"]}
