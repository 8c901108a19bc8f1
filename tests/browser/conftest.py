"""A real app and a real browser for the tests of the pages: gunicorn in a process of its own, SQLite, a private valkey, Chromium.

Owns the server, the browser and the accounts of a session; each test gets a fresh browser context. Every page fails its test on a
console error, a page error or a request refused by the content security policy, unless the test names it as expected.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from labelloop import messages as m
from labelloop.settings import Settings, read_settings
from scripts.samples import load_sample
from tests.support_broker import running_broker
from webapp.db import items, live, projects, scores, users
from webapp.db.engine import Database, open_database
from webapp.kinds.values import Value
from webapp.media import MediaStore
from webapp.rooms import media_dir
from webapp.transfer.importer import Importer

PASSWORD = "correct horse battery"
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SERVING = "model-20260102T100000Z-5e1f0a"
PATIENCE_S = 20.0  # the other process of the tests runs labs beside this one
expect.set_options(timeout=1000 * PATIENCE_S)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes the documentation's pictures."""
    parser.addoption("--screenshots", metavar="DIR", default=None, help="write the pictures of docs/images into DIR")


class App:
    """A running app: its address, its database, and calls of its API as the admin `ada`."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.url = url
        self.settings = settings
        self.database: Database = open_database(settings, pool=2)
        self.token = ""

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call the API as ada and return its JSON, or its text where it is none."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.token}"} if self.token else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/api/v1{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            text = answer.read().decode()
        return json.loads(text) if text.startswith(("{", "[")) and "\n" not in text.strip() else text

    def project(self, slug: str, rows: list[dict[str, Any]], **more: Any) -> str:
        """Create a project with items."""
        body = {"slug": slug, "category": "text-classification", "labels": ["owl", "tit", "jay"], **more}
        self.call("POST", "/projects", body)
        if rows:
            self.call("POST", f"/projects/{slug}/items", {"items": rows})
        return slug

    def texts(self, slug: str, n: int = 12, **more: Any) -> str:
        """Create a project of short texts, each with its draft: 'tit', 80 % sure."""
        self.project(slug, [{"id": f"t{i:02d}", "text": f"text number {i}"} for i in range(n)], **more)
        self.draft(slug, {f"t{i:02d}": (("tit",), 0.8) for i in range(n)})
        return slug

    def draft(self, slug: str, drafts: dict[str, tuple[tuple[str, ...], float]], version: str = SERVING) -> None:
        """Store drafts of single items, as the pilot does after a ranking."""
        with self.database.write() as tx:
            project = projects.find_project(tx, slug)
            stored = items.items_by_id(tx, project.id, list(drafts))
            rows = [
                (stored[item_id].number, items.NewDraft(Value(labels), version, confidence))
                for item_id, (labels, confidence) in drafts.items()
            ]
            scores.save_head(tx, project.id, 1, rows)

    def tell(self, slug: str, views: tuple[m.VersionView, ...] = (), problem: str = "", **progress: Any) -> None:
        """Write what the cluster said of a project, as the pilot does."""
        with self.database.write() as tx:
            project = projects.find_project(tx, slug)
            live.save_live(tx, project.id, m.ProgressReply(task=slug, **progress), problem, time.time())
            live.save_versions(tx, project.id, views)

    def beat(self, is_connected: bool = True, sentence: str = "all is well", ago_s: float = -3600.0) -> None:
        """Write the pilot's heartbeat; by default one that stays fresh for the rest of the session."""
        with self.database.write() as tx:
            live.save_pilot(tx, sentence, is_connected, time.time() - ago_s)

    def import_all(self) -> None:
        """Run every import that waits, as the worker beside the pilot does."""
        Importer(self.database, MediaStore(media_dir(self.settings)), self.settings.intake.max_item_bytes).run_all()

    def forget_languages(self) -> None:
        """Let every account have its browser's language again."""
        with self.database.write() as tx:
            for user in users.list_users(tx):
                users.change_user(tx, user.id, locale="")

    def labels_of(self, slug: str) -> dict[str, list[str]]:
        """Return the labels of the export, by item; fails when an item is there twice."""
        text = self.call("GET", f"/projects/{slug}/export?format=jsonl")
        lines = [text] if isinstance(text, dict) else [json.loads(line) for line in text.splitlines()]
        found = {line["id"]: line["labels"] for line in lines}
        assert len(found) == len(lines), "an item is in the export twice"
        return found


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def press(page: Page, role: Any, name: str, within: str = "body") -> None:
    """Press a link or button by keyboard: focus, then Enter."""
    part = page.locator(within).get_by_role(role, name=name, exact=True)
    part.focus()
    page.keyboard.press("Enter")


