"""Metrics of boxes and spans: against pycocotools on random scenes, against published or hand-counted figures, and bad input."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.metrics_regions import agree, corrections, item_f1, mean_average_precision, overlaps, region_f1, span_f1
from learning.regions import Regions


def regions(*rows: tuple[Any, ...], width: int = 4) -> Regions:
    """Rows are (label, score, numbers of the outline ...)."""
    return Regions(
        where=np.array([row[2:] for row in rows], dtype=np.float32).reshape(-1, width),
        labels=np.array([row[0] for row in rows], dtype=np.int64),
        scores=np.array([row[1] for row in rows], dtype=np.float32),
    )


def spans(*rows: tuple[int, int, int]) -> Regions:
    """Rows are (label, start, end)."""
    return regions(*((label, 1.0, start, end) for label, start, end in rows), width=2)


NO_BOX, NO_SPAN = regions(), spans()


def scene(rng: np.random.Generator, n_labels: int) -> tuple[Regions, Regions]:
    """A picture with up to six boxes and up to twelve found ones: shaken copies, doubles, wrong labels and inventions."""
    n, m = int(rng.integers(0, 7)), int(rng.integers(0, 13))
    where = np.concatenate([rng.uniform(0, 0.6, (n, 2)), rng.uniform(0.05, 0.4, (n, 2))], axis=1)
    labels = rng.integers(0, n_labels, n)
    found = np.concatenate([rng.uniform(0, 0.6, (m, 2)), rng.uniform(0.05, 0.4, (m, 2))], axis=1)
    said = rng.integers(0, n_labels, m)
    if n:
        source = rng.integers(0, n, m)
        is_near = rng.random(m) < 0.7
        found[is_near] = where[source[is_near]] * rng.uniform(0.85, 1.15, (int(is_near.sum()), 4))
        said[is_near] = labels[source[is_near]]
    scores = np.round(rng.random(m), 1)  # with equals, which the order of the pictures decides
    return (
        Regions(where.astype(np.float32), labels.astype(np.int64), np.ones(n, np.float32)),
        Regions(found.astype(np.float32), said.astype(np.int64), scores.astype(np.float32)),
    )


def coco_map(truth: list[Regions], found: list[Regions], n_labels: int, iou: float) -> float:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def rows(said: list[Regions]) -> list[dict[str, Any]]:
        return [
            {"image_id": i + 1, "category_id": int(label) + 1, "bbox": [float(v) for v in box], "score": float(score)}
            for i, one in enumerate(said)
            for box, label, score in zip(one.where, one.labels, one.scores, strict=True)
        ]

    true = COCO()
    true.dataset = {
        "images": [{"id": i + 1} for i in range(len(truth))],
        "categories": [{"id": k + 1} for k in range(n_labels)],
        "annotations": [
            row | {"id": j + 1, "iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3]} for j, row in enumerate(rows(truth))
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        true.createIndex()
        judge = COCOeval(true, true.loadRes(rows(found)), "bbox")
        judge.params.iouThrs = np.array([iou])
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e5**2]], ["all"]
        judge.params.maxDets = [100]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][0, :, :, 0, 0]
    return float(precision[precision > -1].mean())


@pytest.mark.parametrize("iou", [0.3, 0.5, 0.75])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mean_average_precision_is_that_of_pycocotools(seed: int, iou: float) -> None:
    rng = np.random.default_rng(seed)
    pairs = [scene(rng, n_labels=4) for _ in range(40)]
    truth, found = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    mine = mean_average_precision(truth, found, 4, iou)
    assert mine == pytest.approx(coco_map(truth, found, 4, iou), abs=1e-6)
    assert 0.02 < mine < 0.95  # a scene in which there is something to tell apart


def test_only_the_hundred_best_of_a_label_in_a_picture_count() -> None:
    many = [(0, 0.9, 0.8, 0.8, 0.1, 0.1)] * 100 + [(0, 0.5, 0.0, 0.0, 0.2, 0.2)]
    truth, found = [regions((0, 1, 0.0, 0.0, 0.2, 0.2))], [regions(*many)]
    assert mean_average_precision(truth, found, 1) == pytest.approx(coco_map(truth, found, 1, 0.5)) == 0.0


BOX = (0, 1.0, 0.1, 0.1, 0.2, 0.2)


@pytest.mark.parametrize(
    ("truth", "found", "value"),
    [
        ([regions(BOX)], [regions(BOX)], 1.0),
        ([regions(BOX)], [NO_BOX], 0.0),
        ([NO_BOX], [NO_BOX], 1.0),
        ([NO_BOX], [regions(BOX)], 0.0),
        ([regions(BOX)], [regions((1, 1.0, 0.1, 0.1, 0.2, 0.2))], 0.0),
        ([regions(BOX)], [regions((1, 1.0, 0.1, 0.1, 0.2, 0.2), BOX)], 1.0),  # a label that is nowhere true does not count
        ([regions(BOX)], [regions(BOX, (0, 0.9, 0.1, 0.1, 0.2, 0.2))], 1.0),  # the double comes after full recall
        ([regions(BOX)], [regions((0, 0.9, 0.7, 0.7, 0.1, 0.1), (0, 0.4, *BOX[2:]))], 0.5),
        ([regions(BOX), regions(BOX)], [regions(BOX), NO_BOX], 51 / 101),
    ],
)
def test_average_precision_by_hand(truth: list[Regions], found: list[Regions], value: float) -> None:
    assert mean_average_precision(truth, found, 2) == pytest.approx(value)


def test_overlaps_of_boxes_and_spans_by_hand() -> None:
    boxes = np.array([[0, 0, 2, 2], [1, 1, 2, 2], [5, 5, 1, 1], [0, 0, 0, 0]])
    assert overlaps(boxes, boxes[:2]) == pytest.approx(np.array([[1, 1 / 7], [1 / 7, 1], [0, 0], [0, 0]]))
    assert overlaps(np.array([[0, 4]]), np.array([[2, 6], [4, 6], [0, 4]])) == pytest.approx(np.array([[1 / 3, 0, 1]]))


def test_span_f1_is_that_of_the_example_of_seqeval() -> None:
    # its README: O O O B-MISC I-MISC I-MISC O / B-PER I-PER O, said O O B-MISC I-MISC I-MISC I-MISC O / B-PER I-PER O
    assert span_f1([spans((0, 3, 6)), spans((1, 0, 2))], [spans((0, 2, 6)), spans((1, 0, 2))]) == 0.5


@pytest.mark.parametrize(
    ("truth", "found", "value"),
    [
        (spans((0, 0, 3), (1, 5, 9)), spans((0, 0, 3), (1, 5, 9)), 1.0),
        (spans((0, 0, 3)), spans((1, 0, 3)), 0.0),  # another label
        (spans((0, 0, 3)), spans((0, 0, 3), (0, 0, 3)), 2 / 3),  # said twice is right once
        (spans((0, 0, 3), (1, 5, 9)), spans((0, 0, 3)), 2 / 3),
        (NO_SPAN, NO_SPAN, 1.0),
        (NO_SPAN, spans((0, 0, 3)), 0.0),
        (spans((0, 0, 3)), NO_SPAN, 0.0),
    ],
)
def test_span_f1_by_hand(truth: Regions, found: Regions, value: float) -> None:
    assert span_f1([truth], [found]) == pytest.approx(value)
    assert item_f1([truth], [found]) == pytest.approx([value])


def test_f1_of_boxes_counts_regions_over_all_items() -> None:
    near = regions((0, 0.9, 0.12, 0.1, 0.2, 0.2))
    assert region_f1([regions(BOX), regions(BOX, (1, 1, 0.5, 0.5, 0.2, 0.2))], [near, NO_BOX]) == pytest.approx(2 / 4)
    assert item_f1([regions(BOX), regions(BOX), NO_BOX], [near, NO_BOX, NO_BOX]).tolist() == [1.0, 0.0, 1.0]


def test_the_more_confident_of_two_found_boxes_takes_the_true_one() -> None:
    said = regions((0, 0.3, *BOX[2:]), (0, 0.8, 0.12, 0.1, 0.2, 0.2))
    assert agree(regions(BOX), said).tolist() == [-1, 0]


@pytest.mark.parametrize(
    ("truth", "found", "counts"),
    [
        (regions(BOX), regions((0, 0.6, 0.12, 0.1, 0.2, 0.2)), (0, 0, 0)),
        (regions(BOX), regions((1, 0.9, *BOX[2:])), (1, 0, 0)),  # the label is changed
        (regions(BOX), regions((0, 0.9, 0.2, 0.2, 0.2, 0.2)), (1, 0, 0)),  # the outline is changed
        (regions(BOX), regions((0, 0.9, 0.7, 0.7, 0.1, 0.1)), (0, 1, 1)),  # nothing of it is of use
        (regions(BOX), NO_BOX, (0, 1, 0)),
        (NO_BOX, regions(BOX), (0, 0, 1)),
        (spans((0, 0, 4), (1, 6, 9)), spans((0, 0, 5), (1, 6, 9), (0, 20, 22)), (1, 0, 1)),
    ],
)
def test_corrections_by_hand(truth: Regions, found: Regions, counts: tuple[int, int, int]) -> None:
    done = corrections([truth], [found])
    assert tuple(done[:3]) == counts
    assert done.n_true == len(truth.labels)
    assert done.per_100 == pytest.approx(100 * sum(counts) / max(len(truth.labels), 1))


@pytest.mark.parametrize(
    ("truth", "found", "names"),
    [
        ([], [], "0 items are true and 0 found"),
        ([NO_BOX], [], "1 items are true and 0 found"),
        ([NO_BOX], [NO_SPAN], r"widths \[2, 4\]"),
        ([Regions(np.zeros((0, 3), np.float32), NO_BOX.labels, NO_BOX.scores)], [NO_BOX], r"widths \[3, 4\]"),
        ([regions((2, 1, *BOX[2:]))], [NO_BOX], "label 2, allowed is 0 to 1"),
        ([NO_BOX], [regions((5, 1, *BOX[2:]))], "label 5, allowed is 0 to 1"),
    ],
)
def test_bad_input_is_refused_by_name(truth: list[Regions], found: list[Regions], names: str) -> None:
    with pytest.raises(InvalidInputError, match=names):
        mean_average_precision(truth, found, 2)


def test_overlaps_of_mixed_shapes_are_refused() -> None:
    flat: NDArray[np.float64] = np.zeros(4)
    for first, second in ((np.zeros((1, 4)), np.zeros((1, 2))), (flat, flat), (np.zeros((1, 3)), np.zeros((1, 3)))):
        with pytest.raises(InvalidInputError, match="give boxes"):
            overlaps(first, second)
