"""What admins see and do: cluster, runs, dead letters, the operation log, disk and projects, on both databases."""

from __future__ import annotations

import csv
import io
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from labelloop import messages as m
from labelloop.errors import ConflictError
from tests.contract.small_cluster import SmallCluster
from tests.contract.test_web_pilot import Flight, flight
from tests.contract.web_world import Client, World, make_settings
from webapp.admin.cluster import eta_s
from webapp.admin.disk import NodeDisk, Room, find_full
from webapp.admin.troubles import Reading, find_troubles
from webapp.db import live, outbox, projects
from webapp.pilot import survey
from webapp.pilot.process import Pilot

__all__ = ["flight"]


def node(name: str, role: m.Role = "train", is_alive: bool = True, **status: Any) -> m.NodeView:
    told = m.NodeStatus(hostname=name, ip="10.0.0.9", port=1, role=role, broker=m.BrokerView(state="running"))
    return m.NodeView(status=msgspec.structs.replace(told, **status), age_s=2.0, is_alive=is_alive)


def reading(*nodes: m.NodeView, train: str = "t:1", inference: tuple[str, ...] = ("i:1",), **reply: Any) -> Reading:
    topology = m.Topology(epoch=1, train_rpc=train, inference_rpc=inference)
    return Reading(m.NodesReply(nodes=nodes, epoch=1, cluster_id="c", **reply), topology)


BROKEN = m.BrokerView(state="paused", reason="in a minority")
FALLS = m.ProcessView(name="train-worker", pid=0, state="backing-off", restarts=9, reason="exit status 1")
DEAD_LETTER = m.BrokerView(state="running", queues={"inference.c.dead": 2, "train.a.run": 0}, consumers={"inference.c.dead": 1})
UNFETCHED = m.BrokerView(state="running", queues={"inference.c.bulk": 7}, consumers={"inference.c.bulk": 0})


@pytest.mark.parametrize(
    ("found", "problem", "age_s", "sentences"),
    [
        (reading(node("a")), "", 1.0, []),
        (None, "", 0.0, ["nothing has been heard of the cluster yet"]),
        (None, "refused", 0.0, ["the registry does not answer: refused"]),
        (reading(node("a")), "refused", 99.0, ["the registry does not answer: refused"]),
        (reading(node("a")), "", 99.0, ["the last reading of the cluster is 99 s old"]),
        (reading(node("a"), train=""), "", 1.0, ["no train worker is online, so no label is learned"]),
        (reading(node("a"), inference=()), "", 1.0, ["no inference worker is online, so there are no new drafts"]),
        (reading(node("a", is_alive=False)), "", 3.0, ["node a has been silent for 5 s"]),
        (reading(node("a", broker=BROKEN)), "", 1.0, ["the broker of node a is paused: in a minority"]),
        (reading(node("a", processes=(FALLS,))), "", 1.0, ["train-worker on node a does not run: exit status 1"]),
        (reading(node("a", datastore="not mounted")), "", 1.0, ["node a cannot use the datastore: not mounted"]),
        (
            reading(node("a", broker=DEAD_LETTER), node("b", broker=DEAD_LETTER)),
            "",
            1.0,
            ["2 messages in inference.c.dead were delivered too often without an answer"],
        ),
        (reading(node("a", broker=UNFETCHED)), "", 1.0, ["nobody fetches from queue inference.c.bulk, where 7 messages wait"]),
        (
            reading(node("a"), state="learning"),
            "",
            1.0,
            ["the registry has lost its state: it waits for a person to confirm what it learned"],
        ),
    ],
)
def test_what_is_missing_is_one_sentence_with_a_way_out(
    found: Reading | None, problem: str, age_s: float, sentences: list[str]
) -> None:
    troubles = find_troubles(found, problem, age_s)
    assert [one.sentence for one in troubles] == sentences
    assert all(one.way_out for one in troubles)


