"""Agreement of people, against published examples and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from labelloop.errors import InvalidInputError
from learning.crowd.agreement import class_agreement, interval_alpha, mark_agreement

# Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), four observers, twelve units; 0 = no value
KRIPPENDORFF = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
)
# Fleiss' kappa, ten subjects, fourteen raters, five categories: kappa 0.210
FLEISS = np.array(
    [
        *([0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1]),
        *([7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]),
    ]
)


def rows_of(table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    workers, items = np.nonzero(table)
    return items, workers, table[workers, items] - 1


def test_alpha_is_that_of_the_published_example() -> None:
    items, workers, classes = rows_of(KRIPPENDORFF)
    assert class_agreement(items, workers, classes, 5).alpha == pytest.approx(0.743, abs=5e-4)
    assert interval_alpha(items, classes.astype(float)) == pytest.approx(0.849, abs=5e-4)


def test_fleiss_is_that_of_the_published_example() -> None:
    items, classes = np.repeat(np.indices(FLEISS.shape).reshape(2, -1), FLEISS.ravel(), axis=1)
    found = class_agreement(items, np.arange(len(items)) % 14, classes, 5)
    assert found.fleiss == pytest.approx(0.210, abs=5e-4)
    assert found.n_items == 10


def test_cohen_of_each_pair_is_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    said = rng.integers(0, 4, (3, 60))
    said[1] = np.where(rng.random(60) < 0.7, said[0], said[1])
    has = rng.random((3, 60)) < 0.8
    workers, items = np.nonzero(has)
    found = class_agreement(items, workers, said[workers, items], 4)
    assert found.pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    for (a, b), n, kappa, share in zip(found.pairs, found.pair_items, found.cohen, found.pair_share, strict=True):
        both = has[a] & has[b]
        assert n == both.sum()
        assert kappa == pytest.approx(cohen_kappa_score(said[a, both], said[b, both]))
        assert share == pytest.approx((said[a, both] == said[b, both]).mean())


def test_a_class_that_people_confuse_has_a_lower_alpha_than_one_they_do_not() -> None:
    items = np.repeat(np.arange(40), 2)
    classes = np.array([[0, 0], [1, 2], [2, 1], [1, 1]] * 10).ravel()
    found = class_agreement(items, np.tile([0, 1], 40), classes, 3)
    assert found.alpha_by_class[0] == 1.0 > found.alpha > found.alpha_by_class[2]


def test_nothing_to_compare_is_nan_and_no_error() -> None:
    alone = class_agreement([0, 1], [0, 1], [0, 1], 2)
    assert alone.n_items == 0 and math.isnan(alone.alpha) and math.isnan(alone.fleiss) and len(alone.pairs) == 0
    assert math.isnan(class_agreement([], [], [], 2).share)
    one_class = class_agreement([0, 0], [0, 1], [1, 1], 2)
    assert one_class.share == 1.0 and math.isnan(one_class.alpha) and math.isnan(one_class.cohen[0])
    assert math.isnan(interval_alpha([], []))


def test_marks_are_compared_by_overlap_and_class() -> None:
    boxes = [(0, 0, 2, 2), (4, 4, 6, 6), (0, 0, 2, 1), (4, 4, 6, 6), (8, 8, 9, 9)]
    looked = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    found = mark_agreement([0] * 5, [0, 0, 1, 1, 1], [0, 1, 0, 0, 0], boxes, looked, 2)
    assert found.n_items == 2
    assert found.iou == pytest.approx((0.5 + 1.0) / 2)
    assert found.f1 == pytest.approx(
        (2 / 5 + 1.0) / 2
    )  # item 0: one of five marks matched with its class, twice; item 1: both empty
    assert found.f1_by_class.tolist() == pytest.approx([2 / 4, 0.0])
    assert found.pairs.tolist() == [[0, 1]] and found.pair_items.tolist() == [2]
    assert math.isnan(mark_agreement([], [], [], [], [(0, 0)], 1).f1)


@pytest.mark.parametrize(
    ("items", "workers", "classes", "named"),
    [([0, 1], [0], [0, 0], "workers"), ([0], [0], [5], "class 5"), ([-1], [0], [0], "items"), ([0.5], [0], [0], "items")],
)
def test_opinions_of_a_wrong_form_are_refused_by_name(
    items: list[float], workers: list[int], classes: list[int], named: str
) -> None:
    with pytest.raises(InvalidInputError, match=named):
        class_agreement(items, workers, classes, 2)
