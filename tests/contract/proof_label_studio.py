"""A real Label Studio with a project of ours as its ML backend: predictions go there, annotations come here and on to the cluster.

Not collected by default, since Label Studio takes minutes to install: `scripts/prove_label_studio` installs it from PyPI into a
venv of its own and runs this file with LABEL_STUDIO naming its program.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import make_server

from scripts.web_bench import free_port
from tests.contract.test_web_pilot import Flight
from tests.contract.web_world import Valkey, make_settings

CONFIG = (
    '<View><Text name="text" value="$text"/><Choices name="kind" toName="text" choice="single">'
    '<Choice value="owl"/><Choice value="tit"/></Choices></View>'
)
START_S = 300.0


class RealStudio:
    """A Label Studio on SQLite in a folder of its own, called by its API."""

    def __init__(self, program: str, folder: Path) -> None:
        self._token, self._port = secrets.token_hex(20), free_port()
        own = {
            "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
            "LABEL_STUDIO_USERNAME": "proof@example.org",
            "LABEL_STUDIO_PASSWORD": secrets.token_hex(12),
            "LABEL_STUDIO_USER_TOKEN": self._token,
            "SSRF_PROTECTION_ENABLED": "false",  # both are on the loopback here
            "ML_BLOCK_LOCAL_IP": "false",
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
        }
        argv = (
            program,
            "start",
            "--no-browser",
            "--internal-host",
            "127.0.0.1",
            "--port",
            str(self._port),
            "--enable-legacy-api-token",
        )
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(argv, env={**os.environ, **own}, stdout=log, stderr=log, cwd=folder)
        until_s = time.monotonic() + START_S
        while True:
            try:
                self.call("GET", "/health")
                return
            except OSError:
                assert time.monotonic() < until_s and self._process.poll() is None, (folder / "log").read_text()[-2000:]
                time.sleep(1)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call its API and return the JSON."""
        headers = {"Authorization": f"Token {self._token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                said = answer.read()
        except urllib.error.HTTPError as exc:
            raise AssertionError(f"{method} {path}: {exc.code} {exc.read()[:1000]!r}") from exc
        return json.loads(said) if said else None

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(60)


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[RealStudio]:
    folder = tmp_path / "label-studio"
    folder.mkdir()
    started = RealStudio(os.environ["LABEL_STUDIO"], folder)
    yield started
    started.stop()


@pytest.fixture
def flight(tmp_path: Path, valkey: Valkey) -> Iterator[Flight]:
    made = Flight(make_settings(tmp_path / "labelloop", "", valkey.url))
    yield made
    made.world.close()


@pytest.fixture
def address(flight: Flight) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, flight.world.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/api/v1/projects/birds/label-studio"
    server.shutdown()
    thread.join()


def test_a_real_label_studio_gets_predictions_and_its_annotations_reach_the_cluster(
    flight: Flight, address: str, studio: RealStudio
) -> None:
    flight.world.project(labels=["owl", "tit"], texts=3)
    flight.label("birds", 2)
    flight.turn("birds")
    version = flight.cluster.publish("birds")
    token = flight.admin.call("POST", "/tokens", {"label": "label studio"}, 201)["token"]
    project = studio.call("POST", "/api/projects", {"title": "birds", "label_config": CONFIG})["id"]
    studio.call("POST", f"/api/projects/{project}/import", [{"text": "an owl"}, {"text": "a tit"}])
    hook = {"project": project, "url": f"{address}/webhook", "headers": {"Authorization": f"Bearer {token}"}}
    studio.call("POST", "/api/webhooks/", {**hook, "send_payload": True, "send_for_all_actions": True})
    login = {"auth_method": "BASIC_AUTH", "basic_auth_user": "labelloop", "basic_auth_pass": token}
    connected = studio.call("POST", "/api/ml", {"project": project, "url": address, "title": "labelloop", **login})
    assert connected["readable_state"] == "Connected"

    every = {"selectedItems": {"all": True, "excluded": []}}
    studio.call("POST", f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}", every)
    predictions = studio.call("GET", f"/api/predictions?project={project}")
    assert len(predictions) == 2
    assert all(one["model_version"] == version and one["result"][0]["value"]["choices"][0] in ("owl", "tit") for one in predictions)

    before = len(flight.cluster.merged("birds"))
    task = predictions[0]["task"]
    said = [{"from_name": "kind", "to_name": "text", "type": "choices", "value": {"choices": ["tit"]}}]
    annotation = studio.call("POST", f"/api/tasks/{task}/annotations/", {"result": said, "lead_time": 1.5})["id"]
    flight.turn("birds")
    assert len(flight.cluster.merged("birds")) == before + 1
    said[0]["value"] = {"choices": ["owl"]}
    studio.call("PATCH", f"/api/annotations/{annotation}/", {"result": said})
    history = flight.admin.call("GET", f"/projects/birds/items/label-studio-{project}-{task}")["history"]
    assert [one["labels"] for one in history] == [["tit"], ["owl"]]
    studio.call("DELETE", f"/api/annotations/{annotation}/")
    flight.turn("birds")
    assert len(flight.cluster.merged("birds")) == before