def test_one_reading_serves_every_page_and_a_registry_that_is_down_leaves_the_last_one(flight: Flight) -> None:
    flight.cluster.node_views = (node("gpu-1", gpus=("H100",)), node("gpu-2", "inference", is_alive=False))
    survey.read_cluster(flight.world.database, flight.cluster)
    with flight.world.database.write() as tx:
        live.save_pilot(tx, "all is well", True, time.time())
    calls = []
    flight.cluster.nodes = lambda *_, **__: calls.append(1)  # type: ignore[method-assign, assignment, return-value]
    seen = [flight.admin.call("GET", "/admin/cluster") for _ in range(3)][-1]
    assert calls == [], "a page asks nobody"
    assert [one["status"]["hostname"] for one in seen["nodes"]] == ["gpu-1", "gpu-2"]
    assert [one["sentence"].split(" for ")[0] for one in seen["troubles"]] == ["node gpu-2 has been silent"]
    flight.cluster.is_down = True
    survey.read_cluster(flight.world.database, flight.cluster)
    later = flight.admin.call("GET", "/admin/cluster")
    assert later["troubles"][0]["sentence"] == "the registry does not answer: the cluster is down"
    assert len(later["nodes"]) == 2


def test_runs_of_all_projects_with_their_log_and_why_they_ended(flight: Flight) -> None:
    flight.world.project(texts=1)
    flight.relay.open_task(flight.project("birds"))
    going = m.RunView(run=1, attempt=1, state="running", algorithm="svm", encoder="e", labels=9, step=2, steps=8, seconds=4.0)
    flight.cluster.runs["birds"] = [going]
    flight.look()
    runs = flight.admin.call("GET", "/admin/runs")
    assert [(one["project"], one["run"]["run"], one["eta_s"]) for one in runs["live"]] == [("birds", 1, 12.0)]
    assert flight.admin.call("GET", "/admin/runs/birds/1/log") == {"schema": 1, "text": "epoch 1 of run 1\n", "attempt": 1}
    flight.cluster.runs["birds"] = [msgspec.structs.replace(going, state="failed", reason="out of memory")]
    flight.look()
    runs = flight.admin.call("GET", "/admin/runs")
    assert runs["live"] == [] and [one["run"]["reason"] for one in runs["past"]] == ["out of memory"]
    flight.look()
    told = [e["text"] for e in flight.admin.call("GET", "/projects/birds/events?after=0")["events"] if e["kind"] == "training"]
    assert told == ["training 1 is failed: out of memory"], "once"


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ({"step": 2, "steps": 8, "seconds": 4.0}, 12.0),
        ({"step": 0, "steps": 8}, None),
        ({"step": 8, "steps": 8, "seconds": 4.0}, None),
    ],
)
def test_the_time_left_is_that_of_the_steps_left(run: dict[str, Any], expected: float | None) -> None:
    assert eta_s(m.RunView(run=1, attempt=1, state="running", algorithm="", encoder="", labels=1, **run)) == expected


def test_a_refused_label_is_listed_with_its_reason_and_goes_out_again(world: World) -> None:
    slug = world.project(texts=2)
    for item in world.admin.call("POST", f"/projects/{slug}/next", {"n": 2})["items"]:
        world.admin.answer(slug, item, "owl")
    with world.database.write() as tx:
        project = projects.find_project(tx, slug)
        outbox.mark_failed(tx, [(outbox.rows_in(tx, project.id, 0, 1)[0].id, "this item ended its worker 2 times")])
        tx.execute(sa.text("UPDATE outbox SET created_at = created_at - 60"))
    found = world.admin.call("GET", "/admin/letters")["projects"][0]
    assert (found["waiting"], found["n_refused"], found["refused"][0]["reason"]) == (1, 1, "this item ended its worker 2 times")
    assert found["age_s"] >= 60
    world.admin.call("POST", f"/projects/{slug}/resend", {})
    assert world.admin.call("GET", "/admin/letters")["projects"][0]["waiting"] == 2


