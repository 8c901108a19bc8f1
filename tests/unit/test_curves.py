"""The simulator's arithmetic: areas, windows of corrections, the random reference."""

from __future__ import annotations

import numpy as np
import pytest

from learning.held_out import is_held_out
from scripts.curves import Reference, area, corrections_per_100, random_curve, summary
from scripts.samples import TEST_SHARE, is_test, load_sample


@pytest.mark.parametrize(
    ("curve", "expected"),
    [([], 0.0), ([[10, 0.5]], 0.5), ([[0, 0.0], [10, 1.0]], 0.5), ([[0, 1.0], [10, 1.0], [30, 0.0]], (10 + 10) / 30)],
)
def test_the_area_is_the_mean_height_by_trapezoids(curve: list[list[float]], expected: float) -> None:
    assert area(curve) == pytest.approx(expected)


def test_corrections_are_counted_in_runs_of_a_hundred() -> None:
    assert corrections_per_100([True] * 50 + [False] * 50 + [True] * 25 + [False] * 25 + [True] * 0) == [50.0, 50.0]
    assert corrections_per_100([True] * 110) == [100.0]


def test_the_test_fifth_is_fixed_and_independent_of_the_held_out_part() -> None:
    names = [f"item-{n}" for n in range(5000)]
    test = np.array([is_test(name) for name in names])
    held = np.array([is_held_out(name, 0.2) for name in names])
    assert abs(test.mean() - TEST_SHARE) < 0.02
    assert abs((test & held).mean() - 0.04) < 0.01


def test_the_random_reference_learns_and_is_the_same_each_time() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    x = (rng.normal(size=(400, 5)) + y[:, None] * 1.5).astype(np.float32)
    reference = Reference(x[:300], y[:300], [str(n) for n in range(300)], x[300:], y[300:], 2, "logistic-regression", {}, 0, 0.2)
    curve = random_curve(reference, [10, 200], seeds=3)
    assert curve == random_curve(reference, [10, 200], seeds=3)
    assert curve[1][1] > 0.9
    assert all(low <= mean <= high for _, mean, low, high in curve)


def test_the_summary_says_where_the_curve_lies() -> None:
    report = {"corrections_first_100": 5, "corrections_last_100": 1, "lost": 0, "doubled": 0, "versions": ["a"], "seconds": 1}
    band = [[10, 0.5, 0.4, 0.6], [20, 0.7, 0.6, 0.8]]
    assert "above its band" in summary(report | {"curve": [[10, 0.9], [20, 0.9]], "random_curve": band})
    assert "BELOW" in summary(report | {"curve": [[10, 0.1], [20, 0.1]], "random_curve": band})


def test_the_digits_are_whole_and_split(tmp_path: object) -> None:
    sample = load_sample("digits", tmp_path)  # type: ignore[arg-type]
    assert len(sample.items) == 1797
    assert len(sample.pool()) + len(sample.test()) == 1797
    assert sample.items[0].content.startswith(b"\x89PNG")
    assert sample.items[0].link.startswith("data:image/png;base64,")
