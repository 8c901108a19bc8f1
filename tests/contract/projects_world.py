"""An app whose projects are changed in the background, before a cluster stand-in. Called by the tests of labels and projects."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from labelloop.settings import Settings
from tests.contract.small_cluster import SmallCluster
from tests.contract.web_world import Client, World
from webapp.db import projects
from webapp.pilot import upkeep
from webapp.pilot.relay import Relay
from webapp.pilot.upkeep import Upkeep


class Shop:
    """An app with its upkeep, a relay and a cluster that only takes labels."""

    def __init__(self, settings: Settings) -> None:
        self.cluster = SmallCluster()
        self.world = World(settings, self.cluster)
        self.admin: Client = self.world.admin
        self.relay = Relay(self.world.database, self.cluster, settings.pilot)

    def work(self, keep_s: float = 1e9) -> None:
        Upkeep(self.world.database, self.world.rooms.media, keep_s, threading.Event()).cycle()

    def label(self, slug: str, **labels: str) -> None:
        for item_id, label in labels.items():
            body = {"item_id": item_id, "labels": [label], "seconds": 2.0}
            self.admin.call("POST", f"/projects/{slug}/annotations", body)

    def history(self, slug: str, item_id: str) -> list[dict[str, Any]]:
        return self.admin.call("GET", f"/projects/{slug}/items/{item_id}")["history"]

    def change(self, slug: str, what: str, body: Any = None, status: int = 202) -> Any:
        return self.admin.call("POST", f"/projects/{slug}/labels/{what}", body if body is not None else {}, status)

    def project(self, slug: str) -> projects.Project:
        with self.world.database.read() as tx:
            return projects.find_project(tx, slug)

    def send(self) -> None:
        self.relay._not_before_s.clear()
        self.relay.cycle()
        self.relay.cycle()


@pytest.fixture
def shop(web_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr(upkeep, "SETTLE_S", -1.0)
    made = Shop(web_settings)
    yield made
    made.world.close()
