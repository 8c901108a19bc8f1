"""What an attacker with an account, a file or a server of their own tries, on SQLite: each of these worked once."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from labelloop.addresses import why_not_reach
from labelloop.errors import InvalidInputError, UnreachableError
from labelloop.settings import WebSettings
from tests.contract.test_web_formats import entries, export, exporter, fill, make
from tests.contract.test_web_transfer import archive, import_file
from tests.contract.web_world import Client, Valkey, World, make_settings
from webapp.admin.archive import safe_settings
from webapp.db import projects, webhooks
from webapp.labelstudio import config
from webapp.transfer import addresses
from webapp.transfer.readers import Reach
from webapp.transfer.writers.lines import JsonLinesWriter
from webapp.webhooks import door


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[World]:
    """An app on SQLite."""
    made = World(make_settings(tmp_path_factory.mktemp("attacks") / "state", "", valkey.url))
    yield made
    made.close()


def browser(world: World, name: str) -> Any:
    """Return a browser in which an account is logged in."""
    page = world.app.test_client()
    answer = page.post("/api/v1/session", json={"name": name, "password": "correct horse"})
    assert answer.status_code == 200
    return page


# ---------------------------------------------------------------- who may see what


def test_an_annotator_whose_own_opinion_is_asked_for_gets_nobodys_labels_out(world: World) -> None:
    slug = make(world, "multiclass", "blind")
    fill(world, "multiclass", slug)
    eve = world.person("eve", slug)
    job = export(world, slug, "jsonl")[0]
    download = f"/projects/{slug}/exports/{job['id']}/file"
    eve.raw("GET", download, buffered=True).close()
    world.admin.call("PUT", f"/projects/{slug}/work", {"overlap": 2})
    assert eve.call("GET", download, status=403)["code"] == "forbidden"
    assert eve.call("GET", f"/projects/{slug}/exports")["exports"][0]["problems"] == []
    page, item_id = browser(world, "eve"), next(iter(entries(world, slug)))
    assert page.get(f"/projects/{slug}/items?state=labelled").status_code == 403
    assert page.get(f"/projects/{slug}/items").status_code == 200
    shown = page.get(f"/projects/{slug}/items/{item_id}").get_data(as_text=True)
    assert '"names": {}' in shown or '"names":{}' in shown


def test_nothing_of_an_archived_project_changes_by_reviews_invitations_or_its_page_of_people(world: World) -> None:
    slug = world.project("shelved", texts=1)
    world.person("rob", slug, "reviewer")
    world.admin.call("POST", f"/projects/{slug}/archive", {})
    rob = world.enter("rob", "correct horse")
    for path, body in (("reviews/next", {"n": 1}), ("reviews", {"item_id": "i0", "lease": "x", "action": "accept"})):
        assert "is archived" in rob.call("POST", f"/projects/{slug}/{path}", body, 409)["message"]
    assert "is archived" in world.admin.call("POST", f"/projects/{slug}/invitations", {"role": "owner"}, 409)["message"]
    page = browser(world, "ada")
    token = page.get("/api/v1/session").get_json()["csrf"]
    page.post(f"/projects/{slug}/people", data={"csrf_token": token, "action": "drop", "name": "rob"})
    assert {one["name"] for one in world.admin.call("GET", f"/projects/{slug}/members")["members"]} == {"ada", "rob"}


# ---------------------------------------------------------------- files


def coco(**more: Any) -> dict[str, Any]:
    image = {"id": 1, "file_name": "a.jpg", "coco_url": "https://e.org/a.jpg", "width": 9, "height": 9}
    mark = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "keypoints": [1, 1, 2]}
    return {"images": [image], "annotations": [mark], "categories": [{"id": 1, "name": "owl", "keypoints": ["owl"]}], **more}


def studio(result: Any, **more: Any) -> list[dict[str, Any]]:
    return [{"id": 1, "data": {"text": "Ada", "image": "https://e.org/a.jpg"}, "annotations": [{"result": [result]}], **more}]


def yolo(line: str = "0 .5 .5 .1 .1", names: bytes = b"names: [owl]", **files: bytes) -> bytes:
    return archive({"images/a.png": b"no picture", "labels/a.txt": line.encode(), "data.yaml": names, **files})


_SHAPE = {"type": "polygonlabels", "value": {"points": 5, "polygonlabels": ["owl"]}}
_RELATION = {"type": "relation", "from_id": "a", "to_id": "b", "labels": 5}
HOSTILE: dict[str, tuple[str, str, Any]] = {
    "a number too large for a float": ("boxes", "coco", coco(annotations=[{"image_id": 1, "category_id": 1, "bbox": [10**400]}])),
    "half a character in an id": ("boxes", "coco", coco(images=[{"id": "\ud800"}])),
    "keypoints that are no list": ("keypoints", "coco", coco(categories=[{"id": 1, "name": "owl", "keypoints": 5}])),
    "points that are no list": ("polygons", "label-studio", studio(_SHAPE)),
    "labels of a relation that are no list": ("relations", "label-studio", studio(_RELATION)),
    "predictions that are no list": ("multiclass", "label-studio", studio({"type": "choices"}, predictions=5)),
    "marks of a draft that are no list": ("boxes", "jsonl", {"link": "https://e.org/a.jpg", "draft": {"marks": 5}}),
    "a line of columns that is no CSV": ("multiclass", "csv", b"te\rxt\none\n"),
    "half a character in a value": ("multiclass", "csv", b"text,value\none,{\xff}\n"),
    "a class that is no plain number": ("boxes", "yolo", yolo("² .5 .5 .1 .1")),
    "a class of 5,000 digits": ("boxes", "yolo", yolo("9" * 5000 + " .5 .5 .1 .1")),
    "a day that is none": ("boxes", "yolo", yolo(names=b"names: 2020-99-99")),
    "a list of items that is no CSV": ("boxes", "yolo", yolo(**{"items.csv": b"name,link\na\rb,c\n"})),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_in_words_and_never_begun_anew_for_ever(world: World, what: str) -> None:
    kind, form, told = HOSTILE[what]
    data = told if isinstance(told, bytes) else json.dumps(told).encode()
    job = import_file(world, make(world, kind, f"hostile-{list(HOSTILE).index(what)}"), f"a.{form}", data, kind=form)
    assert job["state"] in ("done", "failed") and "defect" not in job["reason"]
    assert job["rows_failed"] or job["reason"]


def test_a_zip_with_an_endless_list_of_files_is_refused_before_the_list_is_read(world: World) -> None:
    data = bytearray(archive({"owl/a.png": b"x"}))
    at = data.rindex(b"PK\5\6")
    data[at + 12 : at + 16] = (2**28).to_bytes(4, "little")  # how many bytes the list has
    slug = make(world, "multiclass", "endless-list")
    said = world.admin.raw(
        "POST", f"/projects/{slug}/imports", data={"file": (io.BytesIO(bytes(data)), "a.zip")}, content_type="multipart/form-data"
    )
    assert said.status_code == 422 and "lists its files in 268435456 bytes" in said.get_json()["message"]


def test_a_zip_of_a_version_to_come_is_refused_when_it_is_uploaded(world: World) -> None:
    data = bytearray(archive({"a.png": b"x"}))
    data[data.index(b"PK\x01\x02") + 6] = 0xFF
    slug = make(world, "boxes", "zip-to-come")
    said = world.admin.raw(
        "POST", f"/projects/{slug}/imports", data={"file": (io.BytesIO(bytes(data)), "a.zip")}, content_type="multipart/form-data"
    )
    assert said.status_code == 422 and "not a zip archive" in said.get_json()["message"]


def test_half_a_character_and_a_number_without_end_are_refused_over_http(world: World) -> None:
    slug = make(world, "boxes", "half")
    row = {"id": "a", "link": "https://e.org/a.jpg", "marks": ["\ud800"]}
    answer = world.admin.call("POST", f"/projects/{slug}/items", {"items": [row]})
    assert answer["added"] == 0 and len(answer["failed"]) == 1
    view = (
        '<View><Image name="i" value="$image"/><RectangleLabels name="k" toName="i"><Label value="owl"/></RectangleLabels></View>'
    )
    value = {"x": 1, "y": 1, "width": 1, "height": 1, "rotation": "\ud800", "rectanglelabels": ["owl"]}
    result = {"from_name": "k", "to_name": "i", "type": "rectanglelabels", "value": value}
    annotation = {"id": 7, "task": {}, "updated_at": "2026-01-01T00:00:00Z", "lead_time": 10**400, "result": [result]}
    task = {"id": [], "project": 1, "data": {"image": "https://e.org/a.jpg"}}
    hook = {"action": "ANNOTATION_CREATED", "project": {"label_config": view}, "annotation": annotation}
    for tasks in (task, [task, task], {**task, "id": 3}):
        said = world.admin.call("POST", f"/projects/{slug}/label-studio/webhook", {**hook, "task": tasks})
        assert said["saved"] == 0 and len(said["ignored"]) == 1
    annotation["result"] = [{**result, "value": {**value, "rotation": 0}}]
    said = world.admin.call("POST", f"/projects/{slug}/label-studio/webhook", {**hook, "task": {**task, "id": 3}})
    assert said["saved"] == 1


def test_a_defect_ends_the_import_or_the_export_that_shows_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: Any) -> None:
        raise ZeroDivisionError

    slug = make(world, "multiclass", "defect")
    monkeypatch.setattr("webapp.transfer.readers.json_lines._object_item", defect)
    job = import_file(world, slug, "a.jsonl", b'{"text": "one"}\n', kind="jsonl")
    assert job["state"] == "failed" and "defect" in job["reason"]
    monkeypatch.undo()
    fill(world, "multiclass", slug)
    monkeypatch.setattr(JsonLinesWriter, "add", defect)
    made = world.admin.call("POST", f"/projects/{slug}/exports", {"format": "jsonl"}, 202)
    assert exporter(world).run_all() == 1
    ended = world.admin.call("GET", f"/projects/{slug}/exports/{made['id']}")
    assert ended["state"] == "failed" and "defect" in ended["reason"]


def test_a_draft_whose_marks_are_no_list_is_refused_over_http(world: World) -> None:
    slug = make(world, "boxes", "drafts")
    row = {"id": "a", "link": "https://e.org/a.jpg", "draft": {"marks": 5}}
    said = world.admin.call("POST", f"/projects/{slug}/items", {"items": [row]})
    assert said["added"] == 0 and "marks" in said["failed"][0]["reason"]


def test_a_copy_takes_no_file_over_that_is_no_upload_of_the_project(world: World) -> None:
    store = world.rooms.media
    link = f"file://{store.folder}/one/../../../outside/secret"
    assert store.take_over("one", "two", link) == link
    assert not (store.folder / "two").exists() and not (store.folder.parent.parent / "outside").exists()


# ---------------------------------------------------------------- servers of an attacker


@contextlib.contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[int]:
    """Serve GET by `answer`; yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_listing_that_sends_without_end_is_read_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.end_headers()
        for _ in range(400):
            sent.append(handler.wfile.write(b"x" * 2**16))

    monkeypatch.setattr(addresses, "MOST_PAGE_BYTES", 2**17)
    with serving(endless) as port:
        url, reach = f"http://127.0.0.1:{port}/", Reach(allowed_hosts=(f"127.0.0.1:{port}",))
        with addresses.open_listing(url, reach, 2**17, "birds") as listing:
            with pytest.raises(InvalidInputError, match="more than 131072 bytes"):
                list(listing.names())
            with pytest.raises(InvalidInputError, match="more than 131072 bytes"):
                listing.read(f"{url}a.png", 2**17)
    assert sum(sent) < 2 * 400 * 2**16


