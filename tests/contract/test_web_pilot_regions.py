"""Boxes and spans through the pilot: labels go out as regions, what the cluster finds comes back as drafts with marks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from labelloop import messages as m
from labelloop.settings import Settings
from tests.contract.test_web_pilot import Flight
from webapp.pilot.process import Scoring
from webapp.pilot.scoring import Action

LABELS = ["owl", "tit", "jay"]


@pytest.fixture
def flight(web_settings: Settings) -> Iterator[Flight]:
    made = Flight(web_settings)
    yield made
    made.world.close()


def make(flight: Flight, kind: str, n: int = 9, category: str = "object-detection", **more: Any) -> str:
    """Create a project with items i0, i1, ... of pictures or texts."""
    slug = flight.world.project(kind, category=category, kind=kind, labels=LABELS)
    content = {"text": "Ada met Bob in Rome."} if category == "token-classification" else {"link": "https://example.org/owl.png"}
    rows = [{"id": f"i{at}", **content, **more} for at in range(n)]
    assert flight.admin.call("POST", f"/projects/{slug}/items", {"items": rows})["added"] == n
    return slug


def take(flight: Flight, slug: str, n: int = 1) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = flight.admin.call("POST", f"/projects/{slug}/next", {"n": n})["items"]
    return items


def say(flight: Flight, slug: str, item: dict[str, Any], **said: Any) -> dict[str, Any]:
    body = {"item_id": item["item_id"], "lease": item["lease"], **said}
    saved: dict[str, Any] = flight.admin.call("POST", f"/projects/{slug}/annotations", body)["saved"]
    return saved


def mark(shape: str, label: str, *where: float, id: str = "m1") -> dict[str, Any]:
    return {"id": id, "label": label, "shape": shape, "where": list(where)}


def test_boxes_go_out_as_regions_and_come_back_as_drafts(flight: Flight) -> None:
    slug = make(flight, "boxes")
    assert flight.turn(slug) == [Action.RANK]
    spec = flight.cluster.tasks[slug]
    assert (spec.category, spec.extra.kind, spec.extra.labels) == ("object-detection", "regions", tuple(LABELS))
    first, second = take(flight, slug, 2)
    say(flight, slug, first, marks=[mark("box", "tit", 0.1, 0.2, 0.3, 0.4), mark("box", "tit", 0.1, 0.2, 0.3, 0.4, id="m2")])
    say(flight, slug, second, is_none=True)
    flight.turn(slug)
    sample = flight.cluster.merged(slug)[first["item_id"]]
    assert (sample.labels, sample.regions) == ((), (m.Region("tit", (0.1, 0.2, 0.3, 0.4)),))
    assert flight.cluster.merged(slug)[second["item_id"]].regions == () and flight.status(slug)["failed"] == []

    version = flight.cluster.publish(slug)
    assert flight.turn(slug) == [Action.RESCORE]
    item, other = take(flight, slug, 2)
    [(region,)] = flight.cluster.regions(slug, version, (item["item_id"],))
    found = {**mark("box", region.label, *region.where), "confidence": round(region.confidence, 4)}
    assert item["draft"]["marks"] == [found] and item["draft"]["labels"] == [region.label]
    assert (item["draft"]["version"], item["draft"]["confidence"]) == (version, round(region.confidence, 4))

    assert not say(flight, slug, item, marks=[{**found, "id": "x"}])["is_corrected"]
    assert say(flight, slug, other, marks=[])["is_corrected"]
    by_version = [(one["version"], one["drafted"], one["corrected"]) for one in flight.status(slug)["corrections_by_version"]]
    assert by_version == [(version, 2, 1)]
    flight.turn(slug)
    sent = flight.cluster.merged(slug)[item["item_id"]]
    assert sent.regions == (m.Region(region.label, region.where),)
    assert sent.draft is not None and sent.draft.version == version
    assert [(one.label, one.where) for one in sent.draft.regions] == [(region.label, region.where)]
    assert flight.cluster.merged(slug)[other["item_id"]].regions == ()


def test_a_newer_version_replaces_drafts_of_marks_and_an_older_one_never_does(flight: Flight) -> None:
    slug = make(flight, "boxes", draft={"marks": [{"label": "owl", "where": [0, 0, 1, 1]}], "version": "old", "confidence": 0.5})
    flight.turn(slug)
    [item] = take(flight, slug)
    assert item["draft"]["version"] == "old" and item["draft"]["marks"] == [mark("box", "owl", 0, 0, 1, 1)]
    flight.admin.call("POST", f"/projects/{slug}/skip", {"lease": item["lease"]}, 204)
    for at in (1, 2):
        version = flight.cluster.publish(slug)
        assert flight.turn(slug) == [Action.RESCORE]
        drafts = [one["draft"] for one in take(flight, slug, 3)]
        assert [draft["version"] for draft in drafts] == [version] * 3
        assert all(draft["marks"][0]["where"] == [0.25, at / 64, 0.5, 0.25] for draft in drafts)
    status = flight.status(slug)
    assert status["is_ordered"] and status["drafts_version"] == version


def test_drafts_of_marks_reach_the_whole_pool_and_items_that_come_later(flight: Flight) -> None:
    slug = make(flight, "boxes", 6)
    flight.orderer._settings = msgspec.structs.replace(flight.orderer._settings, head_items=1)  # the others by chunks alone
    flight.turn(slug)
    version = flight.cluster.publish(slug)
    flight.turn(slug)
    rows = [{"id": f"late-{at}", "link": "https://example.org/late.png"} for at in range(2)]
    flight.admin.call("POST", f"/projects/{slug}/items", {"items": rows})
    assert flight.embedder.cycle(flight.project(slug))
    items = take(flight, slug, 8)
    for item in items:
        [(region,)] = flight.cluster.regions(slug, version, (item["item_id"],))
        assert (item["draft"]["version"], item["draft"]["labels"]) == (version, [region.label])
        assert item["draft"]["marks"][0]["where"] == list(region.where)
    assert len(items) == 8


def test_an_item_that_no_version_can_read_keeps_its_draft(flight: Flight) -> None:
    slug = make(flight, "boxes", 3, draft={"marks": [{"label": "owl", "where": [0, 0, 1, 1]}], "version": "old"})
    flight.cluster.unreadable = {"i1"}
    flight.turn(slug)
    flight.cluster.publish(slug)
    flight.turn(slug)
    drafts = {one["item_id"]: one["draft"]["version"] for one in take(flight, slug, 3)}
    assert drafts == {"i0": "model-1", "i1": "old", "i2": "model-1"}


def test_a_class_that_was_imported_as_draft_yields_to_the_model(flight: Flight) -> None:
    slug = flight.world.project()
    rows = [{"id": f"i{n}", "text": f"text {n}", "draft": {"label": "jay", "version": "old", "confidence": 0.9}} for n in range(4)]
    flight.admin.call("POST", f"/projects/{slug}/items", {"items": rows})
    flight.turn(slug)
    assert [one["draft"]["version"] for one in take(flight, slug, 4)] == ["old"] * 4
    flight.cluster.publish(slug)
    flight.turn(slug)
    items = flight.admin.call("POST", f"/projects/{slug}/next", {"n": 4, "holding": []})["items"]
    assert [one["draft"]["version"] for one in items] == ["model-1"] * 4


def test_an_empty_finding_is_a_draft_too(flight: Flight) -> None:
    slug = flight.world.project("boxes", category="object-detection", kind="boxes", labels=LABELS)
    rows = [{"id": "empty-1", "link": "https://example.org/sky.png"}]
    flight.admin.call("POST", f"/projects/{slug}/items", {"items": rows})
    flight.turn(slug)
    version = flight.cluster.publish(slug)
    flight.turn(slug)
    [item] = take(flight, slug)
    sure = 1 - float(flight.cluster.proba(slug, version, ("empty-1",)).max())
    assert item["draft"] == {"labels": [], "confidence": pytest.approx(sure, abs=1e-3), "version": version}
    assert not say(flight, slug, item, marks=[])["is_corrected"]


SHAPES = {
    "polygons": (
        mark("polygon", "tit", 0.25, 0.5, 0.75, 0.5, 0.5, 0.75),
        (0.25, 0.5, 0.5, 0.25),
        [0.25, 1 / 64, 0.75, 1 / 64, 0.75, 0.25 + 1 / 64, 0.25, 0.25 + 1 / 64],
    ),
    "keypoints": (mark("point", "tit", 0.5, 0.01), (0.48, 0.0, 0.04, 0.03), [0.5, 0.125 + 1 / 64]),
}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_polygons_and_keypoints_are_learned_as_boxes_and_drafted_in_their_own_shape(flight: Flight, kind: str) -> None:
    given, region, drafted = SHAPES[kind]
    slug = make(flight, kind)
    flight.turn(slug)
    [item] = take(flight, slug)
    say(flight, slug, item, marks=[given])
    flight.turn(slug)
    assert flight.cluster.merged(slug)[item["item_id"]].regions == (m.Region("tit", region),)
    flight.cluster.publish(slug)
    flight.turn(slug)
    [item] = take(flight, slug)
    [shown] = item["draft"]["marks"]
    assert shown["shape"] == given["shape"] and shown["where"] == pytest.approx(drafted, abs=1e-6)
    assert not say(flight, slug, item, marks=item["draft"]["marks"])["is_corrected"]
    flight.turn(slug)
    sent = flight.cluster.merged(slug)[item["item_id"]]
    assert sent.draft is not None and sent.draft.regions[0].where == sent.regions[0].where


def test_overlapping_spans_and_relations_go_out_as_spans(flight: Flight) -> None:
    slug = make(flight, "relations", category="token-classification")
    flight.turn(slug)
    assert flight.cluster.tasks[slug].extra.kind == "regions"
    [item] = take(flight, slug)
    spans = [mark("span", "owl", 0, 3), mark("span", "tit", 0, 7, id="m2")]
    say(flight, slug, item, marks=spans, relations=[{"label": "jay", "source": "m1", "target": "m2"}])
    flight.turn(slug)
    assert flight.cluster.merged(slug)[item["item_id"]].regions == (m.Region("owl", (0, 3)), m.Region("tit", (0, 7)))
    flight.cluster.publish(slug)
    flight.turn(slug)
    [item] = take(flight, slug)
    assert item["draft"]["marks"][0]["shape"] == "span" and item["draft"]["marks"][0]["where"] == [0, 1]
    assert flight.status(slug)["failed"] == []


def test_none_of_the_classes_is_withdrawn_from_the_cluster_and_never_asked_again(flight: Flight) -> None:
    slug = flight.world.project(texts=2)
    flight.turn(slug)
    [item] = take(flight, slug)
    say(flight, slug, item, labels=["owl"])
    flight.turn(slug)
    assert flight.cluster.merged(slug)[item["item_id"]].labels == ("owl",)
    flight.admin.call("POST", f"/projects/{slug}/annotations", {"item_id": item["item_id"], "is_none": True})
    flight.turn(slug)
    flight.look()
    status = flight.status(slug)
    assert flight.cluster.merged(slug) == {} and (status["labels"], status["outbox"], status["failed"]) == (1, 0, [])
    assert [one["item_id"] for one in take(flight, slug, 2)] == [{"i0": "i1", "i1": "i0"}[item["item_id"]]]


def test_what_the_cluster_does_not_learn_never_reaches_it(flight: Flight) -> None:
    slug = flight.world.project("years", category="regression", kind="number", labels=[])
    rows = [{"id": "i0", "row": {"size": 2}, "number": 3.5}, {"id": "i1", "row": {"size": 3}}]
    flight.admin.call("POST", f"/projects/{slug}/items", {"items": rows})
    say(flight, slug, take(flight, slug)[0], number=4)
    scoring = Scoring(flight.world.rooms, flight.cluster, flight.embedder._ended)
    scoring.relay.cycle()
    scoring.watch.cycle()
    scoring.cycle()
    scoring.close()
    assert flight.cluster.tasks == {} and flight.cluster.jobs == {}
    assert (flight.status(slug)["outbox"], flight.status(slug)["labels"]) == (0, 2)


def test_a_prediction_of_boxes_names_its_marks(flight: Flight) -> None:
    slug = make(flight, "boxes", 1)
    flight.turn(slug)
    version = flight.cluster.publish(slug)
    asked = {"items": [{"id": "new", "link": "https://example.org/new.png"}]}
    [line] = flight.admin.call("POST", f"/projects/{slug}/predict", asked)["predictions"]
    [(region,)] = flight.cluster.regions(slug, version, ("new",))
    assert line["labels"] == [region.label] and line["marks"][0]["where"] == [0.25, 1 / 64, 0.5, 0.25]
