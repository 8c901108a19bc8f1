"""Metrics against scikit-learn or by hand, the gate's verdicts as a table, and the held-out rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from labelloop.errors import InvalidInputError
from learning.held_out import held_out_mask, is_held_out
from learning.metrics import accuracy, area_under_curve, correct, expected_calibration_error, macro_f1, paired_verdict


def one_hot(y: list[int], k: int) -> np.ndarray:
    return np.eye(k)[y]


def test_accuracy_counts_right_items_and_exact_matches_for_multilabel() -> None:
    assert accuracy([0, 1, 2, 2], one_hot([0, 1, 1, 2], 3)) == 0.75
    y = np.array([[1, 0], [1, 1], [0, 0]])
    assert accuracy(y, [[0.9, 0.1], [0.9, 0.4], [0.1, 0.2]]) == pytest.approx(2 / 3)
    assert correct(y, [[0.9, 0.1], [0.9, 0.4], [0.5, 0.2]]).tolist() == [True, False, False]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_macro_f1_equals_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    y, said = [p[0] for p in pairs], [p[1] for p in pairs]
    assert macro_f1(y, one_hot(said, 5)) == pytest.approx(f1_score(y, said, average="macro", zero_division=0))


def test_macro_f1_of_labels_equals_scikit_learn_over_the_labels_that_occur() -> None:
    rng = np.random.default_rng(0)
    y, proba = rng.integers(0, 2, (30, 4)), rng.random((30, 4))
    assert macro_f1(y, proba) == pytest.approx(f1_score(y, proba >= 0.5, average="macro"))
    assert macro_f1(np.zeros((3, 2), int), np.zeros((3, 2))) == 0.0


def test_calibration_error_is_zero_for_honest_and_large_for_boastful_answers() -> None:
    y = np.array([0] * 70 + [1] * 30)
    assert expected_calibration_error(y, np.tile([0.7, 0.3], (100, 1))) == pytest.approx(0, abs=1e-9)
    assert expected_calibration_error(y, np.tile([1.0, 0.0], (100, 1))) == pytest.approx(0.3)
    assert expected_calibration_error([[1, 0]], [[0.8, 0.2]]) == pytest.approx(0.2)


def test_area_is_the_mean_height_of_the_curve() -> None:
    assert area_under_curve([10, 20, 40], [0.5, 0.5, 0.5]) == pytest.approx(0.5)
    assert area_under_curve([0, 1], [0.0, 1.0]) == pytest.approx(0.5)
    assert area_under_curve([0, 1, 3], [0.0, 1.0, 1.0]) == pytest.approx(2.5 / 3)
    assert area_under_curve([7], [0.4]) == 0.4


@pytest.mark.parametrize(
    "call",
    [
        lambda: accuracy([], np.empty((0, 2))),
        lambda: macro_f1([], np.empty((0, 2))),
        lambda: expected_calibration_error([], np.empty((0, 2))),
        lambda: accuracy([0, 1], [[1.0, 0.0]]),
        lambda: accuracy([[0, 1, 1]], [[1.0, 0.0]]),
        lambda: area_under_curve([], []),
        lambda: area_under_curve([2, 1], [0.1, 0.2]),
        lambda: area_under_curve([1, 2], [0.1]),
        lambda: paired_verdict([True], [True, False]),
        lambda: is_held_out("a", 1.5),
        lambda: held_out_mask(["a"], -0.1),
    ],
)
def test_figures_of_nothing_or_of_unequal_things_are_refused(call: object) -> None:
    with pytest.raises(InvalidInputError):
        call()  # type: ignore[operator]


VERDICTS = [
    # both right, lost, gained, both wrong, not worse?, in the sentence
    (0, 0, 0, 0, True, "no held-out item"),
    (8, 0, 0, 2, True, "8 of 10"),
    (8, 0, 2, 0, True, "2 gained"),
    (9, 1, 0, 0, True, "1 lost"),  # one item of ten proves nothing
    (8, 2, 0, 0, False, "clear majority"),  # two of ten lost, none gained
    (6, 2, 1, 1, True, "1 gained"),  # a net loss of one
    (4, 4, 2, 0, False, "clear majority"),
    (38, 2, 0, 0, True, "2 lost"),  # a twentieth is below a tenth
    (195, 4, 0, 1, True, "4 lost"),  # p = 1/16
    (194, 5, 0, 1, False, "p = 0.0312 < 0.05"),  # p = 1/32
    (180, 10, 10, 0, True, "10 gained, 10 lost"),
    (150, 30, 15, 5, False, "p = 0.0"),
    (150, 15, 30, 5, True, "30 gained"),
    (0, 4000, 3900, 0, True, "not worse"),
    (0, 4000, 3000, 0, False, "worse"),
]


@pytest.mark.parametrize(("both", "lost", "gained", "neither", "is_not_worse", "words"), VERDICTS)
def test_the_gate_refuses_only_what_is_significantly_or_clearly_worse(
    both: int, lost: int, gained: int, neither: int, is_not_worse: bool, words: str
) -> None:
    old = [True] * both + [True] * lost + [False] * gained + [False] * neither
    new = [True] * both + [False] * lost + [True] * gained + [False] * neither
    verdict = paired_verdict(old, new)
    assert verdict.is_not_worse is is_not_worse
    assert words in verdict.reason


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=20), max_size=30), st.floats(0, 1))
def test_the_held_out_mask_is_the_rule_for_each_id(ids: list[str], share: float) -> None:
    assert held_out_mask(ids, share).tolist() == [is_held_out(item, share) for item in ids]


def test_held_out_items_are_a_stable_share_that_only_grows_with_the_share() -> None:
    ids = [f"item-{i}" for i in range(20_000)]
    fifth, third = held_out_mask(ids, 0.2), held_out_mask(ids, 0.33)
    assert fifth.mean() == pytest.approx(0.2, abs=0.01)
    assert not (fifth & ~third).any()
    assert not held_out_mask(ids, 0.0).any()
    assert held_out_mask(ids, 1.0).all()
    # for ever: another hash would train on what was held out
    assert [i for i in range(12) if is_held_out(f"item-{i}", 0.2)] == [0, 2]
