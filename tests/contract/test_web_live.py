"""What the live page is told: trouble in sentences, events, streams; and the app as the processes that people start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labelloop.errors import LabelloopError, SettingsError, UnreachableError
from labelloop.settings import Settings, environment_of
from scripts.web_bench import free_port
from scripts.web_client import WebClient
from tests.contract.small_cluster import SmallCluster
from tests.contract.web_world import Valkey, World, make_settings
from webapp.db import live
from webapp.joining import JoiningCluster
from webapp.pilot.watch import describe
from webapp.projects.status import find_trouble
from webapp.views import api_projects


@pytest.mark.parametrize(
    ("pilot", "words"),
    [
        (None, "never run"),
        (live.PilotState(100.0, "all is well", True), "silent for 100 s"),
        (live.PilotState(199.0, "no train node is online", False), "no train node"),
        (live.PilotState(199.0, "all is well", True), ""),
    ],
)
def test_trouble_is_a_sentence_with_a_way_out(pilot: live.PilotState | None, words: str) -> None:
    said = find_trouble(pilot, 200.0)
    assert (words in said) if words else said == ""


def test_a_cluster_without_a_role_is_described_by_what_it_lacks() -> None:
    cluster = SmallCluster()
    assert describe(cluster) == ("all is well", True)
    cluster.master = ""
    assert describe(cluster) == ("no train node is online", False)
    cluster.is_down = True
    sentence, is_connected = describe(cluster)
    assert "labels wait here" in sentence and not is_connected


def test_an_app_without_a_registry_says_so_and_still_labels(world: World) -> None:
    slug = world.project(texts=1)
    assert "never run" in world.admin.call("GET", "/cluster")["trouble"]
    said = world.admin.call("POST", f"/projects/{slug}/train", {}, 503)
    assert "--registry" in said["message"]


def test_events_go_on_from_the_last_one_seen(world: World) -> None:
    slug = world.project()
    first = world.admin.call("GET", f"/projects/{slug}/events")
    assert [event["kind"] for event in first["events"]] == ["project"]
    world.admin.call("PATCH", f"/projects/{slug}", {"target": 0.8})
    more = world.admin.call("GET", f"/projects/{slug}/events?after={first['after']}")
    assert [event["text"] for event in more["events"]] == ["ada changed target"]


def test_the_stream_tells_events_and_status_and_ends_by_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_projects, "STREAM_S", 0.3)
    slug = world.project(texts=2)
    answer = world.admin.raw("GET", f"/projects/{slug}/events?after=0", headers={"Accept": "text/event-stream"})
    text = answer.get_data(as_text=True)
    assert answer.mimetype == "text/event-stream" and text.startswith("retry: ")
    assert "event: happened" in text and "event: status" in text and '"items":2' in text


def test_streams_never_take_all_threads(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_projects, "STREAM_S", 30.0)
    slug = world.project()
    accept = {"Accept": "text/event-stream"}
    held = [world.admin.raw("GET", f"/projects/{slug}/events", headers=accept) for _ in range(world.settings.web.threads // 4)]
    for answer in held:
        pieces = answer.iter_encoded()
        next(pieces), next(pieces)
    late = world.admin.raw("GET", f"/projects/{slug}/events", headers=accept)
    assert late.get_data(as_text=True).count("event:") == 0
    for answer in held:
        answer.close()


def test_joining_needs_a_registry_and_a_token_and_says_which_is_missing(tmp_path: Path) -> None:
    without = JoiningCluster("127.0.0.1:1", Settings(), tmp_path / "client", None)
    with pytest.raises(SettingsError, match="--token-file"):
        without.train()
    missing = JoiningCluster("127.0.0.1:1", Settings(), tmp_path / "client", tmp_path / "token")
    with pytest.raises(SettingsError, match="join token"):
        missing.train()
    (tmp_path / "token").write_text("secret." + "0" * 64)
    away = JoiningCluster(f"127.0.0.1:{free_port()}", Settings(), tmp_path / "client", tmp_path / "token")
    with pytest.raises(UnreachableError):
        away.train()
    away.close()


# ---------------------------------------------------------------- processes


@pytest.fixture
def served(tmp_path: Path, valkey: Valkey) -> Iterator[tuple[subprocess.Popen[bytes], WebClient, Settings]]:
    settings = make_settings(tmp_path, "", valkey.url, port=free_port(), workers=2, threads=4)
    environment = {**os.environ, **environment_of(settings)}
    process = subprocess.Popen((sys.executable, "-m", "webapp", "web"), env=environment, stderr=subprocess.DEVNULL)
    client = WebClient(f"http://127.0.0.1:{settings.web.port}", patience_s=60)
    yield process, client, settings
    process.terminate()
    process.wait(30)
    client.close()


def _label(client: WebClient, n: int) -> Any:
    [item] = client.call("POST", "/projects/birds/next", {"n": 1})["items"]
    body = {"item_id": item["item_id"], "lease": item["lease"], "labels": ["owl"], "key": f"k{n}"}
    return client.call("POST", "/projects/birds/annotations", body)["saved"]["item_id"]


@pytest.mark.slow
def test_workers_that_are_killed_come_back_and_no_saved_label_is_lost(served: Any) -> None:
    process, client, _ = served
    client.call("POST", "/users", {"name": "ada", "password": "correct horse"})
    token = client.call("POST", "/tokens", {"name": "ada", "password": "correct horse"})["token"]
    person = client.with_token(token)
    person.call("POST", "/projects", {"slug": "birds", "category": "text-classification", "labels": ["owl", "tit"]})
    person.call("POST", "/projects/birds/items", {"items": [{"id": f"i{n}", "text": f"t{n}"} for n in range(60)]})
    saved = []
    for n in range(40):
        if n % 10 == 5:
            for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        saved.append(_label(person, n))
    assert len(set(saved)) == 40
    lines = [line for line in person.lines("/projects/birds/export?format=jsonl") if line]
    assert len(lines) == 40
    person.close()


@pytest.mark.slow
def test_a_pilot_without_a_registry_imports_and_ends_on_sigterm(served: Any) -> None:
    _, client, settings = served
    client.call("POST", "/users", {"name": "ada", "password": "correct horse"})
    person = client.with_token(client.call("POST", "/tokens", {"name": "ada", "password": "correct horse"})["token"])
    person.call("POST", "/projects", {"slug": "birds", "category": "text-classification", "labels": ["owl", "tit"]})
    file = Path(settings.state_dir) / "birds.csv"
    file.write_text("text\none\ntwo\n")
    person.upload("/projects/birds/imports", file, {})
    pilot = subprocess.Popen(
        (sys.executable, "-m", "webapp", "pilot"), env={**os.environ, **environment_of(settings)}, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 60
    while person.call("GET", "/projects/birds/imports")["imports"][0]["state"] != "done":
        assert time.monotonic() < until
        time.sleep(0.1)
    assert "--registry" in person.call("GET", "/projects/birds/status")["trouble"]
    pilot.terminate()
    assert pilot.wait(30) == 0
    person.close()


def test_errors_of_the_cluster_reach_the_caller_with_their_code(world: World) -> None:
    class Broken(SmallCluster):
        def train(self) -> Any:
            raise LabelloopError("odd")

    object.__setattr__(world.rooms, "cluster", Broken())
    slug = world.project()
    assert world.admin.call("POST", f"/projects/{slug}/train", {}, 500)["message"] == "odd"
    object.__setattr__(world.rooms, "cluster", None)
