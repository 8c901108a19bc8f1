"""Webhooks: told in the transaction of the event, signed, sent at least once, given up after a day, no private networks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from labelloop.errors import InvalidInputError, UnreachableError, UnsafeLinkError
from labelloop.settings import Settings
from tests.contract.web_world import World
from webapp.db import events, projects, webhooks
from webapp.db.webhooks import Delivery
from webapp.rooms import secret_key
from webapp.webhooks import door, sender
from webapp.webhooks.sender import Sender, judge, pause_s

PUBLIC = "https://1.1.1.1/hook"
NETWORKS = ("127.0.0.0/8",)


class Receiver:
    """A server of somebody else's that takes messages and answers `status`."""

    def __init__(self) -> None:
        self.got: list[tuple[Mapping[str, str], bytes]] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((dict(self.headers), body))
                self.send_response(receiver.status)
                self.send_header("Location", "http://127.0.0.1:1/")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def web_settings(web_settings: Settings) -> Settings:
    web = msgspec.structs.replace(web_settings.web, allowed_webhook_networks=NETWORKS)
    return msgspec.structs.replace(web_settings, web=web)


@pytest.fixture
def post(world: World) -> Iterator[Sender]:
    made = Sender(world.database, secret_key(world.settings), NETWORKS)
    yield made
    made.close()


def send(post: Sender) -> int:
    post._batched_s = float("-inf")
    return post.cycle()


def test_an_event_is_told_once_signed_with_the_key_that_was_shown_once(world: World, receiver: Receiver, post: Sender) -> None:
    slug = world.project(texts=2)
    added = world.admin.call("POST", f"/projects/{slug}/webhooks", {"url": receiver.url, "events": ["project.stopped"]}, 201)
    assert added["secret"].startswith("whsec_")
    assert "secret" not in world.admin.call("GET", f"/projects/{slug}/webhooks")["webhooks"][0]
    world.admin.call("PATCH", f"/projects/{slug}", {"is_paused": True})
    assert (send(post), send(post)) == (1, 0)
    (headers, body), message = receiver.got[0], json.loads(receiver.got[0][1])
    assert (message["event"], message["project"], message["id"]) == ("project.stopped", slug, headers["Labelloop-Id"])
    check = documented_check()
    assert check(added["secret"], headers, body)
    assert not check(added["secret"], headers, body + b" ")
    assert not check("whsec_other", headers, body)
    assert not check(added["secret"], {**headers, "Labelloop-Timestamp": str(int(time.time()) - 3600)}, body), "a replay"


