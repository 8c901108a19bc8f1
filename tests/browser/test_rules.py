"""The page of rules and the review of their labels, with the tests' small cluster behind them; both work from the keyboard."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import msgspec
from playwright.sync_api import Page, Route

from labelloop.errors import LabelloopError
from tests.browser.conftest import App, Visitor, wait_until
from tests.browser.test_every_page import check, inspect
from tests.contract.small_cluster import SmallCluster
from webapp.db import projects
from webapp.media import MediaStore
from webapp.pilot.rules import RuleRunner
from webapp.problems import STATUS
from webapp.projects.service import spec_of
from webapp.rooms import media_dir
from webapp.rules.preview import preview
from webapp.views.replies import preview_reply

WORDS = ("hoot at night", "small and blue", "an acorn thief", "nothing to say", "small blue acorn")
RULES = [
    {"kind": "keywords", "name": "hoots", "label": "owl", "field": "text", "words": ["hoot", "night"]},
    {"kind": "keywords", "name": "small", "label": "tit", "field": "text", "words": ["small"]},
    {"kind": "pattern", "name": "blue", "label": "tit", "field": "text", "pattern": "blue"},
    {"kind": "keywords", "name": "acorns", "label": "jay", "field": "text", "words": ["acorn", "blue"]},
]


class Desk:
    """A project of texts and a small cluster that answers for the app: previews asked for by a page, and applications."""

    def __init__(self, app: App, slug: str, rules: list[dict[str, Any]] | None = None, n: int = 40) -> None:
        self.app, self.slug, self.cluster = app, slug, SmallCluster()
        app.project(slug, [{"id": f"t{i:02d}", "text": f"{WORDS[i % 5]} {i}"} for i in range(n)])
        self.cluster.tasks[slug] = spec_of(self.project)
        self.held: list[Route] = []
        self.is_slow = False
        if rules is not None:
            app.call("PUT", f"/projects/{slug}/rules", {"revision": 0, "rules": rules})

    @property
    def project(self) -> projects.Project:
        with self.app.database.read() as tx:
            return projects.find_project(tx, self.slug)

    def open(self, visitor: Visitor, **options: Any) -> Page:
        context = visitor.context(**options)
        page = context.new_page()
        page.route("**/rules/preview", self.preview)
        page.goto(f"/projects/{self.slug}/rules")
        return page

    def preview(self, route: Route) -> None:
        """Answer a preview as the app would with this cluster."""
        if self.is_slow:
            self.held.append(route)
            return
        given = json.loads(route.request.post_data or "{}")
        try:
            found = preview(self.app.database, self.cluster, self.project, given["rules"], given["method"])
        except LabelloopError as exc:
            body = json.dumps({"code": exc.code, "message": str(exc), "way_out": ""})
            route.fulfill(status=STATUS[exc.code], content_type="application/json", body=body)
            return
        shown = preview_reply(self.project, MediaStore(media_dir(self.app.settings)), found)
        route.fulfill(content_type="application/json", body=msgspec.json.encode(shown).decode())

    def apply(self) -> None:
        """Do what the pilot does with the job that waits."""
        RuleRunner(self.app.database, self.cluster, threading.Event()).cycle(self.project)

    def saved(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.app.call("GET", f"/projects/{self.slug}/rules")["rules"]
        return found


def figure(page: Page, at: int, name: str) -> str:
    """Return a figure of the rule at a place."""
    return page.locator(".rule").nth(at).locator(".figure", has_text=name).locator("b").inner_text()


def test_a_rule_is_tried_out_while_it_is_written_and_saved_by_itself(app: App, visitor: Visitor) -> None:
    desk = Desk(app, "write")
    page = desk.open(visitor)
    page.keyboard.press("Alt+n")
    page.keyboard.type("hoots")
    rule = page.locator(".rule").first
    assert rule.locator("input[aria-label='Name of the rule']").input_value() == "hoots"
    rule.get_by_label("Words or phrases").fill("hoot\nblue")
    page.wait_for_function("() => document.querySelector('.rule .figure b')?.textContent === '24'")
    assert page.locator("#total-coverage").inner_text() == "60.0 %"
    rule.get_by_label("Says").select_option("jay")
    assert rule.locator(".example").first.inner_text().startswith(("hoot", "small"))
    page.wait_for_function("() => document.getElementById('saved').textContent === 'All saved.'")
    assert desk.saved() == [{"kind": "keywords", "name": "hoots", "label": "jay", "field": "text", "words": ["hoot", "blue"]}]
    page.locator("#new-kind").select_option("lookup")
    page.locator("#add").click()
    page.locator(".rule").nth(1).get_by_label("Entries").fill("acorn = jay\nsmall = tit")
    page.wait_for_function("() => document.querySelectorAll('.rule')[1].querySelector('.figure b')?.textContent === '16'")
    page.locator(".rule").nth(1).get_by_role("button", name="Remove").click()
    wait_until(lambda: len(desk.saved()) == 1, "the removal is saved")


def test_an_error_stands_at_its_rule_and_html_is_only_text(app: App, visitor: Visitor) -> None:
    evil = {**RULES[0], "name": "<img src=x onerror=alert(1)>"}
    desk = Desk(app, "errors", [evil, {**RULES[2], "pattern": "("}, RULES[1]])
    page = desk.open(visitor)
    page.wait_for_selector(".rule-error")
    assert page.locator(".rule").nth(1).locator(".rule-error").inner_text().startswith("regular expression '(' is refused")
    assert page.locator(".rule-error").count() == 1 and page.locator(".rule img").count() == 0
    assert figure(page, 0, "votes") == "8" and figure(page, 2, "votes") == "16"
    page.locator(".rule").nth(1).get_by_label("Regular expression").fill("blue")
    page.wait_for_function("() => !document.querySelector('.rule-error')")


def test_an_older_answer_is_thrown_away_and_a_cluster_that_is_away_is_said(app: App, visitor: Visitor) -> None:
    desk = Desk(app, "live", RULES[:1])
    visitor.expected.append("503")
    page = desk.open(visitor)
    page.wait_for_selector(".figure")
    desk.is_slow = True
    words = page.locator(".rule").first.get_by_label("Words or phrases")
    words.fill("small")
    wait_until(lambda: page.wait_for_timeout(20) or len(desk.held) == 1, "the first preview is asked for")
    words.fill("hoot")
    wait_until(lambda: page.wait_for_timeout(20) or len(desk.held) == 2, "the second preview is asked for")
    desk.is_slow = False
    desk.preview(desk.held[1])
    page.wait_for_function("() => document.querySelector('.figure b').textContent === '8'")
    desk.preview(desk.held[0])
    page.wait_for_timeout(200)
    assert figure(page, 0, "votes") == "8"
    desk.cluster.is_down = True
    words.fill("night")
    page.wait_for_selector("#trouble:not([hidden])")
    assert page.locator("#trouble-text").inner_text() == "the cluster is down"
    wait_until(lambda: page.wait_for_timeout(20) or desk.saved()[0]["words"] == ["night"], "the edit is saved all the same")
    desk.cluster.is_down = False
    page.wait_for_selector("#trouble", state="hidden")


def test_rules_go_in_and_out_as_json(app: App, visitor: Visitor) -> None:
    desk = Desk(app, "json", RULES[:1])
    page = desk.open(visitor)
    page.locator("#raw-box summary").click()
    assert json.loads(page.locator("#raw").input_value()) == RULES[:1]
    page.locator("#raw").fill('{"kind": "keywords"}')
    page.locator("#raw-use").click()
    assert page.locator("#raw-problem").inner_text() == "Give a list of objects, one a rule."
    page.locator("#raw").fill(json.dumps([*RULES, {"kind": "unheard", "name": "odd"}]))
    page.locator("#raw-use").click()
    wait_until(lambda: page.wait_for_timeout(20) or len(desk.saved()) == 5, "the rules are saved")
    page.wait_for_selector(".rule-error")
    assert page.locator(".rule").count() == 5


def test_rules_are_applied_reviewed_by_keys_and_measured(app: App, visitor: Visitor, screenshots: Path | None) -> None:
    desk = Desk(app, "apply", RULES)
    page = desk.open(visitor)
    page.wait_for_selector(".figure")
    inspect(page, "rules-en", screenshots)
    page.locator("#apply").click()
    page.wait_for_function("() => document.getElementById('job-state').textContent.startsWith('waiting')")
    desk.apply()
    page.wait_for_function("() => document.getElementById('job-state').textContent.startsWith('done · 32 labelled')")
    assert page.locator("#both-counts").inner_text() == "Labels of rules: 32 · of people: 0"
    page.locator("#review").click()
    page.wait_for_selector("#rule-votes li")
    inspect(page, "review-en", screenshots)
    seen = []
    for key in ("Enter", "Enter", "1"):
        seen.append((page.locator(".words").inner_text(), page.locator("#draft strong").inner_text()))
        page.keyboard.press(key)
        page.wait_for_function("before => document.querySelector('.words')?.innerText !== before", arg=seen[-1][0])
    page.wait_for_function("() => document.getElementById('review-measured').textContent.startsWith('Labels of rules left: 29')")
    labels = app.labels_of("apply")
    given = {f"{WORDS[int(item_id[1:]) % 5]} {int(item_id[1:])}": one for item_id, one in labels.items()}
    assert given == {seen[0][0]: [seen[0][1]], seen[1][0]: [seen[1][1]], seen[2][0]: ["owl"]}
    wrong = 1 if seen[2][1] != "owl" else 0
    assert page.locator("#review-measured").inner_text().endswith(f"corrected: {wrong} of 3")
    page.keyboard.press("u")
    page.wait_for_function("before => document.querySelector('.words')?.innerText === before", arg=seen[2][0])
    assert page.locator("#draft strong").inner_text() == seen[2][1]
    page.locator("#review-by").select_option(label="rule: hoots")
    page.wait_for_function("() => document.querySelector('.words')?.innerText.startsWith('hoot')")
    page.goto("/projects/apply/rules")
    page.wait_for_function("() => document.getElementById('measured').textContent.includes('corrected')")
    page.locator("#withdraw").click()
    page.wait_for_function("() => document.getElementById('job-state').textContent.startsWith('waiting')")
    desk.apply()
    page.wait_for_function("() => document.getElementById('job-state').textContent.startsWith('done')")
    assert page.locator("#both-counts").inner_text() == "Labels of rules: 0 · of people: 2"


def test_rules_and_review_speak_chinese_and_fit_a_phone(app: App, visitor: Visitor, screenshots: Path | None) -> None:
    desk = Desk(app, "chinese", RULES)
    app.call("POST", "/projects/chinese/rules/apply")
    desk.apply()
    page = desk.open(visitor, locale="zh-CN", viewport={"width": 390, "height": 844})
    page.wait_for_selector(".figure")
    assert page.locator("h1").inner_text() == "规则"
    assert page.locator("#job-state").inner_text().startswith("done") is False
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    inspect(page, "rules-zh", screenshots)
    page.goto("/projects/chinese/rules/review")
    page.wait_for_selector("#rule-votes li")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    check(page)


def test_an_annotator_reviews_but_does_not_write_rules(app: App, visitor: Visitor) -> None:
    desk = Desk(app, "roles", RULES)
    app.call("POST", "/projects/roles/members", {"name": "bob", "role": "annotator"})
    app.call("POST", "/projects/roles/rules/apply")
    desk.apply()
    visitor.expected.append("403")
    page = visitor.open("/projects/roles/rules", "bob")
    assert "only an owner" in page.locator("main").inner_text()
    page.goto("/projects/roles/label")
    assert page.get_by_role("link", name="Rules").count() == 0
    page.get_by_role("link", name="Review").click()
    page.wait_for_selector("#rule-votes li")
