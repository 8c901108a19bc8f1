"""Exports with drafts tell every draft that is kept: the one on screen, else the newest of block, head of the queue and import."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.contract.test_web_formats import export, project_of
from tests.contract.test_web_labelling import take
from tests.contract.web_world import World
from webapp.db import scores
from webapp.db.drafts import pack_answers
from webapp.db.items import NewDraft, items_by_id
from webapp.kinds.values import Value


def fill(world: World, slug: str, *names: str, **said: dict[str, Any]) -> None:
    rows = [{"id": name, "text": f"text {name}", **said.get(name, {})} for name in names]
    assert world.admin.call("POST", f"/projects/{slug}/items", {"items": rows})["added"] == len(names)


def answers_of_a_model(world: World, slug: str, version: str, pointer: int, proba: dict[str, list[float]]) -> None:
    """Keep a block with a version's answers."""
    project = project_of(world, slug)
    with world.database.write() as tx:
        numbers = [items_by_id(tx, project.id, [name])[name].number for name in proba]
        packed = pack_answers(np.array(list(proba.values()), "f4"), np.arange(3), project.is_multilabel, 3)
        scores.add_block(tx, project.id, "shard", numbers, version, pointer, packed)


def head_of_the_queue(world: World, slug: str, pointer: int, name: str, label: str) -> None:
    project = project_of(world, slug)
    with world.database.write() as tx:
        number = items_by_id(tx, project.id, [name])[name].number
        scores.save_head(tx, project.id, pointer, [(number, NewDraft(Value((label,)), f"head-{pointer}", 0.75))])


def drafts_in(data: bytes) -> dict[str, Any]:
    return {line["id"]: line for line in map(json.loads, data.decode().splitlines())}


def test_every_draft_that_is_kept_is_told_and_the_newest_goes_before(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webapp.transfer.writers.base.Writer.page", 2)  # blocks that reach over pages
    slug = world.project()
    old = {"draft": {"label": "jay", "version": "old", "confidence": 0.5}}
    names = ("shown", "block", "import", "both", "newer-head", "silent", "bare", "labelled")
    fill(world, slug, *names, **dict.fromkeys(("shown", "import", "both", "silent"), old), labelled={"label": "owl"})
    [item] = take(world.admin, slug)
    assert item["item_id"] == "shown"
    world.admin.answer(slug, item, "owl")
    proba = {
        "shown": [0, 0, 1],
        "block": [0.25, 0.75, 0],
        "both": [1, 0, 0],
        "newer-head": [1, 0, 0],
        "silent": [0, 0, 0],
        "labelled": [0, 1, 0],
    }
    answers_of_a_model(world, slug, "m1", 5, proba)
    head_of_the_queue(world, slug, 6, "newer-head", "tit")
    lines = drafts_in(export(world, slug, "jsonl", with_drafts=True, with_version=True)[1])
    told = {name: line["draft"] and tuple(line["draft"].values()) for name, line in lines.items()}
    assert told == {
        "shown": (["jay"], "old"),
        "block": (["tit"], "m1", 0.75),
        "import": (["jay"], "old", 0.5),
        "both": (["owl"], "m1", 1.0),
        "newer-head": (["tit"], "head-6", 0.75),
        "silent": (["jay"], "old", 0.5),
        "bare": None,
        "labelled": (["tit"], "m1", 1.0),
    }
    assert {name: line["draft_version"] for name, line in lines.items() if line["draft_version"]} == {"shown": "old"}
    assert "draft" not in drafts_in(export(world, slug, "jsonl")[1])["block"]


def test_drafts_of_several_labels_and_of_renamed_ones_are_told_as_they_are_called_now(world: World) -> None:
    slug = world.project(kind="multilabel")
    fill(world, slug, "a", "b", b={"draft": {"labels": ["owl", "jay"], "version": "old", "confidence": 0.5}})
    answers_of_a_model(world, slug, "m1", 5, {"a": [0.75, 0.25, 1]})
    world.admin.call("POST", f"/projects/{slug}/labels/rename", {"label": "owl", "name": "barn owl"}, 202)
    lines = drafts_in(export(world, slug, "jsonl", with_drafts=True)[1])
    assert [line["draft"]["labels"] for line in lines.values()] == [["barn owl", "jay"]] * 2


def test_an_item_that_waits_for_a_second_opinion_is_in_an_export_of_all(world: World) -> None:
    slug = world.project(texts=2)
    world.admin.call("PUT", f"/projects/{slug}/work", {"overlap": 2})
    [item] = take(world.admin, slug)
    world.admin.answer(slug, item, "owl")
    assert set(drafts_in(export(world, slug, "jsonl", with_drafts=True)[1])) == {"i0", "i1"}
