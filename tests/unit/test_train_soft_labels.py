"""The arrays that a run learns from, some labels being probabilities, and what it is judged on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datastore_layout.labels import LabelRow
from datastore_layout.root import TaskFolder, create_root, task_folder
from datastore_layout.shards import ShardSet
from datastore_layout.training_sets import TrainingSet
from labelloop.errors import InvalidInputError
from labelloop.messages import TaskExtraInfo, TaskSpec
from labelloop.settings import IntakeSettings
from learning.held_out import is_held_out
from roles.train.samples import Samples, load_samples
from roles.train.soft_labels import learnable, soften

ENCODER = "raw-pixels-8g"
SHARE = 0.3
SPEC = TaskSpec(task="t", category="image-classification", extra=TaskExtraInfo(labels=("a", "b", "c")))


@pytest.fixture
def folder(tmp_path: Path) -> TaskFolder:
    folder = task_folder(create_root(tmp_path / "store", "c1"), "t")
    ids = [f"i{n}" for n in range(40)]
    features = np.random.default_rng(0).random((40, 64)).astype(np.float32)
    ShardSet(folder, ENCODER).write(ids, [f"file:///{i}" for i in ids], [f"h{i}" for i in ids], features)
    return folder


def row(n: int, label: str, proba: tuple[float, ...] = ()) -> LabelRow:
    return LabelRow(f"i{n}", 1, f"file:///i{n}", (label,), proba=proba)


def load(folder: TaskFolder, rows: list[LabelRow], spec: TaskSpec = SPEC, has_soft_labels: bool = True) -> Samples:
    seen = learnable(TrainingSet(spec=spec, rows=tuple(rows)), SHARE)
    return soften(load_samples(folder, seen, ENCODER, SHARE, IntakeSettings()), spec, has_soft_labels)


WEAK = (0.1, 0.7, 0.2)
MIXED = [row(n, "b", WEAK) if n % 2 else row(n, "ac"[n % 4 // 2]) for n in range(40)]


def test_probabilities_are_learned_from_and_never_judged_on(folder: TaskFolder) -> None:
    found = load(folder, MIXED)
    weak_inside = [r.item_id for r in found.train.rows if r.proba]
    assert weak_inside == [r.item_id for r in MIXED if r.proba and not is_held_out(r.item_id, SHARE)]
    assert [r.item_id for r in found.held_out.rows] == [r.item_id for r in MIXED if not r.proba and is_held_out(r.item_id, SHARE)]
    assert (found.held_out.y.dtype, found.held_out.y.ndim) == (np.int64, 1)
    assert found.train.y.dtype == np.float32
    for label, one in zip(found.train.y, found.train.rows, strict=True):
        np.testing.assert_allclose(label, one.proba or np.eye(3)["abc".index(one.labels[0])], atol=1e-6)


def test_an_algorithm_of_certain_labels_learns_the_likeliest(folder: TaskFolder) -> None:
    found = load(folder, MIXED, has_soft_labels=False)
    assert found.train.y.tolist() == ["abc".index(r.labels[0]) for r in found.train.rows]


def test_certain_labels_alone_stay_numbers(folder: TaskFolder) -> None:
    assert load(folder, [r for r in MIXED if not r.proba]).train.y.ndim == 1


def test_probabilities_of_a_label_set_that_has_changed_since_are_left_out_or_completed(folder: TaskFolder) -> None:
    more = TaskSpec(task="t", category="image-classification", extra=TaskExtraInfo(labels=("a", "b", "c", "d")))
    found = load(folder, MIXED, more)
    assert found.train.y.shape[1] == 4
    np.testing.assert_allclose(found.train.y[[bool(r.proba) for r in found.train.rows]][0], (*WEAK, 0.0), atol=1e-6)
    turned = TaskSpec(task="t", category="image-classification", extra=TaskExtraInfo(labels=("b", "a", "c")))
    assert not any(r.proba for r in load(folder, MIXED, turned).train.rows)


def test_a_run_without_a_held_out_label_by_a_person_says_what_it_needs(folder: TaskFolder) -> None:
    rows = [r for r in MIXED if r.proba or not is_held_out(r.item_id, SHARE)]
    with pytest.raises(InvalidInputError, match="none of 17 labels by people is in the held-out part"):
        load(folder, rows)


def test_several_labels_an_item_with_probabilities_are_learned_and_never_judged_on(folder: TaskFolder) -> None:
    spec = TaskSpec(task="t", category="image-classification", extra=TaskExtraInfo(kind="multilabel", labels=("a", "b", "c")))
    of_model = [LabelRow(f"i{n}", 1, f"file:///i{n}", ("a", "b"), proba=(0.9, 0.9, 0.1)) for n in range(0, 40, 2)]
    stale = [LabelRow("i1", 1, "file:///i1", ("a",), proba=(0.9, 0.9, 0.1))]
    certain = [LabelRow(f"i{n}", 1, f"file:///i{n}", ("c",)) for n in range(3, 40, 2)]
    found = load(folder, [*of_model, *stale, *certain], spec)
    assert [r.item_id for r in found.train.rows if r.proba] == [r.item_id for r in of_model if not is_held_out(r.item_id, SHARE)]
    assert not any(row.proba for row in found.held_out.rows)
    assert {tuple(y) for y, r in zip(found.train.y.tolist(), found.train.rows, strict=True) if r.proba} == {(1, 1, 0)}
