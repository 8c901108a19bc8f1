"""The baselines that `bench detection` measures beside box-head are honest: they find what they can find."""

from __future__ import annotations

import numpy as np

from learning.feature_map import parse_layout
from learning.metrics_regions import mean_average_precision, overlaps
from learning.regions import Regions
from scripts.detection_baselines import find_windows, fit_windows, usual_box


def test_the_usual_box_is_the_most_frequent_class_in_the_mean_place() -> None:
    one = Regions(np.array([[0, 0, 0.2, 0.4], [0.5, 0.5, 0.4, 0.2]], np.float32), np.array([1, 1]), np.ones(2, np.float32))
    other = Regions(np.array([[0.25, 0.25, 0.3, 0.3]], np.float32), np.array([0]), np.ones(1, np.float32))
    found = usual_box([one, other], 3)
    assert len(found) == 3
    assert found[0].labels.tolist() == [1]
    np.testing.assert_allclose(found[0].where, [[0.25, 0.25, 0.3, 0.3]], atol=1e-6)


def test_sliding_windows_find_about_where_patches_stand_out() -> None:
    rng = np.random.default_rng(0)
    levels = parse_layout("3x16x16+2x8x8")

    def make(n: int) -> tuple[np.ndarray, list[Regions]]:
        fine, coarse, truth = rng.normal(0, 0.2, (n, 3, 16, 16)), rng.normal(0, 0.2, (n, 2, 8, 8)), []
        for row in range(n):
            top, left, label = int(rng.integers(0, 6)), int(rng.integers(0, 6)), int(rng.integers(2))
            fine[row, label, 2 * top : 2 * top + 6, 2 * left : 2 * left + 6] += 2
            coarse[row, label, top : top + 3, left : left + 3] += 2
            where = np.array([[left / 8, top / 8, 3 / 8, 3 / 8]], np.float32)
            truth.append(Regions(where, np.array([label]), np.ones(1, np.float32)))
        return np.concatenate([fine.reshape(n, -1), coarse.reshape(n, -1)], axis=1).astype(np.float32), truth

    x, truth = make(20)
    test_x, test_truth = make(20)
    found = find_windows(fit_windows(x, truth, levels, 2, seed=0), test_x)
    assert mean_average_precision(test_truth, found, 2, iou=0.3) > 0.5
    best = [overlaps(one.where[:1], true.where)[0, 0] for one, true in zip(found, test_truth, strict=True)]
    assert float(np.mean(best)) > 0.4
