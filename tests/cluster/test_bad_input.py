"""What goes wrong in people's hands, through the whole running loop: each gets a clear sentence, and nothing is lost.

Downloads, imports and the wire have more of these, one by one, in tests/contract and tests/unit.
"""

from __future__ import annotations

import base64
import json
import shutil
import struct
import subprocess
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from datastore_layout.labels import LabelLog
from datastore_layout.models import advance, current, publish_model, read_manifest, verified_model_dir
from datastore_layout.root import TaskFolder, open_root, task_folder
from labelloop.errors import ConflictError, InvalidInputError, StorageFullError
from labelloop.ids import parse_task
from labelloop.messages import Sample, SubmitRequest
from labelloop.settings import Settings
from scripts.demo import Access
from scripts.web_client import WebClient
from tests.cluster.demo_tree import Demo, until
from webapp.joining import JoiningCluster

pytestmark = pytest.mark.slow
LIMIT_S = 60.0


class Redirect(BaseHTTPRequestHandler):
    """Sends everybody to the machine's own loopback."""

    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", "http://127.0.0.1:1/secret")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class World:
    """One running demo whose datastore is a small file system of its own (where mounting is allowed)."""

    def __init__(self, demo: Demo, site: str, is_mounted: bool) -> None:
        self.state, self.site, self.is_mounted = demo.state, site, is_mounted
        access = msgspec.json.decode((demo.state / "access.json").read_bytes(), type=Access)
        self.app = WebClient(access.url, access.token)

    def project(self, slug: str, category: str, labels: tuple[str, ...] = ("owl", "tit"), **more: Any) -> None:
        self.app.call("POST", "/projects", {"slug": slug, "title": slug, "category": category, "labels": list(labels), **more})

    def status(self, slug: str) -> dict[str, Any]:
        found: dict[str, Any] = self.app.call("GET", f"/projects/{slug}/status")
        return found

    def answer(self, slug: str, item_id: str, label: str, **more: Any) -> Any:
        return self.app.call("POST", f"/projects/{slug}/annotations", {"item_id": item_id, "labels": [label], "next": 0, **more})

    def folder(self, slug: str) -> TaskFolder:
        return task_folder(open_root(self.state / "datastore"), parse_task(slug))

    def log(self, slug: str) -> LabelLog:
        log = LabelLog(self.folder(slug))
        log.refresh()
        return log

    def wait(self, slug: str, is_done: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        until(lambda: is_done(self.status(slug)), what, LIMIT_S)
        return self.status(slug)


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Redirect)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, site: str) -> Iterator[World]:
    state = tmp_path_factory.mktemp("bad") / "state"
    datastore = state / "datastore"
    datastore.mkdir(parents=True)
    argv = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(datastore)]
    is_mounted = subprocess.run(argv, capture_output=True, check=False).returncode == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABELLOOP_INTAKE_ALLOWED_HOSTS", site)
        demo = Demo(state, "--project", "cancer")
    try:
        with demo:
            demo.wait_said("Ctrl-C stops everything")
            here = World(demo, site, is_mounted)
            yield here
            here.app.close()
    finally:
        if is_mounted:
            subprocess.run(["umount", str(datastore)], check=True)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int) -> bytes:
    """Return a black PNG of one bit a pixel; a huge one takes some hundred kilobytes."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def data_link(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def test_bad_links_and_images_fail_one_by_one_with_a_sentence_and_the_good_ones_go_on(world: World, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(8, 8))
    links = {
        "good": data_link(png(8, 8)),
        "broken": data_link(png(8, 8)[:40] + b"rubbish"),
        "huge": data_link(png(40_000, 40_000)),
        "metadata": "http://169.254.169.254/latest/meta-data/",
        "outside": secret.as_uri(),
        "loopback": f"http://{world.site}/picture.png",
    }
    sentences = {
        "broken": "not an image",
        "huge": "40000",
        "metadata": "169.254.169.254",
        "outside": "folder",
        "loopback": "127.0.0.1 is loopback",
    }
    world.project("links", "image-classification")
    (tmp_path / "links.jsonl").write_text("".join(json.dumps({"id": k, "link": v}) + "\n" for k, v in links.items()))
    told = world.app.upload("/projects/links/imports", tmp_path / "links.jsonl", {})
    said: dict[str, str] = {}

    def is_imported() -> bool:
        [job] = world.app.call("GET", "/projects/links/imports")["imports"]
        said.update({name: row["reason"] for row in job["errors"] for name in links if name in json.dumps(row)})
        return bool(job["state"] in ("done", "failed"))

    until(is_imported, f"the import {told}", LIMIT_S)
    for item in [line["item_id"] for line in world.app.call("GET", "/projects/links/items?state=open&limit=100")["items"]]:
        world.answer("links", item, "owl")
    status = world.wait("links", lambda s: not s["outbox"], "the answer of the cluster")
    said.update({failure["item_id"]: failure["reason"] for failure in status["failed"]})
    assert set(said) == set(sentences), said
    for item, words in sentences.items():
        assert words in said[item], said[item]
    log = world.log("links")
    assert set(log.merged()) == {"good"}
    exported = [json.loads(line) for line in world.app.lines("/projects/links/export?format=jsonl")]
    assert {row["id"] for row in exported if row["labels"]} == {"good", *status_items(status)}  # people's work is kept in any case


def status_items(status: dict[str, Any]) -> set[str]:
    """Return the items that were labelled and then refused by the cluster."""
    return {failure["item_id"] for failure in status["failed"]}


def test_a_csv_without_its_column_says_which_it_has_and_adds_nothing(world: World, tmp_path: Path) -> None:
    world.project("columns", "text-classification")
    (tmp_path / "a.csv").write_text("title,body\nx,y\n")
    world.app.upload("/projects/columns/imports", tmp_path / "a.csv", {})
    jobs: list[dict[str, Any]] = []

    def is_done() -> bool:
        jobs[:] = world.app.call("GET", "/projects/columns/imports")["imports"]
        return bool(jobs[0]["state"] == "failed")

    until(is_done, "the refusal", LIMIT_S)
    assert "no column 'text'" in jobs[0]["reason"] and "title, body" in jobs[0]["reason"]
    assert world.status("columns")["items"] == 0


def test_a_foreign_label_and_a_second_answer_to_a_lease_change_nothing(world: World) -> None:
    world.project("leases", "text-classification")
    world.app.call("POST", "/projects/leases/items", {"items": [{"id": "one", "text": "hoot"}]})
    [item] = world.app.call("POST", "/projects/leases/next", {"n": 1})["items"]
    with pytest.raises(InvalidInputError, match="'penguin' is not in project 'leases': use one of owl, tit"):
        world.answer("leases", "one", "penguin", lease=item["lease"])
    assert world.answer("leases", "one", "owl", lease=item["lease"])["saved"]["revision"] == 1
    assert world.answer("leases", "one", "owl", lease=item["lease"])["saved"]["is_repeat"]
    with pytest.raises(ConflictError, match=r"answered before with \['owl'\]: nothing was changed"):
        world.answer("leases", "one", "tit", lease=item["lease"])
    world.wait("leases", lambda s: not s["outbox"], "the relay")
    [row] = world.log("leases").merged().values()
    assert (row.labels, row.revision) == (("owl",), 1)


def test_a_version_with_a_flipped_byte_never_serves_and_the_warm_one_goes_on(world: World, tmp_path: Path) -> None:
    world.project("flipped", "tables", retrain_labels=1000)  # one training only: a second version would serve instead of the first
    items = [{"id": f"row-{n}", "row": {"size": float(n), "weight": float(n * n)}} for n in range(60)]
    world.app.call("POST", "/projects/flipped/items", {"items": items})
    for n in range(40):
        world.answer("flipped", f"row-{n}", "owl" if n % 2 else "tit")
    good = world.wait("flipped", lambda s: s["serving"] and s["drafts_version"] == s["serving"], "the first version")["serving"]
    folder = world.folder("flipped")
    pointer = current(folder)
    assert pointer is not None
    copy = tmp_path / "copy"
    shutil.copytree(verified_model_dir(folder, good), copy)
    (copy / "model.json").unlink()
    (copy / "note.txt").write_text("a copy")  # equal content would be the same version
    bad = publish_model(folder, msgspec.structs.replace(read_manifest(folder, good), version="", files={}), copy)
    assert bad != good
    weights = next(path for path in (folder.path / "Inference" / bad).iterdir() if path.suffix == ".safetensors")
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.chmod(0o600)
    weights.write_bytes(content)
    assert advance(folder, pointer.number, bad, "a damaged copy")
    body = {"items": [{"id": "new", "row": {"size": 3.0, "weight": 9.0}}]}
    logs = world.state / "inference-1" / "logs"
    until(lambda: any(str(bad) in path.read_text() for path in logs.glob("*.log")), "the sentence of the refusal", LIMIT_S)
    for _ in range(5):
        assert world.app.call("POST", "/projects/flipped/predict", body)["version"] == good
    assert any(weights.name in line and str(bad) in line for path in logs.glob("*.log") for line in path.read_text().splitlines())


def test_a_full_disk_is_told_and_nothing_is_lost_once_there_is_room(world: World) -> None:
    if not world.is_mounted:
        pytest.fail("needs the right to mount a small file system: run as root")
    world.project("full", "text-classification")
    world.app.call("POST", "/projects/full/items", {"items": [{"id": f"t-{n}", "text": f"text {n}"} for n in range(8)]})
    world.answer("full", "t-0", "owl")
    world.wait("full", lambda s: not s["outbox"], "the relay while there is room")
    filler = world.state / "datastore" / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    for n in range(1, 8):
        world.answer("full", f"t-{n}", "tit")  # saved: the app's database lies elsewhere
    with tempfile.TemporaryDirectory() as identity:
        door = JoiningCluster(_registry(world), Settings(), Path(identity), world.state / "client.token")
        sample = Sample(item_id="x", link="data:,x", labels=("owl",))
        with pytest.raises(StorageFullError, match="full"):
            door.train().submit(SubmitRequest(task="full", batch_id="b-full", samples=(sample,)))
        told = world.wait("full", lambda s: "full" in s["trouble"], "the sentence on the page")
        assert told["labels"] == 8 and told["outbox"] >= 7
        filler.unlink()
        world.wait("full", lambda s: not s["outbox"] and not s["failed"], "the relay after there is room again")
        assert door.train().submit(SubmitRequest(task="full", batch_id="b-full", samples=(sample,))).accepted == 1
        door.close()
    until(lambda: len(world.log("full").merged()) == 9, "the last sample", LIMIT_S)
    assert set(world.log("full").merged()) == {"x", *(f"t-{n}" for n in range(8))}


def _registry(world: World) -> str:
    return f"127.0.0.1:{(world.state / 'registry-port').read_text().strip()}"
