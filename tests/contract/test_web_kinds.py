"""Every kind of label through the API: created, drafted, saved, undone, exported and read back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.test_web_transfer import PNG, archive, exported, import_file
from tests.contract.web_world import World

LABELS = ["owl", "tit", "jay"]
TEXT = {"text": "Ada 🦉 met Bob in Rome."}
PICTURE = {"link": "https://example.org/owl.png"}
PAIR = {"pair": {"a": {"text": "one"}, "b": {"link": "https://example.org/b.png"}}}
SOUND = {"link": "https://example.org/owl.wav"}


def mark(shape: str, label: str, *where: float, id: str = "m1") -> dict[str, Any]:
    return {"id": id, "label": label, "shape": shape, "where": list(where)}


SPANS = [mark("span", "owl", 0, 3), mark("span", "tit", 0, 5, id="m2")]
# category, kind, an item, the draft it brings, what a person says instead, the labels that come of it
KINDS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any], dict[str, Any], list[str]]] = {
    "one class": ("image-classification", "multiclass", PICTURE, {"labels": ["owl"]}, {"labels": ["tit"]}, ["tit"]),
    "none of the classes": ("text-classification", "multiclass", TEXT, {"labels": ["owl"]}, {"is_none": True}, []),
    "several classes": ("text-classification", "multilabel", TEXT, {"labels": ["owl"]}, {"labels": ["jay", "owl"]}, ["owl", "jay"]),
    "boxes": (
        "object-detection",
        "boxes",
        PICTURE,
        {"marks": [mark("box", "owl", 0.1, 0.1, 0.5, 0.5)]},
        {"marks": [mark("box", "owl", 0.1, 0.1, 0.5, 0.4), mark("box", "jay", 0, 0, 1, 1, id="m2")]},
        ["owl", "jay"],
    ),
    "polygons": (
        "object-detection",
        "polygons",
        PICTURE,
        {"marks": [mark("polygon", "owl", 0, 0, 1, 0, 1, 1)]},
        {"marks": [mark("polygon", "tit", 0, 0, 1, 0, 1, 1, 0, 1)]},
        ["tit"],
    ),
    "keypoints": (
        "object-detection",
        "keypoints",
        PICTURE,
        {"marks": [mark("point", "owl", 0.5, 0.5)]},
        {"marks": [mark("point", "owl", 0.6, 0.5)]},
        ["owl"],
    ),
    "spans that overlap": ("token-classification", "spans", TEXT, {"marks": SPANS[:1]}, {"marks": SPANS}, ["owl", "tit"]),
    "relations": (
        "token-classification",
        "relations",
        TEXT,
        {"marks": SPANS},
        {"marks": SPANS, "relations": [{"label": "jay", "source": "m1", "target": "m2"}]},
        ["owl", "tit"],
    ),
    "a row's class": ("tables", "multiclass", {"row": {"draft": 1, "value": 2}}, {"labels": ["owl"]}, {"labels": ["jay"]}, ["jay"]),
    "a number": ("regression", "number", {"row": {"size": 3}}, {"number": 2.5}, {"number": 2.75}, []),
    "a sound's class": ("audio", "multiclass", SOUND, {"labels": ["owl"]}, {"labels": ["tit"]}, ["tit"]),
    "segments": (
        "audio",
        "segments",
        SOUND,
        {"marks": [mark("segment", "owl", 0, 1.5)]},
        {"marks": [mark("segment", "owl", 0.25, 1.5)]},
        ["owl"],
    ),
    "a pair": ("pairs", "multiclass", PAIR, {"labels": ["owl"]}, {"labels": ["tit"]}, ["tit"]),
    "free text": ("writing", "free-text", TEXT, {"text": "Ada met Bob."}, {"text": "Ada met Bob in Rome.\n"}, []),
}


def make(world: World, case: str, **more: Any) -> str:
    category, kind = KINDS[case][:2]
    labels = [] if kind in ("number", "free-text") else LABELS
    return world.project(case.replace(" ", "-").replace("'", ""), category=category, kind=kind, labels=labels, **more)


def bring(world: World, slug: str, case: str, *ids: str) -> None:
    item, draft = KINDS[case][2:4]
    rows = [{"id": one, **item, "draft": {**draft, "confidence": 0.75, "version": "old-model"}} for one in ids]
    added = world.admin.call("POST", f"/projects/{slug}/items", {"items": rows})
    assert added == {"added": len(ids), "known": 0, "failed": []}


def take(world: World, slug: str) -> Any:
    return world.admin.call("POST", f"/projects/{slug}/next", {"n": 1})["items"][0]


def say(world: World, slug: str, item: Any, said: dict[str, Any], status: int = 200, **more: Any) -> Any:
    body = {"item_id": item["item_id"], "lease": item["lease"], **said, **more}
    return world.admin.call("POST", f"/projects/{slug}/annotations", body, status)


def holds(shown: dict[str, Any], value: dict[str, Any]) -> bool:
    return {name: shown.get(name) for name in value} == value


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_a_label_of_every_kind_is_drafted_saved_undone_and_told(world: World, case: str) -> None:
    _, _, _, draft, said, labels = KINDS[case]
    said = said if "labels" not in said else {"labels": labels}
    slug = make(world, case)
    bring(world, slug, case, "i1")
    item = take(world, slug)
    assert holds(item["draft"], {**draft, "version": "old-model", "confidence": 0.75})
    saved = say(world, slug, item, said, key="k1")["saved"]
    assert holds(saved, {**said, "labels": labels, "is_corrected": True, "revision": 1, "is_repeat": False})
    assert say(world, slug, item, said, key="k1")["saved"]["is_repeat"]
    assert "answered before" in say(world, slug, item, draft, 409, key="k1")["message"]
    undone = world.admin.call("DELETE", f"/projects/{slug}/annotations/i1")
    assert holds(undone["item"]["draft"], draft)
    assert not say(world, slug, undone["item"], draft)["saved"]["is_corrected"]
    history = world.admin.call("GET", f"/projects/{slug}/items/i1")["history"]
    assert [one["is_deleted"] for one in history] == [False, True, False]
    assert holds(history[0], {**said, "labels": labels}) and holds(history[2], draft)
    status = world.admin.call("GET", f"/projects/{slug}/status")
    assert (status["labels"], status["drafted"], status["corrected"]) == (1, 1, 0)
    by_version = [(one["version"], one["drafted"], one["corrected"]) for one in status["corrections_by_version"]]
    assert by_version == [("old-model", 1, 0)]


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_an_export_of_every_kind_is_read_back_as_it_was(world: World, case: str) -> None:
    said = KINDS[case][4]
    slug = make(world, case)
    bring(world, slug, case, "i1", "i2")
    say(world, slug, take(world, slug), said)
    lines = exported(world, slug, "all")
    labels = [] if KINDS[case][1] in ("number", "free-text") else LABELS
    other = world.project("other", category=KINDS[case][0], kind=KINDS[case][1], labels=labels)
    content = "\n".join(json.dumps(line) for line in lines).encode()
    job = import_file(world, other, "again.jsonl", content)
    assert (job["rows_added"], job["rows_failed"], job["errors"]) == (2, 0, [])
    kept = ("id", "labels", "value", "text", "row", "pair", "link", "revision")

    def keep(exported_lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{name: line.get(name) for name in kept} for line in exported_lines]

    assert keep(exported(world, other, "all")) == keep(lines)


def test_an_item_of_marks_without_any_differs_from_one_that_is_not_labelled(world: World) -> None:
    slug = make(world, "boxes")
    bring(world, slug, "boxes", "i1", "i2")
    say(world, slug, take(world, slug), {"marks": []})
    first, second = exported(world, slug, "all")
    assert (first["labels"], first["value"], first["revision"]) == ([], {}, 1)
    assert "value" not in second and second["revision"] == 0


def test_a_span_behind_its_text_is_refused_and_the_lease_stays(world: World) -> None:
    slug = make(world, "spans that overlap")
    bring(world, slug, "spans that overlap", "i1")
    item, n = take(world, slug), len(TEXT["text"])
    answer = say(world, slug, item, {"marks": [mark("span", "owl", 0, n + 1)]}, 422)
    assert f"ends behind the item, which ends at {n}" in answer["message"]
    say(world, slug, item, {"marks": [mark("span", "owl", 0, n)]})
    refused = world.admin.call(
        "POST", f"/projects/{slug}/items", {"items": [{"id": "i9", "text": "short", "marks": [mark("span", "owl", 0, 6)]}]}
    )
    assert "ends at 5" in refused["failed"][0]["reason"]


def test_projects_that_the_cluster_does_not_learn_need_no_cluster_and_say_so(world: World) -> None:
    slug = make(world, "a number")
    bring(world, slug, "a number", "i1")
    say(world, slug, take(world, slug), {"number": 7})
    status = world.admin.call("GET", f"/projects/{slug}/status")
    assert (status["is_learned"], status["outbox"], status["trouble"]) == (False, 0, "")
    assert status["next_training"].startswith("the cluster has no model for this kind of project")
    answer = world.admin.call("POST", f"/projects/{slug}/train", {}, 409)
    assert answer["message"] == status["next_training"]


REFUSED = (
    ({"category": "tables", "kind": "boxes"}, "kind 'boxes' of category 'tables': use one of multiclass, multilabel"),
    ({"category": "sounds"}, "category 'sounds': use one of image-classification"),
    ({"category": "regression", "kind": "number", "labels": ["a"]}, "labels ['a']: a project of kind 'number' has none"),
    ({"category": "object-detection", "kind": "boxes", "labels": []}, "give 1 to 1000 different labels"),
    ({"labels": ["a"]}, "give 2 to 1000 different labels"),
    ({"category": "audio", "kind": "segments", "labels": ["a", "a"]}, "give 1 to 1000 different labels"),
)


@pytest.mark.parametrize(("values", "sentence"), REFUSED, ids=[sentence for _, sentence in REFUSED])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_project_of_no_such_kind_is_refused_by_name(world: World, values: dict[str, Any], sentence: str) -> None:
    answer = world.admin.call("POST", "/projects", {"slug": "new", "category": "text-classification", **values}, 422)
    assert sentence in answer["message"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_folder_names_no_label_where_items_have_marks(world: World) -> None:
    slug = make(world, "boxes")
    job = import_file(world, slug, "a.zip", archive({"owl/1.png": PNG}), labels_by_folder="true")
    assert job["rows_added"] == 0 and "a label alone says nothing in a project of kind 'boxes'" in job["errors"][0]["reason"]


def test_drafts_of_another_model_are_sent_for_items_that_are_there(world: World) -> None:
    slug = make(world, "boxes")
    bring(world, slug, "boxes", "i1", "i2")
    sent = [
        {"item_id": "i1", "marks": [{"label": "jay", "where": [0, 0, 0.5, 0.5], "confidence": 0.9}], "version": "other-model"},
        {"item_id": "i9", "marks": []},
        {"item_id": "i2", "marks": [{"label": "hen", "where": [0, 0, 1, 1]}]},
    ]
    answer = world.admin.call("POST", f"/projects/{slug}/drafts", {"drafts": sent})
    assert answer["saved"] == 1 and [(one["line"], one["name"]) for one in answer["failed"]] == [(2, "i9"), (3, "i2")]
    assert "no item is called 'i9'" in answer["failed"][0]["reason"] and "label 'hen'" in answer["failed"][1]["reason"]
    item = take(world, slug)
    assert (item["item_id"], item["draft"]["version"], item["draft"]["confidence"]) == ("i1", "other-model", 0.9)
    assert item["draft"]["marks"][0]["where"] == [0, 0, 0.5, 0.5]
    world.admin.call("POST", f"/projects/{slug}/drafts", {"drafts": [{"item_id": "i1", "colour": "red"}]}, 422)


def test_marks_numbers_and_texts_come_in_as_labels_with_lines_and_bad_ones_are_told(world: World) -> None:
    slug = make(world, "boxes")
    lines = (
        {"id": "a", **PICTURE, "marks": [{"label": "owl", "where": [0, 0, 0.5, 0.5]}]},
        {"id": "b", **PICTURE, "marks": [{"label": "owl", "where": [0, 0, 50, 50]}]},
        {"id": "c", **PICTURE, "is_none": True},
        {"id": "d", **PICTURE, "draft": {"marks": [{"label": "hen", "where": [0, 0, 1, 1]}]}},
        {"id": "e", **PICTURE, "draft": {"marks": [], "confidence": 2}},
    )
    job = import_file(world, slug, "a.jsonl", "\n".join(json.dumps(line) for line in lines).encode())
    errors = {error["line"]: error["reason"] for error in job["errors"]}
    assert job["rows_added"] == 2 and errors.keys() == {2, 4, 5}
    assert "reaches out of the picture" in errors[2]
    assert "draft: mark 'm1': label 'hen'" in errors[4] and "confidence '2'" in errors[5]
    first, third = exported(world, slug)
    assert first["value"] == {"marks": [mark("box", "owl", 0.0, 0.0, 0.5, 0.5)]} and third["value"] == {"is_none": True}