def test_an_item_that_could_not_be_read_gets_its_draft_when_its_cause_is_gone(flight: Flight) -> None:
    slug = flight.world.project(texts=4)
    flight.cluster.unreadable.add("i2")
    flight.cluster.publish(slug)
    flight.turn(slug)
    unreadable = flight.admin.call("GET", "/admin/letters")["projects"][0]["unreadable"]
    assert [(one["item_id"], one["reason"]) for one in unreadable] == [("i2", "broken")]
    assert flight.admin.call("POST", f"/projects/{slug}/items/retry", {})["retried"] == 1
    flight.turn(slug)
    assert len(flight.admin.call("GET", "/admin/letters")["projects"][0]["unreadable"]) == 1, "still broken, and asked for once"
    flight.cluster.unreadable.clear()
    assert flight.admin.call("POST", f"/projects/{slug}/items/retry", {})["retried"] == 1
    flight.turn(slug)
    assert flight.admin.call("GET", "/admin/letters")["projects"] == []
    items = flight.admin.call("POST", f"/projects/{slug}/next", {"n": 4})["items"]
    assert all(item["draft"] for item in items)
    assert flight.admin.call("POST", f"/projects/{slug}/items/retry", {})["retried"] == 0


# ---------------------------------------------------------------- operation log


def log_of(world: World, query: str = "") -> list[tuple[str, str, str, str]]:
    rows = world.admin.call("GET", f"/admin/operations?limit=1000{query}")["operations"]
    return [(row["person"], row["project"], row["kind"], row["text"]) for row in rows]


def test_who_did_what_is_written_down_without_any_secret(world: World) -> None:
    slug = world.project(texts=1)
    bob = world.person("bob", slug)
    world.app.test_client().post("/api/v1/session", json={"name": "bob", "password": "wrong horse battery"})
    world.app.test_client().post("/api/v1/session", json={"name": "correct horse battery", "password": "x" * 10})
    bob.call("POST", "/password", {"old": "correct horse", "new": "staple battery"})
    world.admin.call("PATCH", f"/projects/{slug}", {"title": "Owls"})
    world.admin.call("DELETE", f"/projects/{slug}/members/bob", None, 204)
    world.admin.call("PATCH", "/users/bob", {"is_active": False})
    world.admin.call("DELETE", f"/projects/{slug}", None, 204)
    rows = log_of(world)
    for wanted in [
        ("ada", "", "account", "account bob is made"),
        ("ada", slug, "project", "ada created the project"),
        ("ada", slug, "people", "bob is annotator now"),
        ("bob", "", "login", "a login failed: name or password is wrong"),
        ("", "", "login", "a login failed (no such account): name or password is wrong"),
        ("bob", "", "account", "a new password for bob"),
        ("ada", slug, "settings", "ada changed title"),
        ("ada", slug, "people", "bob is out of the project"),
        ("ada", "", "account", "bob is no admin and locked out"),
        ("ada", slug, "project", "ada deleted the project"),
    ]:
        assert wanted in rows, wanted
    world.project(slug="out")
    world.admin.raw("GET", "/projects/out/export?format=csv").get_data()
    assert ("ada", "out", "export", "exported labels as csv") in log_of(world)
    text = world.admin.raw("GET", "/admin/operations.csv").get_data(as_text=True)
    assert not any(secret in text for secret in ("horse", "staple", "llp_", "argon2")), "no password, and no name that may be one"
    assert set(log_of(world, "&person=bob")) == {row for row in rows if row[0] == "bob"}
    assert {row[2] for row in log_of(world, f"&project={slug}&kind=people")} == {"people"}
    world.admin.call("GET", "/admin/operations?kind=nonsense", None, 422)
    Client(world.app).call("GET", "/admin/operations", None, 401)


def test_an_operation_and_its_act_come_and_go_together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    slug = world.project()
    before = log_of(world)
    monkeypatch.setattr(projects, "keep_or_delete", lambda *_, **__: (_ for _ in ()).throw(ConflictError("not today")))
    world.admin.call("DELETE", f"/projects/{slug}", None, 409)
    assert log_of(world) == before


def test_the_log_cannot_be_changed_even_past_the_app(world: World) -> None:
    for what in ("DELETE FROM operations", "UPDATE operations SET text = 'nothing'"):
        with pytest.raises(sa.exc.DBAPIError, match="append-only"), world.database._writer.begin() as tx:
            tx.execute(sa.text(what))