def wait_until(is_true: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
    """Return the first true answer of `is_true`; fail with `what` when there is none in time."""
    until = time.monotonic() + seconds
    while True:
        if found := is_true():
            return found
        assert time.monotonic() < until, f"not in time: {what}"
        time.sleep(0.02)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/login", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """A running app without any account."""
    folder = tmp_path_factory.mktemp("app")
    port = free_port()
    with running_broker(folder / "broker") as broker:
        file = folder / "labelloop.toml"
        limits = 'rate_limit = "1000000 per minute"\nlogin_rate_limit = "1000000 per minute"\nworkers = 1\nthreads = 24\n'
        file.write_text(f'state_dir = "{folder}"\n[web]\nport = {port}\nredis_url = "{broker.url}"\n{limits}')
        with (folder / "web.log").open("wb") as log:
            argv = [sys.executable, "-m", "webapp", "web", "--settings", str(file)]
            process = subprocess.Popen(argv, stdout=log, stderr=log)
            running = App(f"http://127.0.0.1:{port}", read_settings(file))
            try:
                wait_until(lambda: process.poll() is not None or _answers(running.url), "the app answers", 40)
                assert process.poll() is None, (folder / "web.log").read_text()[-2000:]
                yield running
            finally:
                running.database.close()
                process.terminate()
                process.wait(20)
        assert "Traceback" not in (folder / "web.log").read_text(), (folder / "web.log").read_text()[-4000:]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    if shutil.which(CHROMIUM) is None:
        pytest.fail("no Chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


def sign_in(page: Page, url: str, name: str) -> None:
    """Fill in the login form, which is also the form of the first account."""
    page.goto(f"{url}/login")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.locator("main button[type=submit]").click()
    page.wait_for_url(f"{url}/")


@pytest.fixture(scope="session")
def sessions(app: App, browser: Browser) -> dict[str, Any]:
    """The cookies of ada, who made the first account through the page, and of bob, an annotator."""
    states: dict[str, Any] = {}
    for name in ("ada", "bob"):
        context = browser.new_context(locale="en-US")
        page = context.new_page()
        sign_in(page, app.url, name)
        states[name] = context.storage_state()
        context.close()
        if name == "ada":
            app.token = app.call("POST", "/tokens", {"name": "ada", "password": PASSWORD, "label": "tests"})["token"]
            app.call("POST", "/users", {"name": "bob", "password": PASSWORD})
    app.beat()
    return states


class Visitor:
    """Opens pages in fresh contexts and remembers what went wrong on them."""

    def __init__(self, app: App, browser: Browser, sessions: dict[str, Any]) -> None:
        self._app, self._browser, self._sessions = app, browser, sessions
        self._contexts: list[BrowserContext] = []
        self.problems: list[str] = []
        self.expected: list[str] = []

    def context(self, who: str | None = "ada", **options: Any) -> BrowserContext:
        """Return a new browser context of ada, of bob, or of nobody (None); a `locale` counts, whatever a test chose before."""
        if "locale" in options:
            self._app.forget_languages()
        state = self._sessions[who] if who else None
        made = self._browser.new_context(
            storage_state=state, **{"locale": "en-US", "base_url": self._app.url, "reduced_motion": "reduce", **options}
        )
        made.set_default_timeout(1000 * PATIENCE_S)
        self._contexts.append(made)
        made.on("page", self._listen)
        return made

    def open(self, path: str, who: str | None = "ada", **options: Any) -> Page:
        """Open a page in a new context."""
        page = self.context(who, **options).new_page()
        page.goto(path)
        return page

    def enter(self, name: str, **options: Any) -> Page:
        """Log in through the form as somebody who has an account, in a new context."""
        page = self.context(None, **options).new_page()
        sign_in(page, self._app.url, name)
        return page

    def _listen(self, page: Page) -> None:
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.problems.append(f"page error: {error}"))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"console {message.type}: {message.text} at {message.location}")

    def close(self) -> None:
        """Close every context."""
        for context in self._contexts:
            context.close()

    def unexpected(self) -> list[str]:
        """Return what went wrong and was not expected."""
        return [problem for problem in self.problems if not any(words in problem for words in self.expected)]


@pytest.fixture
def visitor(app: App, browser: Browser, sessions: dict[str, Any]) -> Iterator[Visitor]:
    """Pages of this test; they are closed at its end and must have stayed without errors."""
    made = Visitor(app, browser, sessions)
    yield made
    made.close()
    assert made.unexpected() == []


@pytest.fixture(scope="session")
def screenshots(request: pytest.FixtureRequest) -> Path | None:
    """Where pictures go, None = nobody asked for any."""
    folder = request.config.getoption("--screenshots")
    if folder is None:
        return None
    (Path(folder) / "all").mkdir(parents=True, exist_ok=True)
    return Path(folder)


def version_view(number: int, labels: int, accuracy: float, is_serving: bool = False, reason: str = "") -> m.VersionView:
    """Return a published version as the cluster tells of it."""
    return m.VersionView(
        version=SERVING if is_serving else f"model-20260102T09{number:02d}00Z-{number:06x}",
        run=number,
        algorithm="logistic-regression",
        encoder="raw-pixels",
        labels=labels,
        metrics={"accuracy": accuracy, "held_out": 48.0},
        is_serving=is_serving,
        was_served=True,
        reason=reason or "first version: 9 of 10 held-out items right",
    )


TRAINING = m.RunView(
    run=6,
    attempt=1,
    state="running",
    algorithm="logistic-regression",
    encoder="raw-pixels",
    labels=110,
    step=30,
    steps=50,
    loss=0.31,
    seconds=12.0,
    losses=tuple((step, 2.3 * 0.93**step + 0.1) for step in range(1, 31)),
)


@pytest.fixture(scope="session")
def digits(app: App, sessions: dict[str, Any]) -> str:
    """Handwritten digits on their way: 110 labels, drafts, five made-up versions with their curve, a training under way."""
    sample = load_sample("digits", Path())
    pool = sample.pool()[:600]
    rows = [{"id": item.item_id, "link": item.link} for item in pool]
    more = {"title": sample.title, "category": sample.category, "labels": list(sample.labels), "target": 0.98}
    app.project("digits", rows, **more, instructions="One digit a picture.\nSkip what you cannot read.")
    app.call("POST", "/projects/digits/members", {"name": "bob", "role": "annotator"})
    guesses = {item.item_id: ((item.label if at % 9 else "8",), 0.99 - 0.17 * (at % 4)) for at, item in enumerate(pool)}
    app.draft("digits", guesses)
    truth = {item.item_id: item.label for item in pool}
    taken = app.call("POST", "/projects/digits/next", {"n": 100})["items"]
    for item in [*taken, *app.call("POST", "/projects/digits/next", {"n": 10})["items"]]:
        body = {"item_id": item["item_id"], "lease": item["lease"], "labels": [truth[item["item_id"]]], "seconds": 2.5}
        app.call("POST", "/projects/digits/annotations", body)
    worse = "not worse: 42 of 48 held-out items right, before 39 (5 gained, 2 lost)"
    lost = "(1 gained, 6 lost; a clear majority on few items)"
    versions = (
        version_view(1, 20, 0.61, reason="first version: 17 of 28 held-out items right"),
        version_view(2, 40, 0.79, reason=f"serves in place of model-1, {worse}"),
        version_view(3, 60, 0.86, reason=f"serves in place of model-2, {worse}"),
        version_view(4, 80, 0.85, reason="kept, model-3 goes on serving: worse: 40 of 48 held-out items right, before 45 " + lost),
        version_view(5, 100, 0.93, is_serving=True, reason=f"serves in place of model-3, {worse}"),
    )
    figures = "88 of the last 100 drafts were right (88.0%), target 98.0%"
    said = {"next_training": "next training in 14 labels", "comparer": f"target missed: {figures}"}
    app.tell("digits", versions, labels=110, labels_to_next=14, serving=SERVING, pointer=4, run=TRAINING, agreement=0.88, **said)
    return "digits"
