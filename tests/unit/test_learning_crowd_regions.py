"""Spans and boxes of several annotators: matched as people would, aggregated like items, refused by name when malformed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.crowd import METHODS
from learning.crowd.matching import consensus_outlines, match_regions, overlap
from learning.crowd.regions import aggregate_regions, crowd_regions


def test_overlap_is_intersection_over_union_of_spans_and_of_boxes() -> None:
    spans = overlap(np.array([[0.0, 10], [0, 4], [0, 4]]), np.array([[5.0, 15], [4, 8], [0, 4]]))
    np.testing.assert_allclose(spans, [5 / 15, 0, 1])
    boxes = overlap(np.array([[0.0, 0, 10, 10], [0, 0, 2, 2]]), np.array([[5.0, 5, 15, 15], [3, 0, 5, 2]]))
    np.testing.assert_allclose(boxes, [25 / 175, 0])


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 4), st.floats(0.05, 1.0), st.integers(0, 10**6))
def test_a_group_holds_one_region_a_worker_and_every_two_overlap_enough(
    n: int, n_items: int, n_workers: int, least: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    items, workers = rng.integers(0, n_items, n), rng.integers(0, n_workers, n)
    low = rng.integers(0, 12, (n, 2)).astype(float)
    outlines = np.concatenate([low, low + rng.integers(1, 8, (n, 2))], axis=1)
    groups = match_regions(items, workers, outlines, least)
    for group in range(groups.max() + 1):
        members = np.flatnonzero(groups == group)
        assert len(members) > 0
        assert len(set(items[members])) == 1
        assert len(set(workers[members])) == len(members)
        for a in members:
            assert (overlap(outlines[members], np.tile(outlines[a], (len(members), 1))) >= least).all()
    firsts = [items[groups == g][0] for g in range(groups.max() + 1)]
    assert firsts == sorted(firsts)


def test_equal_regions_of_all_workers_are_one_group_whatever_else_is_near() -> None:
    items = np.zeros(6, dtype=np.int64)
    workers = np.array([0, 1, 2, 0, 1, 2])
    outlines = np.array([[0, 10], [0, 10], [0, 10], [4, 14], [4, 14], [4, 14]], dtype=float)
    assert match_regions(items, workers, outlines, 0.3).tolist() == [0, 0, 0, 1, 1, 1]


def median_by_hand(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values, kind="stable")
    reached = 0.0
    for i in order:
        reached += weights[i]
        if reached >= weights.sum() / 2 * (1 - 1e-9):
            return float(values[i])
    raise AssertionError


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 10**6))
def test_a_consensus_outline_is_the_weighted_median_of_each_coordinate(n: int, n_groups: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = np.unique(rng.integers(0, n_groups, n), return_inverse=True)[1]
    outlines, weights = rng.integers(0, 20, (n, 4)).astype(float), rng.uniform(0.05, 1, n)
    got = consensus_outlines(groups, outlines, weights)
    for group in range(groups.max() + 1):
        own = groups == group
        assert got[group].tolist() == [median_by_hand(outlines[own, c], weights[own]) for c in range(4)]


def boxes_of(seed: int) -> tuple[dict[str, Any], NDArray[np.int64], NDArray[np.float64]]:
    """Six workers see 60 pictures of two boxes: five draw them a little off, miss some; the sixth draws at random."""
    rng = np.random.default_rng(seed)
    truth = np.array([[[10, 10, 40, 40], [60, 60, 95, 90]]] * 60, dtype=float) + rng.integers(0, 5, (60, 2, 1))
    kinds = rng.integers(0, 3, (60, 2))
    rows = []
    for item in range(60):
        for worker in range(6):
            for box in range(2):
                if worker == 5:
                    low = rng.integers(0, 60, 2)
                    rows.append([item, 5, rng.integers(0, 3), *low, *(low + rng.integers(5, 20, 2))])
                elif rng.random() > 0.15:
                    right = rng.random() < 0.85
                    kind = kinds[item, box] if right else rng.integers(0, 3)
                    rows.append([item, worker, kind, *(truth[item, box] + rng.integers(-2, 3, 4))])
    table = np.array(rows)
    looked = [(item, worker) for item in range(60) for worker in range(6)]
    whole = table[:, :3].astype(int)
    call = {"items": whole[:, 0], "workers": whole[:, 1], "classes": whole[:, 2], "outlines": table[:, 3:], "looked": looked}
    return call, kinds, truth


@pytest.mark.parametrize("method", METHODS)
def test_boxes_are_found_classed_and_outlined_and_the_careless_worker_shows(method: str) -> None:
    call, kinds, truth = boxes_of(1)
    got = aggregate_regions(method, crowd_regions(**call), options={"n_restarts": 2} if method == "mace" else {})
    kept = np.flatnonzero(got.is_kept)
    found = overlap(np.repeat(got.outlines[kept], 2, axis=0), truth[got.items[kept]].reshape(-1, 4)).reshape(-1, 2)
    assert (found.max(axis=1) > 0.8).mean() > 0.97, "what is kept is real"
    assert len(kept) >= 0.95 * 120
    real = kinds[got.items[kept], found.argmax(axis=1)]
    assert (got.classes[kept] == real)[found.max(axis=1) > 0.8].mean() > 0.93
    assert got.aggregation.quality[5] < got.aggregation.quality[:5].min()
    np.testing.assert_allclose(got.posteriors.sum(axis=1), 1)


def test_spans_are_kept_by_most_of_those_who_looked_and_end_where_somebody_ended_them() -> None:
    spans = crowd_regions(
        items=[0, 0, 0, 0, 1],
        workers=[0, 1, 2, 0, 0],
        classes=[1, 1, 0, 0, 1],
        outlines=[[3, 9], [3, 10], [2, 9], [20, 24], [0, 5]],
        looked=[(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)],
        n_classes=2,
    )
    got = aggregate_regions("majority", spans)
    assert got.items.tolist() == [0, 0, 1]
    assert got.groups.tolist() == [0, 0, 0, 1, 2]
    assert got.is_kept.tolist() == [True, False, False], "one of three is no span"
    assert got.outlines[0].tolist() == [3, 9]
    assert got.classes[0] == 1
    np.testing.assert_allclose(got.posteriors, [[1 / 3, 2 / 3, 0], [1 / 3, 0, 2 / 3], [0, 1 / 3, 2 / 3]])
    assert got.overlaps[0] == pytest.approx(1.0)
    assert got.overlaps[1] == pytest.approx(6 / 7)


def test_without_the_list_of_lookers_an_empty_page_says_nothing() -> None:
    alone = aggregate_regions("majority", crowd_regions([0, 1], [0, 1], [0, 0], [[0, 5], [0, 5]], n_workers=3))
    assert alone.is_kept.tolist() == [True, True]
    empty = aggregate_regions("dawid-skene", crowd_regions([], [], [], [], looked=[(0, 0), (0, 1)], n_classes=2))
    assert len(empty.items) == 0
    assert empty.posteriors.shape == (0, 3)


BAD_REGIONS: list[tuple[dict[str, Any], str]] = [
    ({"outlines": [[5, 5]]}, r"outline 0 is \[5.0, 5.0\]"),
    ({"outlines": [[0, float("nan")]]}, "must be finite"),
    ({"outlines": [[0, 0, 5, -1]]}, "above its start"),
    ({"outlines": [[0, 1, 2]]}, "for spans or"),
    ({"outlines": []}, "for spans or"),
    ({"workers": [0, 1]}, "one each per region"),
    ({"items": [-1]}, "items holds -1"),
    ({"classes": [4], "n_classes": 3}, "classes holds 4"),
    ({"looked": [(0, 0, 0)]}, "looked must be pairs"),
    ({"looked": [(0, 7)], "n_workers": 3}, "workers holds 7"),
]


@pytest.mark.parametrize(("change", "message"), BAD_REGIONS)
def test_malformed_regions_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    call = {"items": [0], "workers": [0], "classes": [0], "outlines": [[0, 4]], **change}
    with pytest.raises(InvalidInputError, match=message):
        crowd_regions(**call)


def test_an_overlap_outside_its_range_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="min_overlap"):
        aggregate_regions("majority", crowd_regions([0], [0], [0], [[0, 4]]), min_overlap=0.0)