def documented_check() -> Any:
    """Return the example of docs/backend.md, as it is written there."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "backend.md").read_text()
    code = page.split("```python\n# webhook-check", 1)[1].split("```", 1)[0]
    found: dict[str, Any] = {}
    exec("# webhook-check" + code, found)
    return found["is_from_labelloop"]


def test_labels_are_told_in_batches_and_none_is_lost_or_doubled(world: World, receiver: Receiver, post: Sender) -> None:
    slug = world.project(texts=6)
    other = world.project(slug="other", texts=1)
    world.admin.call("POST", "/admin/webhooks", {"url": receiver.url, "events": ["labels.saved"]}, 201)
    for item in world.admin.call("POST", f"/projects/{slug}/next", {"n": 5})["items"]:
        world.admin.answer(slug, item, "owl")
    item = world.admin.call("POST", f"/projects/{other}/next", {"n": 1})["items"][0]
    world.admin.answer(other, item, "tit")
    assert send(post) == 2, "one message a project"
    told = {json.loads(body)["project"]: json.loads(body)["labels"] for _, body in receiver.got}
    assert sorted(label["item_id"] for label in told[slug]) == [f"i{n}" for n in range(5)]
    first = told[slug][0]
    assert (first["labels"], first["annotator"], first["revision"], first["is_deleted"]) == (["owl"], "ada", 1, False)
    assert len(told[other]) == 1
    assert send(post) == 0


def test_an_undone_transaction_tells_nothing(world: World) -> None:
    slug = world.project(texts=1)
    world.admin.call("POST", f"/projects/{slug}/webhooks", {"url": PUBLIC}, 201)
    with world.database.read() as tx:
        project = projects.find_project(tx, slug)
    with pytest.raises(RuntimeError), world.database.write() as tx:
        events.add_event(tx, project.id, "version", "version v serves now", None, time.time(), {"version": "v"})
        webhooks.note_label(tx, project.id, 1)
        raise RuntimeError("the disk is gone")
    with world.database.read() as tx:
        assert webhooks.due_deliveries(tx, time.time() + 1, 9) == ()
        assert webhooks.hooks_with_labels(tx) == []


def test_a_pilot_that_dies_before_it_notes_the_answer_sends_the_same_message_again(
    world: World,
    receiver: Receiver,
    post: Sender,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hook = world.admin.call("POST", "/admin/webhooks", {"url": receiver.url}, 201)
    uid = world.admin.call("POST", f"/admin/webhooks/{hook['id']}/test", {}, 202)["uid"]
    with monkeypatch.context() as patch:
        patch.setattr(webhooks, "note_attempt", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
        with pytest.raises(RuntimeError):
            send(post)
    send(post)
    assert [headers["Labelloop-Id"] for headers, _ in receiver.got] == [uid, uid]
    assert receiver.got[0][1] == receiver.got[1][1]


def test_a_failed_message_waits_says_why_and_can_be_sent_again_by_hand(world: World, receiver: Receiver, post: Sender) -> None:
    hook = world.admin.call("POST", "/admin/webhooks", {"url": receiver.url}, 201)
    place = f"/admin/webhooks/{hook['id']}"
    world.admin.call("POST", f"{place}/test", {}, 202)
    receiver.status = 302
    assert send(post) == 0 and len(receiver.got) == 1
    seen = world.admin.call("GET", f"{place}/deliveries")["deliveries"][0]
    assert (seen["state"], seen["attempts"], seen["status"], seen["reason"]) == ("waiting", 1, 302, "the address answered 302")
    assert send(post) == 0 and len(receiver.got) == 1, "not before its time, and a redirect is never followed"
    receiver.status = 200
    world.admin.call("POST", f"{place}/deliveries/{seen['id']}/send", {}, 204)
    assert send(post) == 1
    assert world.admin.call("GET", f"{place}/deliveries")["deliveries"][0]["state"] == "done"
    world.admin.call("DELETE", place, None, 204)
    world.admin.call("GET", f"{place}/deliveries", None, 404)


def test_another_key_makes_the_old_one_useless(world: World, receiver: Receiver, post: Sender) -> None:
    hook = world.admin.call("POST", "/admin/webhooks", {"url": receiver.url}, 201)
    renewed = world.admin.call("POST", f"/admin/webhooks/{hook['id']}/secret", {})["secret"]
    world.admin.call("POST", f"/admin/webhooks/{hook['id']}/test", {}, 202)
    send(post)
    check = documented_check()
    assert check(renewed, *receiver.got[0]) and not check(hook["secret"], *receiver.got[0])


def test_a_project_never_sees_another_ones_webhooks(world: World) -> None:
    mine, other = world.project(slug="mine"), world.project(slug="other")
    olga = world.person("olga", mine, "owner")
    hook = world.admin.call("POST", f"/projects/{other}/webhooks", {"url": PUBLIC}, 201)
    place = f"/projects/{mine}/webhooks/{hook['id']}"
    for method, path in (("DELETE", place), ("POST", f"{place}/test"), ("POST", f"{place}/secret"), ("GET", f"{place}/deliveries")):
        olga.call(method, path, {} if method == "POST" else None, 404)
    olga.call("GET", "/admin/webhooks", None, 403)


def message(**more: Any) -> Delivery:
    fixed: dict[str, Any] = {"id": 1, "webhook_id": 1, "uid": "u", "event": "e", "payload": "{}", "state": 0, "attempts": 0}
    return Delivery(**{**fixed, "next_at": 0.0, "status": None, "reason": "", "created_at": 0.0, "ended_at": None, **more})


@pytest.mark.parametrize(
    ("delivery", "status", "reason", "now", "expected"),
    [
        (message(), 204, "", 5.0, (webhooks.DONE, 5.0, "")),
        (message(), 500, "", 5.0, (webhooks.WAITING, 15.0, "the address answered 500")),
        (message(attempts=1), None, "silent", 5.0, (webhooks.WAITING, 35.0, "silent")),
        (message(attempts=30), None, "silent", 86399.0, (webhooks.WAITING, 89999.0, "silent")),
        (message(attempts=30), None, "silent", 86400.0, (webhooks.GIVEN_UP, 86400.0, "given up after a day: silent")),
        (message(), 410, "", 5.0, (webhooks.GIVEN_UP, 5.0, "the address answered 410: it wants no more messages")),
    ],
)
def test_what_becomes_of_a_message(
    delivery: Delivery, status: int | None, reason: str, now: float, expected: tuple[int, float, str]
) -> None:
    assert judge(delivery, status, reason, now) == expected


def test_pauses_grow_to_an_hour() -> None:
    assert [pause_s(n) for n in (1, 2, 3, 7, 99)] == [10.0, 30.0, 90.0, 3600.0, 3600.0]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "10.1.2.3", "169.254.169.254", "[::1]", "[::ffff:10.0.0.1]", "0.0.0.0", "2130706433", "[fe80::1]"],
)
def test_a_private_address_is_refused(host: str) -> None:
    with pytest.raises(UnsafeLinkError, match="allowed_webhook_networks"):
        door.resolve(door.parse_url(f"http://{host}:8080/"), ())


def test_a_private_address_is_reached_where_a_setting_allows_its_network_and_judged_again_at_each_sending() -> None:
    target = door.parse_url("http://10.1.2.3/")
    assert door.resolve(target, ("10.0.0.0/8",)) == "10.1.2.3"
    with pytest.raises(UnsafeLinkError):
        door.post("http://10.1.2.3/", b"", {}, ("192.168.0.0/16",))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://example.org/", "use http:// or https://"),
        ("http:///path", "use http:// or https://"),
        ("http://ada:secret@example.org/", "password"),
        ("http://example.org/a b", "percent-encoded"),
        ("http://example.org/\r\nHost: x", "percent-encoded|malformed"),
        ("http://example.org:99999/", "malformed"),
        ("https://example.org/" + "a" * 1000, "1000 characters"),
    ],
)
def test_an_address_that_cannot_be_is_refused_in_words(url: str, why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        door.parse_url(url)


def test_a_peer_that_drips_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dripper(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            with pytest.raises(OSError):
                while True:
                    self.wfile.write(b"X")
                    time.sleep(0.02)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Dripper)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        with pytest.raises(UnreachableError, match="does not answer"):
            door.post(f"http://127.0.0.1:{server.server_address[1]}/", b"", {}, NETWORKS, timeout_s=0.1)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_dead_address_does_not_hold_up_another(world: World, receiver: Receiver) -> None:
    dead = world.admin.call("POST", "/admin/webhooks", {"url": "http://127.0.0.1:1/"}, 201)
    good = world.admin.call("POST", "/admin/webhooks", {"url": receiver.url}, 201)
    waits = threading.Event()

    def out(url: str, body: bytes, headers: Mapping[str, str], allowed: tuple[str, ...]) -> int:
        if url == receiver.url:
            waits.set()
            return door.post(url, body, headers, allowed)
        assert waits.wait(10), "the good address waits for the dead one"
        raise UnreachableError("no answer")

    made = Sender(world.database, b"key", NETWORKS, out)
    for hook in (dead, dead, good):
        world.admin.call("POST", f"/admin/webhooks/{hook['id']}/test", {}, 202)
    assert made.cycle() == 1
    made.close()
    assert len(receiver.got) == 1
    assert sender.AT_ONCE > 1