def test_pages_of_the_log_neither_miss_nor_repeat_a_row_while_it_grows(world: World) -> None:
    for n in range(7):
        world.project(slug=f"p{n}")
    seen: list[int] = []
    before: int | None = 0
    while before is not None:
        page = world.admin.call("GET", f"/admin/operations?limit=3&before={before}")
        seen += [row["id"] for row in page["operations"]]
        before = page["before"]
        world.project(slug=f"q{len(seen)}")
    assert seen == sorted(set(seen), reverse=True) and seen[-1] == 1
    text = world.admin.raw("GET", "/admin/operations.csv?kind=project").get_data(as_text=True)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["kind"] for row in rows} == {"project"} and len(rows) >= 7


# ---------------------------------------------------------------- projects, disk


def test_all_projects_are_listed_with_owner_counts_and_last_activity(world: World) -> None:
    slug = world.project(texts=3)
    world.person("olga", slug, "owner")
    survey.read_disk(world.rooms)
    line = world.admin.call("GET", "/admin/projects")["projects"][0]
    assert (line["owners"], line["items"], line["labels"], line["is_paused"]) == (["ada", "olga"], 3, 0, False)
    assert line["last_at"] is not None
    for name, method, path in (("kept", "POST", "/archive"), ("gone", "DELETE", ""), ("rests", "PATCH", "")):
        world.admin.call("POST", "/projects", {"slug": name, "category": "text-classification", "labels": ["a", "b"]}, 201)
        assert (
            world.admin.raw(method, f"/projects/{name}{path}", {"is_paused": True} if name == "rests" else None).status_code < 300
        )
    lines = world.admin.call("GET", "/admin/projects")["projects"]
    states = [(one["slug"], one["state"]) for one in lines]
    assert states == [(slug, "open"), ("rests", "paused"), ("kept", "archived"), ("gone", "deleted")]
    disk = world.admin.call("GET", "/admin/disk")
    assert disk["database_bytes"] > 10_000 and {room["name"] for room in disk["rooms"]} >= {"backups", "state"}


def test_a_disk_that_fills_up_is_told_once_with_a_way_out() -> None:
    full = Room("media", "/data/media", 5, 10, 100)
    rooms = (full, msgspec.structs.replace(full, name="uploads"))
    troubles = list(find_full(rooms, (NodeDisk("gpu-1", 2**30), NodeDisk("gpu-2", 0))))
    assert [one.sentence for one in troubles] == [
        "the disk of /data/media is 90 % full",
        "node gpu-1 has 1.0 GiB left for the datastore",
    ]
    assert list(find_full((msgspec.structs.replace(full, disk_free_bytes=16),), ())) == []


def test_the_pilot_surveys_sends_and_backs_up_by_itself(tmp_path: Path, valkey: Any) -> None:
    cluster = SmallCluster()
    cluster.node_views = (node("gpu-1"),)
    made = World(make_settings(tmp_path, "", valkey.url), cluster)
    hook = made.admin.call("POST", "/admin/webhooks", {"url": "https://1.1.1.1/", "events": ["training.ended"]}, 201)
    with made.database.write() as tx:  # an address that the guard refuses at the sending too, so that nothing leaves this machine
        tx.execute(sa.text("UPDATE webhooks SET url = 'http://127.0.0.1:9/'"))
    made.admin.call("POST", f"/admin/webhooks/{hook['id']}/test", {}, 202)
    made.admin.call("POST", "/admin/backups", {}, 202)
    ended = threading.Event()
    pilot = threading.Thread(target=Pilot(made.rooms).run, args=(ended,))
    pilot.start()
    try:
        until = time.monotonic() + 30
        while not _all_done(made, hook["id"]):
            assert time.monotonic() < until, "the pilot does not do its chores"
            time.sleep(0.05)
    finally:
        ended.set()
        pilot.join()
        made.close()


def _all_done(made: World, hook: int) -> bool:
    nodes = made.admin.call("GET", "/admin/cluster")["nodes"]
    sent = made.admin.call("GET", f"/admin/webhooks/{hook}/deliveries")["deliveries"][0]
    state = made.admin.call("GET", "/admin/backups")["backups"][0]["state"]
    measured = made.admin.call("GET", "/admin/disk")["at"]
    return bool(nodes and measured and state == "done" and "is refused because" in sent["reason"])
