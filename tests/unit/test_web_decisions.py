"""The app's pure parts: what the scoring needs next, drafts as bytes, rows of an upload, settings into URLs."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from labelloop.errors import InvalidInputError, SettingsError, UnreadableItemError
from labelloop.settings import Settings, WebSettings
from webapp.db import drafts
from webapp.db.engine import database_url
from webapp.db.projects import Project
from webapp.media import image_extension
from webapp.pilot.scoring import Action, View, next_order, usable_strategy
from webapp.transfer import rows
from webapp.transfer.readers.csv_rows import choose_columns

RESTING = View(
    serving="v2",
    pointer=2,
    scored_version="v2",
    scored_pointer=2,
    is_ordered=True,
    in_blocks=100,
    ranked_items=100,
    has_backlog=False,
    unbound=0,
    strategy="auto",
    ranked_strategy="auto",
)


def project(**more: object) -> Project:
    base = {
        "id": 1, "slug": "birds", "title": "birds", "category": "text-classification", "kind": "multiclass",
        "labels": ("owl", "tit", "jay"), "target": 0.9, "budget": 0, "epoch": 0, "strategy": "auto", "algorithm": "auto",
        "strategy_parameters": {},
        "encoder": "auto", "is_comparer_on": True, "retrain_labels": 0, "parameters": {}, "instructions": "", "is_paused": False,
        "spec_revision": 1, "opened_revision": 0, "next_position": 0, "created_at": 0.0,
    }  # fmt: skip
    return msgspec.convert({**base, **more}, Project)


@pytest.mark.parametrize(
    ("changes", "action"),
    [
        ({}, Action.REST),
        ({"in_blocks": 0, "is_ordered": False}, Action.REST),
        ({"serving": "v3", "pointer": 3}, Action.RESCORE),
        ({"serving": "v1", "pointer": 3}, Action.RESCORE),
        ({"unbound": 1}, Action.RESCORE),
        ({"is_ordered": False}, Action.RESCORE),
        ({"strategy": "entropy"}, Action.RESCORE),
        ({"parameters": {"beta": 2.0}}, Action.RESCORE),
        ({"parameters": {"beta": 2.0}, "ranked_parameters": {"beta": 2.0}}, Action.REST),
        ({"in_blocks": 120, "has_backlog": True}, Action.REST),
        ({"in_blocks": 150, "has_backlog": True}, Action.RESCORE),
        ({"in_blocks": 101}, Action.RESCORE),
        ({"serving": "", "scored_version": "", "pointer": 0, "scored_pointer": 0}, Action.REST),
        ({"serving": "", "scored_version": "", "pointer": 0, "scored_pointer": 0, "is_ordered": False}, Action.RANK),
        ({"serving": "", "scored_version": "", "pointer": 0, "scored_pointer": 0, "in_blocks": 150}, Action.RANK),
    ],
)
def test_the_next_step_follows_from_what_is(changes: dict[str, object], action: Action) -> None:
    decided, reason = next_order(msgspec.structs.replace(RESTING, **changes))
    assert decided is action and reason


def test_a_strategy_that_needs_a_model_waits_behind_auto() -> None:
    beta = {"beta": 2.0}
    assert usable_strategy("density_weighted", beta, "") == ("auto", {})
    assert usable_strategy("density_weighted", beta, "v1") == ("density_weighted", beta)
    assert usable_strategy("region_uncertainty", {}, "") == ("auto", {})
    assert usable_strategy("mixture", {"shares": {"core_set": 1, "random": 1}}, "")[0] == "mixture"
    assert usable_strategy("mixture", {"shares": {"core_set": 1, "entropy": 1}}, "")[0] == "auto"
    assert [usable_strategy(name, {}, "")[0] for name in ("random", "typiclust", "bald")] == ["random", "typiclust", "bald"]


@pytest.mark.parametrize("n_labels", [2, 3, 8, 9, 40])
@pytest.mark.parametrize("is_multilabel", [False, True])
def test_a_draft_survives_its_bytes(n_labels: int, is_multilabel: bool) -> None:
    rng = np.random.default_rng(n_labels)
    proba = rng.random((50, n_labels)).astype(np.float32)
    proba[7] = 0
    labels = tuple(f"l{n}" for n in range(n_labels))
    columns = rng.permutation(n_labels)
    packed = drafts.pack_answers(proba, columns, is_multilabel, n_labels)
    kind = "multilabel" if is_multilabel else "multiclass"
    whole = packed.tobytes()
    for row in range(50):
        record = whole[row * packed.itemsize : (row + 1) * packed.itemsize]
        found = drafts.read_draft(project(labels=labels, kind=kind), (None, None, None, None, None, "v1", 1, record))
        if row == 7:
            assert found is None
            continue
        assert found is not None and found.version == "v1"
        if is_multilabel:
            assert set(found.labels) == {labels[columns[at]] for at in np.flatnonzero(proba[row] >= 0.5)}
        else:
            assert found.labels == (labels[columns[proba[row].argmax()]],) and found.confidence == pytest.approx(proba[row].max())


def test_the_draft_with_the_higher_pointer_wins() -> None:
    record = drafts.pack_answers(np.array([[0.9, 0.1, 0]], np.float32), np.arange(3), False, 3).tobytes()
    of_block = ("v2", 2, record)
    assert drafts.read_draft(project(), ("v1", 1, '["jay"]', 0.5, None, *of_block)) == drafts.Draft(
        ("owl",), "v2", pytest.approx(0.9)
    )
    assert drafts.read_draft(project(), ("v3", 3, '["jay"]', 0.5, None, *of_block)) == drafts.Draft(("jay",), "v3", 0.5)
    assert drafts.read_draft(project(), ("v3", 3, '["jay"]', 0.5, None, None, None, None)) == drafts.Draft(("jay",), "v3", 0.5)
    assert drafts.read_draft(project(), (None,) * 8) is None


@pytest.mark.parametrize(
    ("cell", "value"),
    [("", None), ("12", 12), ("-3", -3), ("2.50", 2.5), ("1e3", 1000.0), ("a1", "a1"), ("١", 1.0), ("--1", "--1")],
)
def test_a_cell_is_a_number_where_it_is_one(cell: str, value: object) -> None:
    assert rows.cell_value(cell) == value


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"text": "  "}, "empty"),
        ({"text": 7}, "empty"),
        ({}, "'text'"),
        ({"link": "file"}, "use http"),
        ({"link": "http://a b"}, "no spaces"),
        ({"text": "x", "label": "crow"}, "'crow'"),
        ({"text": "x", "labels": ["owl", "tit"]}, "exactly one"),
        ({"text": "x", "id": "a\nb"}, "item id"),
        ({"text": "x", "id": "é" * 200}, "item id"),
        ({"text": "\ud800"}, "UTF-8"),
        ({"text": "x", "name": ["no"]}, "name"),
    ],
)
def test_a_bad_row_is_refused_with_what_is_wrong(given: dict[str, object], complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        rows.item_from_object(project(), given)


def test_rows_without_an_id_get_one_from_their_content() -> None:
    first, again = (rows.item_from_object(project(), {"text": "same"}) for _ in range(2))
    assert first.item_id == again.item_id != rows.item_from_object(project(), {"text": "other"}).item_id


def test_table_rows_may_not_nest() -> None:
    with pytest.raises(InvalidInputError, match="'size' holds list"):
        rows.item_from_object(project(category="tables"), {"row": {"size": [1]}})


def test_columns_are_found_by_usual_names_or_chosen() -> None:
    chosen = choose_columns(project(category="tables"), ["id", "size", "kind", "label"], {"row_columns": "kind"})
    assert (chosen.id, chosen.label, chosen.row) == (0, 3, (2,))
    with pytest.raises(InvalidInputError, match="twice"):
        choose_columns(project(), ["text", "text"], {})
    assert choose_columns(project(category="image-classification"), ["url"], {}).link == 0


def test_what_is_no_image_is_told() -> None:
    assert image_extension(b"RIFF\0\0\0\0WEBPVP8 ") == "webp"
    with pytest.raises(UnreadableItemError, match="not an image"):
        image_extension(b"<svg onload=alert(1)>")


def test_bare_postgresql_urls_get_their_driver() -> None:
    url = database_url(Settings(web=WebSettings(database_url="postgresql://u@h/d")))
    assert url == "postgresql+psycopg://u@h/d"
    with pytest.raises(SettingsError, match="use sqlite"):
        database_url(Settings(web=WebSettings(database_url="mysql://u:secret@h/d")))
