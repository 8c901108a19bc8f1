"""Boxes and spans on the train role: what submit refuses, what a run learns, how versions are judged, when a training comes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import intake.encoders
import learning.algorithms
from cluster.taskcheck import check_spec
from datastore_layout.labels import LabelRow
from datastore_layout.models import current, list_versions, read_manifest
from datastore_layout.root import TaskFolder, create_root, task_folder
from datastore_layout.runs import RunSpec, create_run, read_finish, read_run_metrics
from datastore_layout.training_sets import TrainingSet, write_training_set
from labelloop.errors import InvalidInputError
from labelloop.messages import CATEGORIES, MEDIUM_OF, REGION_CATEGORIES, Category, Draft, Region, Sample, TaskExtraInfo, TaskSpec
from labelloop.settings import Settings
from learning.regions import Regions, check_regions
from roles.hints import RunHint
from roles.regions import to_arrays, to_messages
from roles.train import attempt as attempt_module
from roles.train.attempt import run_attempt
from roles.train.comparer import ComparerView, Comparison, DraftedLabel, agreement, compare
from roles.train.evaluation_regions import regions_in_label_order
from roles.train.gate import Gate, GateView, judge
from roles.train.policy import PolicyView, fewest_classes, why_not_trainable
from roles.train.samples import Part, Samples
from roles.train.sharing import fingerprint_of
from roles.train.tally import Tally
from roles.train.validation import MAX_REGIONS, why_reject
from scripts.region_loop import TrueItem
from tests.support_regions import KINDS, SHAPES, named_texts, spotted_pictures, write_package


def task(category: Category, labels: tuple[str, ...], kind: str = "regions") -> TaskSpec:
    extra = msgspec.convert({"kind": kind, "labels": labels}, TaskExtraInfo)
    return TaskSpec(task="places", category=category, extra=extra)


BOXES, SPANS = task("object-detection", SHAPES), task("token-classification", KINDS)
CLASSES = task("image-classification", SHAPES, "multiclass")
BOX, SPAN = Region(label="red", where=(0.1, 0.2, 0.3, 0.4)), Region(label="city", where=(3.0, 7.0))


def sample(*regions: Region, **changes: Any) -> Sample:
    return msgspec.structs.replace(Sample(item_id="a", link="file:///a", labels=(), regions=regions), **changes)


def at(*where: float, label: str = "red", confidence: float = 1.0) -> Region:
    return Region(label=label, where=where, confidence=confidence)


# ---------------------------------------------------------------- tasks


def test_every_category_has_a_medium_and_regions_are_among_them() -> None:
    assert set(MEDIUM_OF) == set(CATEGORIES) == set(msgspec.json.schema(Category)["enum"])  # type: ignore[arg-type]
    assert set(REGION_CATEGORIES) < set(CATEGORIES)


@pytest.mark.parametrize("spec", [BOXES, SPANS, CLASSES, task("object-detection", ("one",))])
def test_a_task_of_regions_is_opened_with_one_label_or_more(spec: TaskSpec) -> None:
    check_spec(spec)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (task("object-detection", SHAPES, "multiclass"), "kind 'multiclass' does not fit object-detection"),
        (task("token-classification", KINDS, "multilabel"), "use kind 'regions'"),
        (task("tables", KINDS), "kind 'regions' does not fit tables: use multiclass or multilabel"),
        (task("object-detection", ()), "labels has 0 entries"),
    ],
)
def test_a_kind_that_does_not_fit_the_category_is_refused(spec: TaskSpec, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        check_spec(spec)


# ---------------------------------------------------------------- submit


@pytest.mark.parametrize(
    ("given", "spec"),
    [
        (sample(BOX), BOXES),
        (sample(), BOXES),  # nothing is there
        (sample(at(0, 0, 1, 1), at(0, 0, 1, 1, label="blue")), BOXES),
        (sample(at(0.7, 0.7, 0.3, 0.3000000001)), BOXES),
        (sample(SPAN, at(0, 7, label="city")), SPANS),
        (sample(SPAN, is_deleted=True, labels=("nonsense",)), SPANS),
        (sample(BOX, draft=Draft(labels=(), version="v", regions=(at(0, 0, 1, 1, label="gone", confidence=0.3),))), BOXES),
    ],
)
def test_good_regions_are_taken(given: Sample, spec: TaskSpec) -> None:
    assert why_reject(given, spec, frozenset(spec.extra.labels)) is None


@pytest.mark.parametrize(
    ("given", "spec", "words"),
    [
        (sample(at(0.1, 0.2, 0.3)), BOXES, "region 0: [0.1, 0.2, 0.3] is no box: give [x, y, width, height]"),
        (sample(at(0.1, 0.2, 0.3, float("nan"))), BOXES, "is no box"),
        (sample(BOX, at(0.1, 0.2, 0, 0.3)), BOXES, "region 1: box [0.1, 0.2, 0, 0.3] has no size"),
        (sample(at(0.5, 0.5, -0.1, 0.1)), BOXES, "has no size"),
        (sample(at(0.8, 0.1, 0.3, 0.1)), BOXES, "reaches out of the picture: divide pixels by its width and height"),
        (sample(at(-0.1, 0, 0.3, 0.1)), BOXES, "reaches out of the picture"),
        (sample(at(12, 30, 100, 80)), BOXES, "reaches out of the picture"),
        (sample(at(0, 0, 1, 1, label="green")), BOXES, "label 'green' is not one of the task's 2 labels: add it"),
        (sample(at(0, 0, 1, 1, confidence=1.5)), BOXES, "confidence 1.5 is outside 0 to 1"),
        (sample(BOX, BOX), BOXES, "region 'red' at [0.1, 0.2, 0.3, 0.4] is given twice"),
        (sample(labels=("red",)), BOXES, "labels ['red'] given, the task is object-detection: name each label in its region"),
        (sample(BOX, proba=(0.5, 0.5)), BOXES, "leave proba empty"),
        (sample(*[BOX] * (MAX_REGIONS + 1)), BOXES, "1001 regions given, at most 1000"),
        (sample(SPAN, at(1, 2, 3, label="city")), SPANS, "region 1: [1, 2, 3] is no span: give [start, end] as whole numbers"),
        (sample(at(1.5, 4, label="city")), SPANS, "is no span"),
        (sample(at(4, 4, label="city")), SPANS, "span [4, 4] is empty or backwards"),
        (sample(at(-1, 4, label="city")), SPANS, "span [-1, 4] is empty or backwards"),
        (sample(at(0, 2**25, label="city")), SPANS, "ends beyond 16777216 code points"),
        (sample(BOX), SPANS, "label 'red' is not one of"),
        (sample(BOX, labels=("red",)), CLASSES, "1 regions given, the task is image-classification: send `labels`"),
        (sample(BOX, draft=Draft(labels=(), version="v", regions=(at(1, 2),))), BOXES, "draft: region 0: [1, 2] is no box"),
        (sample(labels=("red",), draft=Draft(labels=(), version="v", regions=(BOX,))), CLASSES, "1 regions given in the draft"),
    ],
)
def test_bad_regions_are_refused_with_the_value_at_fault(given: Sample, spec: TaskSpec, words: str) -> None:
    assert words in str(why_reject(given, spec, frozenset(spec.extra.labels)))


def test_the_samples_of_the_page_for_backends_are_taken() -> None:
    page = (Path(__file__).parents[2] / "docs" / "backend.md").read_text().split("## Boxes and spans")[1]
    example = re.findall(r"```py\n(.*?)```", page, re.DOTALL)[0]
    said: dict[str, Any] = {}
    exec(example, said)
    check_spec(said["task"])
    known = frozenset(said["task"].extra.labels)
    assert [why_reject(one, said["task"], known) for one in said["samples"]] == [None, None]


# ---------------------------------------------------------------- arrays


def test_regions_come_back_from_arrays_as_they_went_in() -> None:
    number = {"red": 0, "blue": 1}
    boxes = (at(0.5, 0.25, 0.125, 0.5, confidence=0.75), at(0, 0, 1, 1, label="blue", confidence=0.5))
    arrays = to_arrays(boxes, number, 4)
    assert to_messages(arrays, ("red", "blue")) == boxes
    assert to_messages(arrays, ("red", "blue"), least=0.6) == boxes[:1]
    spans = to_messages(to_arrays((SPAN,), {"city": 0}, 2), ("city",))
    assert spans == (SPAN,)
    assert all(isinstance(value, int) for value in spans[0].where)
    assert to_arrays((), number, 4).where.shape == (0, 4)


def test_regions_of_another_label_set_are_renumbered_and_lost_labels_left_out() -> None:
    found = [to_arrays((at(0, 0, 1, 1), at(0, 0, 1, 1, label="blue")), {"red": 0, "blue": 1}, 4)]
    moved = regions_in_label_order(found, ("red", "blue"), ("new", "blue"))[0]
    assert moved.labels.tolist() == [1]
    assert moved.where.shape == (1, 4)


ONE = Regions(np.array([[0, 0, 1, 1]], np.float32), np.array([0]), np.ones(1, np.float32))
NONE = Regions(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))


@pytest.mark.parametrize(
    ("y", "words"),
    [
        ([ONE], "1 items with regions for 2 rows"),
        (np.zeros(2), "0 items with regions for 2 rows"),
        ([ONE, "red"], "item 1 of y is str, expected learning.regions.Regions"),
        ([ONE, ONE._replace(where=np.zeros((1, 3)))], r"item 1 has regions of shape \(1, 3\)"),
        ([ONE, ONE._replace(labels=np.array([2]))], r"item 1 has labels \[2\]: give integers from 0 to 1"),
        ([ONE, ONE._replace(labels=np.array([0.5]))], "item 1 has labels"),
        ([ONE, ONE._replace(where=np.array([[0, 0, 0, 1]]))], r"item 1 has the region \[0.0, 0.0, 0.0, 1.0\]"),
        ([ONE, ONE._replace(where=np.array([[0, np.nan, 1, 1]]))], "it needs finite numbers and a size above 0"),
        ([ONE, ONE._replace(scores=np.ones(2))], "item 1 has 1 regions and 2 scores"),
        ([ONE, NONE._replace(where=np.zeros((0, 2)))], "mixes boxes"),
        ([NONE, NONE], "none of the 2 items has a region"),
    ],
)
def test_regions_that_cannot_be_learned_are_refused_by_name(y: Any, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        check_regions(y, 2, 2)


def test_checked_regions_have_scores_of_one_where_none_were_given() -> None:
    checked = check_regions([ONE._replace(scores=np.zeros(0)), NONE], 2, 1)
    assert checked[0].scores.tolist() == [1.0]
    assert checked[1].labels.dtype == np.int64


# ---------------------------------------------------------------- runs


class World:
    """A task with its items in shards, as the data workers leave them."""

    def __init__(self, folder: TaskFolder, spec: TaskSpec, encoder: str, algorithm: str, made: list[TrueItem]) -> None:
        self.folder, self.spec, self.encoder, self.algorithm = folder, spec, encoder, algorithm
        self.made = made

    def run(self, n: int, labels: tuple[str, ...] | None = None) -> int:
        """Create a run over the first `n` items with their true regions."""
        found = current(self.folder)
        extra = msgspec.structs.replace(self.spec.extra, labels=labels or self.spec.extra.labels)
        spec = msgspec.structs.replace(self.spec, extra=extra)
        rows = tuple(LabelRow(one.item_id, 1, one.link, (), regions=one.regions) for one in self.made[:n])
        start = found.version if found else ""
        run = create_run(self.folder, RunSpec(algorithm=self.algorithm, encoder=self.encoder, n_labels=n, start_version=start))
        write_training_set(self.folder, run, TrainingSet(spec=spec, rows=rows, pointer=found.number if found else 0))
        return run

    def train(self, run: int) -> str:
        """Return why the run ended as it did."""
        run_attempt(self.folder, RunHint(task=self.spec.task, run=run, attempt=1), Settings())
        end = read_finish(self.folder, run)
        assert end is not None
        return end.reason


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(write_package(tmp_path / "package")))
    caches = (learning.algorithms._added, intake.encoders.find_encoder)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def boxes(tmp_path: Path, plugin: None) -> World:
    folder = task_folder(create_root(tmp_path / "store", "c1"), "places")
    return World(folder, BOXES, "spots-map", "spots", spotted_pictures(80))


@pytest.fixture
def spans(tmp_path: Path, plugin: None) -> World:
    folder = task_folder(create_root(tmp_path / "store", "c1"), "places")
    return World(folder, SPANS, "letters", "words", named_texts(80))


def test_a_model_of_boxes_serves_with_its_map50_in_the_manifest(boxes: World) -> None:
    run = boxes.run(80)
    reason = boxes.train(run)
    manifest = read_manifest(boxes.folder, list_versions(boxes.folder)[0])
    assert manifest.metrics.keys() == {
        "map50",
        "f1",
        "corrections_per_100",
        "draft_confidence",
        "held_out",
        "held_out_regions",
    }
    assert manifest.metrics["map50"] > 0.6
    assert manifest.metrics["corrections_per_100"] < 60
    assert reason == f"first version: map50 {manifest.metrics['map50']:.3f} on {manifest.metrics['held_out']:.0f} held-out items"
    assert manifest.preprocess["decoding"]["decoder"] == "image"
    assert read_run_metrics(boxes.folder, run)[-1].metrics["map50"] == manifest.metrics["map50"]


def test_a_model_of_spans_serves_with_its_exact_f1_in_the_manifest(spans: World) -> None:
    assert spans.train(spans.run(80)).startswith("first version: span_f1 ")
    metrics = read_manifest(spans.folder, list_versions(spans.folder)[0]).metrics
    assert metrics["span_f1"] == metrics["f1"] > 0.9
    assert metrics["draft_confidence"] == 0


def test_a_label_set_that_grew_is_compared_by_name(spans: World) -> None:
    spans.train(spans.run(60))
    assert "not worse: span_f1" in spans.train(spans.run(80, labels=("new", "city", "person")))


def test_a_version_that_finds_nothing_is_refused_by_the_gate(boxes: World, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes.train(boxes.run(80))
    first = list_versions(boxes.folder)[0]
    loaded = attempt_module.load_samples

    def spoiled(*arguments: Any) -> Samples:
        samples = loaded(*arguments)
        assert isinstance(samples.train.y, list)
        swapped = [one._replace(labels=1 - one.labels) for one in samples.train.y]
        return Samples(Part(samples.train.rows, samples.train.x, swapped), samples.held_out)

    monkeypatch.setattr(attempt_module, "load_samples", spoiled)
    reason = boxes.train(boxes.run(80))
    assert reason.startswith(f"kept, {first} goes on serving: worse: map50 ")
    assert "more on" in reason
    pointer = current(boxes.folder)
    assert pointer is not None
    assert pointer.version == first


def test_labels_without_any_region_end_the_run_with_a_sentence(boxes: World) -> None:
    boxes.made = [one._replace(regions=()) for one in boxes.made]
    run = boxes.run(60)
    assert "has a region: label at least one that shows something" in boxes.train(run)
    end = read_finish(boxes.folder, run)
    assert end is not None
    assert end.state == "failed"


def test_ranks_with_other_boxes_of_the_same_items_do_not_train_together() -> None:
    x = np.zeros((1, 4), np.float32)
    row = LabelRow("a", 1, "file:///a", (), regions=(BOX,))
    part, other = Part((row,), x, [ONE]), Part((row,), x, [ONE._replace(labels=np.array([1]))])
    assert fingerprint_of(Samples(part, part), 1, False) != fingerprint_of(Samples(other, part), 1, False)


# ---------------------------------------------------------------- decisions


def view(old: list[int], new: list[int], old_score: float, new_score: float, serving: str = "v1") -> GateView:
    wrong = {"new_wrong": tuple(new), "old_wrong": tuple(old), "new_score": new_score, "old_score": old_score}
    return GateView(serving=serving, pointer_at_start=1, pointer=1, measure="map50", **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "decision", "words"),
    [
        (view([], [0, 3], 0, 0.5, serving=""), Gate.SERVE, "first version: map50 0.500 on 2 held-out items"),
        (view([1] * 20, [0] * 20, 0.5, 0.6), Gate.SERVE, "not worse: map50 0.600, before 0.500; fewer corrections on 20 of 20"),
        (view([0] * 20, [2] * 20, 0.5, 0.4), Gate.KEEP, "v1 goes on serving: worse: map50 0.400, before 0.500; fewer"),
        (view([0] * 20, [2] * 20, 0.5, 0.6), Gate.SERVE, "not worse"),  # the score decides against the corrections
        (view([0] * 20, [1] + [0] * 19, 0.5, 0.4), Gate.SERVE, "more on 1"),  # chance explains it
    ],
)
def test_the_gate_of_regions_refuses_what_lost_score_and_items(seen: GateView, decision: Gate, words: str) -> None:
    decided, reason = judge(seen)
    assert decided is decision
    assert words in reason


def drafted(draft: tuple[Region, ...], regions: tuple[Region, ...], version: str = "v1") -> DraftedLabel:
    return DraftedLabel(version=version, draft=(), labels=(), draft_regions=draft, regions=regions)


NEAR = at(0.12, 0.2, 0.3, 0.4, confidence=0.7)


@pytest.mark.parametrize(
    ("labels", "right"),
    [
        ([drafted((NEAR,), (BOX,))], 1.0),
        ([drafted((NEAR, at(0.8, 0.8, 0.1, 0.1)), (BOX,))], 2 / 3),
        ([drafted((), (BOX,)), drafted((), ()), drafted((SPAN,), ())], 1.0),
        ([drafted((SPAN,), (SPAN,)), drafted((at(3, 8, label="city"),), (SPAN,))], 1.0),
        ([drafted((SPAN,), (BOX,)), drafted((BOX,), (BOX,), version="old")], 0.0),
        ([drafted((), ()), drafted((), ())], 2.0),
    ],
)
def test_drafts_of_regions_agree_by_their_f1(labels: list[DraftedLabel], right: float) -> None:
    seen = ComparerView(drafted=tuple(labels), serving="v1", target=0.9, window=10, is_on=True)
    assert agreement(seen).right == pytest.approx(right)


def test_the_comparer_rests_when_the_regions_of_drafts_reach_the_target() -> None:
    seen = ComparerView(drafted=(drafted((NEAR,), (BOX,)),) * 4, serving="v1", target=0.9, window=4, is_on=True)
    assert compare(seen) == (
        Comparison.REST,
        "target reached: the regions of the last 4 drafts agreed by 100.0% (F1), target 90.0%",
    )


def test_one_label_of_regions_suffices_for_a_training_but_none_does_not() -> None:
    log: dict[str, LabelRow] = {}
    tally = Tally(0.0, 10, has_regions=True)

    def take(row: LabelRow) -> None:
        log[row.item_id] = row
        tally.take([row], log.get)

    def blocked() -> str | None:
        return why_not_trainable(
            PolicyView(
                labels=1, classes=tally.classes, fewest_classes=fewest_classes(BOXES), held_out=1, new_labels=0, last_labels=0
            )
        )

    take(LabelRow("empty", 1, "file:///e", ()))
    assert blocked() == "blocked: no region outside the held-out part is labelled yet, label a few more"
    take(LabelRow("full", 1, "file:///f", (), regions=(BOX, BOX)))
    assert blocked() is None
    take(LabelRow("full", 2, "file:///f", (), regions=()))
    assert tally.classes == 0
