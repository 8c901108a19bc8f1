"""box-head on maps whose boxes are known: it finds them, resumes bit-equal, knows its worth, and answers bad input by its table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from labelloop.errors import IntegrityError, InvalidInputError
from learning.algorithms import Training, find_algorithm
from learning.algorithms.box_confidence import SHOWN_FROM, Confidence, fit_confidence
from learning.algorithms.box_head import FILE, BoxHeadModel
from learning.algorithms.box_network import decode_cells, loss_of_boxes, make_targets
from learning.algorithms.collective import part_of
from learning.boxes import overlap_among, suppress
from learning.feature_map import parse_layout, row_size, split_levels
from learning.metrics_regions import agree, mean_average_precision, overlaps, surer_than
from learning.query import select
from learning.regions import RegionModel, Regions

LAYOUT = "4x8x8+3x4x4"
SMALL = {"layout": LAYOUT, "width": 16, "batch": 16}
N_LABELS = 3


@pytest.fixture(autouse=True, scope="module")
def _one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def boxes_of(*rows: tuple[float, float, float, float, int]) -> Regions:
    where = np.array([row[:4] for row in rows], np.float32).reshape(-1, 4)
    return Regions(where, np.array([row[4] for row in rows], np.int64), np.ones(len(rows), np.float32))


def scenes(n: int, seed: int = 0) -> tuple[NDArray[np.float32], list[Regions]]:
    """Return maps with 0 to 2 boxes of two classes (never class 2): the fine level says where, the coarse one which class."""
    rng = np.random.default_rng(seed)
    fine, coarse = rng.normal(0, 0.3, (n, 4, 8, 8)), rng.normal(0, 0.3, (n, 3, 4, 4))
    truth = []
    for row in range(n):
        placed = []
        for half in rng.permutation(2)[: rng.integers(1, 3) if row else 0]:
            label, height, width = int(rng.integers(2)), int(rng.integers(2, 5)), int(rng.integers(2, 5))
            top, left = int(rng.integers(0, 9 - height)), 4 * int(half) + int(rng.integers(0, 5 - width))
            fine[row, 0, top : top + height, left : left + width] += 2
            fine[row, 1 + label, top : top + height, left : left + width] += 2
            coarse[row, label, top // 2 : (top + height + 1) // 2, left // 2 : (left + width + 1) // 2] += 2
            placed.append((left / 8, top / 8, width / 8, height / 8, label))
        truth.append(boxes_of(*placed))
    return np.concatenate([fine.reshape(n, -1), coarse.reshape(n, -1)], axis=1).astype(np.float32), truth


def start(x: Any, y: Any, epoch: int = 6, **more: Any) -> Training:
    parameters = {**SMALL, **more.pop("parameters", {})}
    return find_algorithm("box-head").start(x, y, N_LABELS, parameters=parameters, epoch=epoch, **more)


def finish(training: Training) -> list[float]:
    losses = []
    while training.step < training.steps:
        losses.append(training.advance())
    return losses


@pytest.fixture(scope="module")
def trained() -> BoxHeadModel:
    training = start(*scenes(140), epoch=20, parameters={"rate": 0.02, "held_out": 0.4})
    finish(training)
    model = training.model()
    assert isinstance(model, BoxHeadModel)
    return model


def test_it_finds_boxes_in_maps_that_it_has_not_seen(trained: BoxHeadModel) -> None:
    x, truth = scenes(60, seed=1)
    found = trained.predict_regions(x)
    assert isinstance(trained, RegionModel)
    assert mean_average_precision(truth, found, N_LABELS) > 0.6
    for regions in found:
        assert regions.where.dtype == regions.scores.dtype == np.float32
        assert regions.labels.dtype == np.int64
        assert (np.diff(regions.scores) <= 0).all()
        assert (regions.where >= 0).all()
        assert (regions.where[:, :2] + regions.where[:, 2:] <= 1 + 1e-6).all()


def test_its_confidence_is_about_the_share_that_is_right(trained: BoxHeadModel) -> None:
    x, truth = scenes(200, seed=2)
    found = trained.predict_regions(x)
    hits = np.concatenate([agree(true, one) >= 0 for true, one in zip(truth, found, strict=True)])
    confidence = np.concatenate([one.scores for one in found])
    for is_sure in (confidence >= 0.5, confidence < 0.5):
        assert abs(hits[is_sure].mean() - confidence[is_sure].mean()) < 0.12
    assert trained.confidence != Confidence()
    assert 0.1 <= trained.confidence.shown_from <= 0.9


def test_a_class_that_no_box_has_is_never_shown(trained: BoxHeadModel) -> None:
    shown = surer_than(trained.predict_regions(scenes(60, seed=1)[0]), trained.confidence.shown_from)
    assert all((one.labels != 2).all() for one in shown)
    assert any(len(one.labels) for one in shown)


def test_after_a_restore_the_losses_are_bit_equal_to_an_uninterrupted_run() -> None:
    x, y = scenes(40)
    whole, first, second = (start(x, y, seed=4) for _ in range(3))
    losses = finish(whole)
    assert whole.steps >= 6
    before = [first.advance() for _ in range(whole.steps // 2)]
    second.restore(first.state())
    assert before + finish(second) == losses
    assert second.model().files() == whole.model().files()
    with pytest.raises(InvalidInputError, match="steps are taken"):
        whole.advance()


def test_another_seed_sees_other_batches() -> None:
    x, y = scenes(40)
    assert start(x, y, seed=1).advance() != start(x, y, seed=2).advance()


def test_a_saved_model_answers_bit_equal_and_a_damaged_file_is_refused(trained: BoxHeadModel, tmp_path: Path) -> None:
    x, _ = scenes(10, seed=3)
    trained.save(tmp_path)
    loaded = find_algorithm("box-head").load(tmp_path)
    assert isinstance(loaded, BoxHeadModel)
    assert loaded.confidence == trained.confidence
    for mine, its in zip(trained.predict_regions(x), loaded.predict_regions(x), strict=True):
        assert [np.asarray(a).tobytes() for a in mine] == [np.asarray(b).tobytes() for b in its]
    (tmp_path / FILE).write_bytes(b"nothing")
    with pytest.raises(IntegrityError):
        find_algorithm("box-head").load(tmp_path)


def test_it_starts_from_the_serving_model_when_label_set_and_layout_agree(trained: BoxHeadModel) -> None:
    x, y = scenes(40)
    cold, warm = start(x, y).advance(), start(x, y, start_from=trained).advance()
    assert warm < cold / 2
    assert start(x, y, start_from=trained, parameters={"width": 8}).advance() > warm * 2


def test_a_picture_is_answered_alike_alone_and_among_others(trained: BoxHeadModel) -> None:
    x, _ = scenes(70, seed=5)
    alone, among = trained.predict_regions(x[3:4])[0], trained.predict_regions(x)[3]
    np.testing.assert_allclose(alone.where, among.where, atol=1e-5)
    np.testing.assert_allclose(alone.scores, among.scores, atol=1e-5)


def test_parts_feed_region_uncertainty(trained: BoxHeadModel) -> None:
    x, _ = scenes(20, seed=6)
    x[7] = np.nan
    proba, starts = trained.parts(x)
    assert starts[0] == 0
    assert starts[-1] == len(proba)
    assert starts[8] == starts[7]
    assert proba.shape[1] == N_LABELS + 1
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-5)
    asked = select("region_uncertainty", proba=None, features=x[:, :4], n=3, parts=proba, part_starts=starts)
    assert len(asked.indices) == 3


def test_what_is_missing_counts_as_the_mean_and_a_row_without_a_value_has_no_box(trained: BoxHeadModel) -> None:
    x, _ = scenes(3, seed=7)
    x[0] = np.nan
    x[1, 5] = np.inf
    found = trained.predict_regions(x)
    assert len(found[0].labels) == 0
    assert len(found[1].labels) > 0
    assert trained.predict_proba(x)[0].tolist() == [0, 0, 0]
    assert trained.predict_regions(x[:0]) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, y: (x, [boxes_of()] * len(y)), "none of the 12 items"),
        (lambda x, y: (x, [boxes_of((0.9, 0.2, 0.3, 0.3, 0)), *y[1:]]), "item 0 has the box .* outside the picture"),
        (lambda x, y: (x, [boxes_of((0.1, -0.2, 0.3, 0.3, 0)), *y[1:]]), "outside the picture"),
        (lambda x, y: (x, [boxes_of((0.1, 0.2, 0.0, 0.3, 0)), *y[1:]]), "item 0 .* size above 0"),
        (lambda x, y: (x, [boxes_of((np.nan, 0.2, 0.1, 0.3, 0)), *y[1:]]), "item 0 .* finite"),
        (lambda x, y: (x, [boxes_of((0.1, 0.2, 0.1, 0.3, 3)), *y[1:]]), "item 0 has labels"),
        (
            lambda x, y: (x, [Regions(np.array([[0, 2]], np.float32), np.array([0]), np.ones(1, np.float32))] * 12),
            "box-head learns boxes",
        ),
        (lambda x, y: (x[:, :-1], y), "are no feature map 4x8x8\\+3x4x4 of 304 numbers"),
        (lambda x, y: (x, y[1:]), "11 items with regions for 12 rows"),
        (lambda x, y: (np.where(np.arange(12)[:, None] == 4, np.nan, x), y), "row 4 of the features is NaN throughout"),
        (lambda x, y: (np.where(np.arange(12)[:, None] == 4, np.inf, x), y), "row 4 of the features holds an infinite"),
        (lambda x, y: (x[:0], []), "0 rows"),
    ],
)
def test_bad_input_is_refused_by_name(change: Any, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        start(*change(*scenes(12)))


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"layout": "8x8"}, "is no map"),
        ({"layout": "4x4x4+4x8x8"}, "finest level first"),
        ({"width": 9}, "width"),
        ({"magic": 1}, "magic"),
    ],
)
def test_bad_parameters_are_refused_by_name(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        start(*scenes(12), parameters=parameters)


def test_a_model_refuses_rows_of_another_width(trained: BoxHeadModel) -> None:
    with pytest.raises(InvalidInputError, match="use the same encoder"):
        trained.predict_regions(np.zeros((2, 7), np.float32))


def test_one_picture_is_learned_and_its_confidence_is_the_raw_score() -> None:
    x, y = scenes(2)
    x[1, 0] = np.nan
    training = start(x[1:], y[1:], epoch=3)
    finish(training)
    model = training.model()
    assert isinstance(model, BoxHeadModel)
    assert model.confidence == Confidence()
    assert np.isfinite(model.scale.mean).all()


def test_a_part_of_a_batch_adds_up_to_the_whole_whoever_computes_it() -> None:
    x, y = scenes(24)
    network = start(x, y, seed=3)._network  # type: ignore[attr-defined]
    rows = np.arange(10)
    whole = network.logits(rows, slice(None), np.random.default_rng(9))
    parts = [(part_of(rank, 3), network.logits(rows, part_of(rank, 3), np.random.default_rng(9)).detach()) for rank in range(3)]
    added = sum(float(loss) * len(rows[part]) / len(rows) for part, loss in parts)
    assert added == pytest.approx(float(whole.detach()), rel=1e-5)


def test_targets_decode_to_the_boxes_they_were_made_of() -> None:
    truth = boxes_of((0.125, 0.25, 0.5, 0.375, 1), (0.75, 0.125, 0.02, 0.03, 0))
    targets = make_targets([truth], 2, 8, 8)
    assert targets.heat[0, 1].max() == targets.heat[0, 0].max() == 1
    logits = np.where(targets.heat == 1, 5, -5).astype(np.float32)
    boxes, _ = decode_cells(logits, targets.sides, 6)
    for one in truth.where:
        np.testing.assert_allclose(boxes[0][np.abs(boxes[0] - one).sum(axis=1).argmin()], one, atol=1e-6)


def test_the_loss_is_least_where_everything_is_said_right() -> None:
    targets = make_targets([boxes_of((0.125, 0.25, 0.5, 0.375, 1))], 2, 8, 8)
    heat, sides, answers = (torch.from_numpy(one) for one in targets)
    sure = torch.where(heat == 1, 9.0, -9.0)
    right = float(loss_of_boxes(sure, sides, heat, sides, answers, 1.0))
    assert right == pytest.approx(0, abs=1e-3)
    assert float(loss_of_boxes(sure, sides * 2, heat, sides, answers, 1.0)) > right + 0.1
    assert float(loss_of_boxes(-sure, sides, heat, sides, answers, 1.0)) > right + 0.1


def test_suppression_keeps_the_best_of_each_thing_as_the_plain_loop_does() -> None:
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(0, 0.5, (5, 20, 2)), rng.uniform(0.1, 0.5, (5, 20, 2))], axis=2).astype(np.float32)
    kept = suppress(boxes, 0.4)
    for picture, said in zip(boxes, kept, strict=True):
        pairs = overlaps(picture, picture)
        plain: list[int] = []
        for i in range(len(picture)):
            if all(pairs[j, i] <= 0.4 for j in plain):
                plain.append(i)
        assert np.flatnonzero(said).tolist() == plain
    np.testing.assert_allclose(overlap_among(boxes)[0], overlaps(boxes[0], boxes[0]), atol=1e-5)
    assert 5 < kept.sum() < kept.size


def test_confidence_is_fitted_to_the_share_that_is_right() -> None:
    rng = np.random.default_rng(0)
    true = boxes_of((0.1, 0.1, 0.2, 0.2, 0))
    miss = boxes_of((0.6, 0.6, 0.2, 0.2, 0)).where[0]
    found = []
    for _ in range(200):
        score = rng.uniform(0.05, 0.95)
        where = true.where[0] if rng.random() < score / 2 else miss
        found.append(Regions(where[None], np.zeros(1, np.int64), np.array([score], np.float32)))
    confidence = fit_confidence([true] * 200, found)
    for score in (0.3, 0.6, 0.9):
        assert float(confidence.of(np.array([score], np.float32))[0]) == pytest.approx(score / 2, abs=0.1)


def test_few_held_out_boxes_hardly_bend_the_confidence() -> None:
    true = boxes_of((0.1, 0.1, 0.2, 0.2, 0))
    few = fit_confidence([true], [true._replace(scores=np.array([0.2], np.float32))])
    assert few.shown_from == SHOWN_FROM
    assert 0.2 < float(few.of(np.array([0.2], np.float32))[0]) < 0.5
    assert fit_confidence([boxes_of()], [true]) == Confidence()
    nothing = fit_confidence([true], [boxes_of()])
    assert nothing == Confidence()


def test_a_layout_splits_a_row_into_its_levels() -> None:
    levels = parse_layout(LAYOUT)
    x = np.arange(2 * row_size(levels), dtype=np.float32).reshape(2, -1)
    fine, coarse = split_levels(x, levels)
    assert fine.shape == (2, 4, 8, 8)
    assert coarse.shape == (2, 3, 4, 4)
    assert coarse[1, 0, 0, 0] == x[1, 256]
