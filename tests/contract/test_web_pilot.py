"""The pilot against a small cluster in memory that keeps the contract: nothing is lost, nothing is doubled, drafts never blank."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from labelloop.errors import DeadlineError, InvalidInputError, LabelloopError, RetryableError, StorageFullError
from labelloop.settings import Settings
from tests.contract.small_cluster import SmallCluster
from tests.contract.web_world import World
from webapp.pilot import relay
from webapp.pilot.embed import Embedder
from webapp.pilot.ordering import Orderer
from webapp.pilot.process import Scoring
from webapp.pilot.relay import Relay
from webapp.pilot.scoring import Action
from webapp.pilot.watch import Watch


class Flight:
    """A world with a pilot whose cycles are called by hand."""

    def __init__(self, settings: Settings) -> None:
        self.cluster = SmallCluster()
        self.world = World(settings, self.cluster)
        rooms = self.world.rooms
        self.relay = Relay(rooms.database, self.cluster, settings.pilot)
        self.watch = Watch(rooms.database, self.cluster, self.relay, settings.pilot)
        ended = threading.Event()
        self.embedder = Embedder(rooms.database, self.cluster, self.watch.latest, ended)
        self.orderer = Orderer(rooms.database, rooms.queue, self.cluster, self.embedder, self.watch.latest, settings.pilot, ended)
        self.admin = self.world.admin

    def project(self, slug: str) -> Any:
        from webapp.db import projects

        with self.world.database.read() as tx:
            return projects.find_project(tx, slug)

    def look(self) -> None:
        """One full look at the cluster, whatever the clock says."""
        self.watch._asked_s.clear()
        self.watch._beat_s = float("-inf")
        self.watch.cycle()

    def turn(self, slug: str) -> list[Action]:
        """Turn the whole loop until it rests; return what was done."""
        self.relay._not_before_s.clear()
        if self.project(slug).opened_revision != self.project(slug).spec_revision:
            self.relay.open_task(self.project(slug))
        self.relay.cycle()
        self.look()
        while self.embedder.cycle(self.project(slug)):
            pass
        done = []
        for _ in range(10):
            action = self.orderer.cycle(self.project(slug))
            if action is Action.REST:
                return done
            done.append(action)
        raise AssertionError(f"the order never rests: {done}")

    def label(self, slug: str, n: int, label: str = "owl") -> list[dict[str, Any]]:
        items = self.admin.call("POST", f"/projects/{slug}/next", {"n": n})["items"]
        for item in items:
            self.admin.answer(slug, item, label)
        return items

    def status(self, slug: str) -> Any:
        return self.admin.call("GET", f"/projects/{slug}/status")


@pytest.fixture
def flight(web_settings: Settings) -> Iterator[Flight]:
    made = Flight(web_settings)
    yield made
    made.world.close()


def test_labels_arrive_in_the_clusters_log_once_each(flight: Flight) -> None:
    slug = flight.world.project(texts=10)
    flight.label(slug, 4)
    flight.turn(slug)
    flight.look()
    assert len(flight.cluster.merged(slug)) == 4 and len(flight.cluster.submits) == 1
    status = flight.status(slug)
    assert (status["outbox"], status["labels_sent"], status["trouble"]) == (0, 4, "")
    assert status["next_training"] == "next training in 10 labels" and status["next_training_at"] == 14


def test_an_undo_withdraws_the_label_from_the_log(flight: Flight) -> None:
    slug = flight.world.project(texts=3)
    [item] = flight.label(slug, 1)
    flight.turn(slug)
    flight.admin.call("DELETE", f"/projects/{slug}/annotations/{item['item_id']}")
    flight.turn(slug)
    assert flight.cluster.merged(slug) == {}


def test_a_cluster_that_is_down_loses_nothing_and_the_page_says_so(flight: Flight) -> None:
    slug = flight.world.project(texts=5)
    flight.cluster.is_down = True
    flight.label(slug, 3)
    with pytest.raises(RetryableError):
        flight.turn(slug)
    flight.relay.cycle()
    flight.look()
    status = flight.status(slug)
    assert status["outbox"] == 3 and "does not answer" in status["trouble"]
    flight.cluster.is_down = False
    flight.turn(slug)
    flight.look()
    assert flight.status(slug)["outbox"] == 0 and len(flight.cluster.merged(slug)) == 3


def test_a_datastore_without_room_is_told_on_the_page_until_labels_go_on(flight: Flight, monkeypatch: pytest.MonkeyPatch) -> None:
    slug = flight.world.project(texts=5)
    flight.relay.open_task(flight.project(slug))
    flight.label(slug, 2)

    def no_room(request: Any, deadline_s: float | None = None) -> Any:
        raise StorageFullError("no room for a batch: free some space")

    with monkeypatch.context() as patch:
        patch.setattr(flight.cluster, "submit", no_room)
        flight.relay.cycle()
        flight.look()
    status = flight.status(slug)
    assert status["outbox"] == 2 and status["trouble"] == "labels wait: no room for a batch: free some space"
    monkeypatch.setattr(relay, "RETRY_S", 0.0)
    flight.relay._not_before_s.clear()
    flight.relay.cycle()
    flight.look()
    assert flight.status(slug)["trouble"] == ""


def test_a_batch_that_was_cut_off_goes_again_under_its_own_name(flight: Flight, monkeypatch: pytest.MonkeyPatch) -> None:
    slug = flight.world.project(texts=5)
    flight.relay.open_task(flight.project(slug))
    flight.label(slug, 2)
    real = flight.cluster.submit

    def cut_off(request: Any, deadline_s: float | None = None) -> Any:
        real(request)
        raise relay.RetryableError("the answer was lost")

    flight.cluster.submit = cut_off  # type: ignore[method-assign]
    assert flight.relay.cycle() == 0
    flight.cluster.submit = real  # type: ignore[method-assign]
    flight.label(slug, 1)
    monkeypatch.setattr(relay, "RETRY_S", 0.0)
    flight.relay._not_before_s.clear()
    flight.relay.cycle()
    assert flight.cluster.submits[0] in flight.cluster.submits[1:]
    assert len(flight.cluster.batches) == 2 and len(flight.cluster.merged(slug)) == 3


def test_a_new_master_that_never_heard_of_a_batch_gets_it_again(flight: Flight, monkeypatch: pytest.MonkeyPatch) -> None:
    slug = flight.world.project(texts=5)
    flight.cluster.is_processing = False
    flight.label(slug, 3)
    flight.turn(slug)
    assert flight.status(slug)["outbox"] == 3
    flight.cluster.forget()
    flight.cluster.is_processing = True
    flight.look()
    flight.relay.cycle()
    flight.look()
    assert flight.status(slug)["outbox"] == 0 and len(flight.cluster.merged(slug)) == 3


def test_a_label_the_cluster_refuses_is_shown_with_its_reason_and_can_go_again(flight: Flight) -> None:
    slug = flight.world.project(texts=3)
    flight.cluster.refused["i0"] = "the image is broken"
    flight.label(slug, 1)
    flight.turn(slug)
    status = flight.status(slug)
    assert status["outbox"] == 0 and status["failed"] == [{"item_id": "i0", "revision": 1, "reason": "the image is broken"}]
    flight.cluster.refused.clear()
    flight.cluster.process()
    flight.admin.call("POST", f"/projects/{slug}/resend")
    flight.turn(slug)
    assert flight.status(slug)["failed"] == [] and len(flight.cluster.merged(slug)) == 1


def test_items_are_embedded_and_ordered_before_any_model_serves(flight: Flight) -> None:
    slug = flight.world.project(texts=20)
    assert flight.turn(slug) == [Action.RANK]
    status = flight.status(slug)
    assert status["is_ordered"] and status["drafts_version"] == "" and "typiclust" in status["ordering"]
    wanted = sorted((f"i{n}" for n in range(20)), key=lambda i: flight.cluster.proba(slug, "", (i,)).max())
    got = [i["item_id"] for i in flight.admin.call("POST", f"/projects/{slug}/next", {"n": 5})["items"]]
    assert got == wanted[:5]


def test_a_new_version_brings_drafts_and_its_own_order(flight: Flight) -> None:
    slug = flight.world.project(texts=20)
    flight.turn(slug)
    flight.label(slug, 3)
    flight.turn(slug)
    version = flight.cluster.publish(slug)
    assert flight.turn(slug) == [Action.RESCORE]
    status = flight.status(slug)
    assert status["serving"] == status["drafts_version"] == version and status["is_ordered"]
    assert status["curve"] == [[3, 0.9]] and status["accuracy"] == 0.9
    labelled = set(flight.cluster.merged(slug))
    rest = [f"i{n}" for n in range(20) if f"i{n}" not in labelled]
    rest.sort(key=lambda i: flight.cluster.proba(slug, version, (i,)).max())
    items = flight.admin.call("POST", f"/projects/{slug}/next", {"n": 6})["items"]
    assert [i["item_id"] for i in items] == rest[:6]
    for item in items:
        proba = flight.cluster.proba(slug, version, (item["item_id"],))[0]
        assert item["draft"]["version"] == version
        assert item["draft"]["labels"] == [["owl", "tit", "jay"][int(proba.argmax())]]
        assert item["draft"]["confidence"] == pytest.approx(float(proba.max()), abs=1e-3)


def test_the_draft_that_was_shown_is_what_a_correction_is_counted_against(flight: Flight) -> None:
    slug = flight.world.project(texts=10)
    flight.turn(slug)
    flight.cluster.publish(slug)
    flight.turn(slug)
    first, second = flight.admin.call("POST", f"/projects/{slug}/next", {"n": 2})["items"]
    other = next(label for label in ("owl", "tit") if [label] != second["draft"]["labels"])
    flight.admin.answer(slug, first, first["draft"]["labels"][0])
    flight.admin.answer(slug, second, other)
    status = flight.status(slug)
    assert (status["drafted"], status["corrected"], status["corrections_per_100"]) == (2, 1, [50.0])
    assert status["corrections_by_version"] == [{"version": "model-1", "drafted": 2, "corrected": 1, "timed": 0, "seconds": 0.0}]
    flight.turn(slug)
    assert flight.cluster.merged(slug)[second["item_id"]].draft.labels == tuple(second["draft"]["labels"])  # type: ignore[union-attr]
    flight.admin.call("DELETE", f"/projects/{slug}/annotations/{second['item_id']}")
    assert (flight.status(slug)["drafted"], flight.status(slug)["corrected"]) == (1, 0)


def test_old_drafts_stay_until_new_ones_replace_them(flight: Flight) -> None:
    slug = flight.world.project(texts=10)
    flight.turn(slug)
    first = flight.cluster.publish(slug)
    flight.turn(slug)
    flight.cluster.publish(slug)
    flight.look()
    [item] = flight.admin.call("POST", f"/projects/{slug}/next", {"n": 1})["items"]
    assert item["draft"]["version"] == first


def test_a_rollback_brings_the_older_versions_drafts_back(flight: Flight) -> None:
    slug = flight.world.project(texts=10)
    flight.turn(slug)
    first = flight.cluster.publish(slug)
    flight.turn(slug)
    flight.cluster.publish(slug)
    flight.turn(slug)
    assert flight.admin.call("POST", f"/projects/{slug}/rollback")["version"] == first
    assert flight.turn(slug) == [Action.RESCORE]
    [item] = flight.admin.call("POST", f"/projects/{slug}/next", {"n": 1})["items"]
    assert item["draft"]["version"] == first


def test_shards_that_the_cluster_lost_are_embedded_again(flight: Flight) -> None:
    slug = flight.world.project(texts=10)
    flight.turn(slug)
    version = flight.cluster.publish(slug)
    flight.cluster.shards.clear()
    flight.look()
    with pytest.raises(RetryableError, match="embedded again"):
        flight.orderer.cycle(flight.project(slug))
    flight.turn(slug)
    status = flight.status(slug)
    assert status["drafts_version"] == version and status["is_ordered"]


def test_items_that_come_later_get_drafts_and_a_place_in_the_order(flight: Flight) -> None:
    slug = flight.world.project(texts=8)
    flight.turn(slug)
    version = flight.cluster.publish(slug)
    flight.turn(slug)
    more = [{"id": f"late{n}", "text": f"late {n}"} for n in range(8)]
    flight.admin.call("POST", f"/projects/{slug}/items", {"items": more})
    flight.turn(slug)
    items = flight.admin.call("POST", f"/projects/{slug}/next", {"n": 16})["items"]
    every = [f"i{n}" for n in range(8)] + [f"late{n}" for n in range(8)]
    assert [i["item_id"] for i in items] == sorted(every, key=lambda i: flight.cluster.proba(slug, version, (i,)).max())
    assert all(item["draft"]["version"] == version for item in items)


def test_an_item_that_cannot_be_read_is_told_and_stays_without_a_draft(flight: Flight) -> None:
    slug = flight.world.project(texts=6)
    flight.cluster.unreadable.add("i2")
    flight.cluster.publish(slug)
    flight.turn(slug)
    items = flight.admin.call("POST", f"/projects/{slug}/next", {"n": 6})["items"]
    assert {i["item_id"] for i in items if i["draft"] is None} == {"i2"}
    events = flight.admin.call("GET", f"/projects/{slug}/events")["events"]
    assert any(event["kind"] == "unreadable" and "i2: broken" in event["text"] for event in events)


def test_changed_settings_reach_the_cluster_in_a_higher_revision(flight: Flight) -> None:
    slug = flight.world.project(texts=2)
    flight.turn(slug)
    flight.admin.call("PATCH", f"/projects/{slug}", {"labels": ["owl", "tit", "jay", "rook"], "target": 0.8})
    flight.turn(slug)
    spec = flight.cluster.tasks[slug]
    assert spec.revision == 2 and spec.extra.labels[-1] == "rook" and spec.extra.target == 0.8


def test_multilabel_drafts_name_every_label_above_one_half(flight: Flight) -> None:
    slug = flight.world.project(texts=4, kind="multilabel")
    flight.cluster.publish(slug)
    flight.turn(slug)
    for item in flight.admin.call("POST", f"/projects/{slug}/next", {"n": 4})["items"]:
        proba = flight.cluster.proba(slug, "model-1", (item["item_id"],))[0]
        assert item["draft"]["labels"] == [label for label, p in zip(("owl", "tit", "jay"), proba, strict=True) if p >= 0.5]


def test_a_script_may_have_items_predicted_that_are_not_in_the_project(flight: Flight) -> None:
    slug = flight.world.project(texts=1)
    flight.turn(slug)
    version = flight.cluster.publish(slug)
    body = {"items": [{"id": "x", "text": "unseen"}, {"id": "y", "link": "data:text/plain,other"}]}
    found = flight.admin.call("POST", f"/projects/{slug}/predict", body)
    assert found["version"] == version and [p["id"] for p in found["predictions"]] == ["x", "y"]
    assert sum(found["predictions"][0]["proba"].values()) == pytest.approx(1, abs=1e-4)


def test_the_threads_of_a_pilot_turn_the_loop_by_themselves(flight: Flight) -> None:
    slug = flight.world.project(texts=12)
    ended = threading.Event()
    scoring = Scoring(flight.world.rooms, flight.cluster, ended)
    try:
        flight.label(slug, 3)
        for _ in itertools.count():
            scoring.cycle()
            scoring.relay.cycle()
            scoring.watch.cycle()
            status = flight.status(slug)
            if status["is_ordered"] and not status["outbox"]:
                break
            ended.wait(0.05)
        assert len(flight.cluster.merged(slug)) == 3
    finally:
        ended.set()
        scoring.close()


def test_a_strategy_is_asked_for_with_its_parameters_and_a_change_of_them_orders_anew(flight: Flight) -> None:
    slug = flight.world.project(texts=8, strategy="density_weighted", strategy_parameters={"beta": 2})
    flight.turn(slug)
    assert [(one.strategy, one.parameters) for one in flight.cluster.rank_requests] == [("auto", {})], "no model serves yet"
    flight.cluster.publish(slug)
    flight.turn(slug)
    assert flight.cluster.rank_requests[-1].strategy == "density_weighted"
    assert flight.cluster.rank_requests[-1].parameters == {"beta": 2}
    flight.admin.call("PATCH", f"/projects/{slug}", {"strategy_parameters": {"beta": 3}})
    assert flight.turn(slug) == [Action.RESCORE]
    assert flight.cluster.rank_requests[-1].parameters == {"beta": 3}
    assert flight.turn(slug) == []


@pytest.mark.parametrize("error", [InvalidInputError, DeadlineError])
def test_a_strategy_that_cannot_run_is_told_and_the_order_is_by_auto_until_it_can(
    flight: Flight, error: type[LabelloopError]
) -> None:
    slug = flight.world.project(texts=8, strategy="bald")
    flight.cluster.refused_strategies["bald"] = error("strategy 'bald' needs labels of two classes")
    assert flight.turn(slug) == [Action.RANK]
    status = flight.status(slug)
    assert status["ordering_problem"] == "strategy 'bald' needs labels of two classes"
    assert status["is_ordered"] and status["ordered_by"] == "typiclust"
    assert len(flight.admin.call("POST", f"/projects/{slug}/next", {"n": 8})["items"]) == 8
    told = [event for event in flight.admin.call("GET", f"/projects/{slug}/events")["events"] if event["kind"] == "order"]
    assert [event["text"] for event in told] == [status["ordering_problem"]]
    del flight.cluster.refused_strategies["bald"]
    flight.cluster.publish(slug)
    flight.turn(slug)
    assert flight.status(slug)["ordering_problem"] == ""
    assert flight.cluster.rank_requests[-1].strategy == "bald"