def test_a_listing_of_folders_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def deeper(handler: BaseHTTPRequestHandler) -> None:
        body = b'<a href="deeper/">deeper</a>'
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    monkeypatch.setattr(addresses, "MOST_FOLDERS", 5)
    with serving(deeper) as port:
        reach = Reach(allowed_hosts=(f"127.0.0.1:{port}",))
        with addresses.open_listing(f"http://127.0.0.1:{port}/", reach, 2**17, "birds") as listing:
            names = listing.names()
            with pytest.raises(InvalidInputError, match="more than 5 folders"):
                list(names)


@pytest.mark.parametrize("address", ["fec0::1", "::ffff:127.0.0.1", "2002:7f00:1::", "64:ff9b::a9fe:a9fe", "100.64.0.1"])
def test_no_form_of_a_private_address_counts_as_public(address: str) -> None:
    assert why_not_reach(address) is not None


def test_a_peer_that_drips_its_tls_greeting_is_broken_off() -> None:
    dripped: list[float] = []

    def drip(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer, contextlib.suppress(OSError):
            peer.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB begins
            for _ in range(150):
                peer.sendall(b"\0")
                dripped.append(time.monotonic())
                time.sleep(0.02)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        with pytest.raises(UnreachableError):
            door.post(f"https://127.0.0.1:{listener.getsockname()[1]}/", b"", {}, ("127.0.0.0/8",), timeout_s=0.1)
        thread.join()
    assert len(dripped) < 150


def test_a_long_queue_before_a_dead_address_leaves_room_for_other_webhooks(world: World) -> None:
    slug = world.project("hooked")
    with world.database.write() as tx:
        project = projects.find_project(tx, slug)
        dead, good = (webhooks.add_webhook(tx, project.id, "https://1.1.1.1/", ("export.ended",), "s", "ada", 1.0) for _ in "ab")
        for n in range(100):
            webhooks.add_delivery(tx, dead.id, "test", {}, float(n))
        webhooks.add_delivery(tx, good.id, "test", {}, 1000.0)
    with world.database.read() as tx:
        due = webhooks.due_deliveries(tx, 2000.0, 64)
    assert len(due) == 64 and good.id in {one.webhook_id for one in due[:2]}
    mine = [one.id for one in due if one.webhook_id == dead.id]
    assert mine == sorted(mine)


# ---------------------------------------------------------------- what is written down


def test_a_password_among_the_options_of_a_url_stays_out_of_a_backup(world: World) -> None:
    url = "postgresql://app@db.lan/web?password=hunter2&sslmode=require&sslpassword=hunter2"
    text = safe_settings(msgspec.structs.replace(world.settings, web=WebSettings(database_url=url)))
    assert "hunter2" not in text and "sslmode=require" in text


def test_a_labeling_configuration_declares_no_document_type() -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbb">]><View><Text name="t" value="$t"/></View>'
    with pytest.raises(InvalidInputError, match="document type"):
        config.find_control(bomb, "text-classification", "multiclass")


def test_an_old_token_is_of_no_use_when_its_account_is_locked_out(world: World) -> None:
    mallory: Client = world.person("mallory")
    world.admin.call("DELETE", "/users/mallory/active", status=204)
    mallory.call("GET", "/projects", status=401)


def test_an_export_names_no_path_that_a_file_system_would_follow(world: World, tmp_path: Path) -> None:
    slug = make(world, "multiclass", "paths")
    rows = [
        {"id": "owl/..\\..\\evil.txt", "text": "one", "label": "owl"},
        {"id": "owl/../../evil.txt", "text": "two", "label": "owl"},
    ]
    world.admin.call("POST", f"/projects/{slug}/items", {"items": rows})
    names = zipfile.ZipFile(io.BytesIO(export(world, slug, "folders")[1])).namelist()
    assert len(names) == 2 and not any("\\" in name or ".." in name for name in names)
