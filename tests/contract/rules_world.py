"""A text project of rules with a small cluster and a pilot whose cycles are called by hand. Called by test_web_rules*.py."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from labelloop.settings import Settings
from tests.contract.small_cluster import SmallCluster
from tests.contract.web_world import World
from webapp.db import projects
from webapp.pilot.relay import Relay
from webapp.pilot.rules import RuleRunner
from webapp.pilot.watch import Watch

OWL = {"kind": "keywords", "name": "hoots", "label": "owl", "field": "text", "words": ["hoot", "night"]}
NIGHT = {"kind": "keywords", "name": "night", "label": "owl", "field": "text", "words": ["night"]}
TIT = {"kind": "keywords", "name": "small", "label": "tit", "field": "text", "words": ["small", "blue"]}
BLUE = {"kind": "pattern", "name": "blue", "label": "tit", "field": "text", "pattern": "blue"}
JAY = {"kind": "keywords", "name": "acorns", "label": "jay", "field": "text", "words": ["acorn", "blue"]}
ALL = [OWL, NIGHT, TIT, BLUE, JAY]
WORDS = ("hoot at night", "small and blue", "an acorn thief", "nothing to say", "small blue acorn")
TRUE = ("owl", "tit", "jay", "jay", "tit")


class Rule:
    """A world with a text project of rules, a small cluster and a pilot whose cycles are called by hand."""

    def __init__(self, settings: Settings, texts: int = 50) -> None:
        self.cluster = SmallCluster()
        self.world = World(settings, self.cluster)
        self.admin = self.world.admin
        self.world.project("birds")
        rows = [{"id": f"i{n:03d}", "text": f"{WORDS[n % 5]} {n}"} for n in range(texts)]
        self.admin.call("POST", "/projects/birds/items", {"items": rows})
        database = self.world.database
        self.relay = Relay(database, self.cluster, settings.pilot)
        self.watch = Watch(database, self.cluster, self.relay, settings.pilot)
        self.runner = RuleRunner(database, self.cluster, threading.Event())
        self.relay.open_task(self.project)

    @property
    def project(self) -> projects.Project:
        with self.world.database.read() as tx:
            return projects.find_project(tx, "birds")

    def call(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        return self.admin.call(method, f"/projects/birds/rules{path}", body, status)

    def save(self, rules: list[dict[str, Any]], **more: Any) -> Any:
        return self.call("PUT", "", {"revision": self.call("GET", "")["revision"], "rules": rules, **more})

    def apply(self, rules: list[dict[str, Any]] | None = None, **more: Any) -> Any:
        """Save and apply rules; return the job when it has ended."""
        if rules is not None:
            self.save(rules, **more)
        self.call("POST", "/apply", status=202)
        self.runner.cycle(self.project)
        return self.call("GET", "/state")["job"]

    def label(self, item_id: str, label: str) -> Any:
        return self.admin.call("POST", "/projects/birds/annotations", {"item_id": item_id, "labels": [label]})

    def send(self) -> None:
        """Relay until nothing is on its way."""
        for _ in range(30):
            self.relay._not_before_s.clear()
            self.relay.cycle()
            self.watch._asked_s.clear()
            self.watch.cycle()
            status = self.admin.call("GET", "/projects/birds/status")
            if not status["outbox"] and not status["rules_outbox"]:
                return
        raise AssertionError("labels stay on their way")

    def labels(self, state: str) -> dict[str, str]:
        """Return the labels of the items in a state, by the export."""
        answer = self.admin.raw("GET", f"/projects/birds/export?format=csv&which={state}").get_data(as_text=True)
        rows = [line.split(",") for line in answer.splitlines()[1:]]
        return {row[0]: row[1] for row in rows}


@pytest.fixture
def rule(web_settings: Settings) -> Iterator[Rule]:
    made = Rule(web_settings)
    yield made
    made.world.close()
