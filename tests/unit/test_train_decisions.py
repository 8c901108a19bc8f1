"""Policy, comparer and selector: tables of frozen view -> (decision, reason)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from labelloop.errors import InvalidInputError
from roles.train.comparer import ComparerView, Comparison, DraftedLabel, agreement, compare
from roles.train.policy import Decision, PolicyView, labels_to_next, next_training, stop_reason
from roles.train.selector import Candidate, best_checkpoint

BEGUN = PolicyView(labels=110, classes=10, held_out=20, new_labels=10, last_labels=100, growth=0.1, least_new_labels=10)
EMPTY = PolicyView(labels=0, classes=0, held_out=0, new_labels=0, last_labels=0)
REST = {"comparison": Comparison.REST, "comparison_reason": "target reached: 48 of the last 50 drafts were right"}


def but(view: PolicyView, **changes: Any) -> PolicyView:
    return msgspec.structs.replace(view, **changes)


@pytest.mark.parametrize(
    ("view", "decision", "reason"),
    [
        (EMPTY, Decision.WAIT, "next training in 20 labels"),
        (but(EMPTY, labels=6, new_labels=6, classes=3, held_out=1), Decision.WAIT, "next training in 14 labels"),
        (but(EMPTY, labels=19, new_labels=19, classes=3, held_out=1), Decision.WAIT, "next training in 1 label"),
        (
            but(EMPTY, labels=20, new_labels=20, classes=1, held_out=4),
            Decision.BLOCKED,
            "blocked: labels of at least 2 classes are needed, 1 seen so far",
        ),
        (
            but(EMPTY, labels=20, new_labels=20, classes=4, held_out=0),
            Decision.BLOCKED,
            "blocked: no labelled item is in the held-out part yet, label a few more",
        ),
        (
            but(EMPTY, labels=20, new_labels=20, classes=4, held_out=4),
            Decision.TRAIN,
            "first training: 20 labels of 4 classes",
        ),
        (
            but(EMPTY, labels=20, new_labels=20, classes=4, held_out=4, blocked="blocked: no train node online"),
            Decision.BLOCKED,
            "blocked: no train node online",
        ),
        (
            but(BEGUN, comparison_reason="target missed: x"),
            Decision.TRAIN,
            "10 new labels since the last training (target missed: x)",
        ),
        (but(BEGUN, new_labels=9), Decision.WAIT, "next training in 1 label"),
        (
            but(EMPTY, labels=6, new_labels=6, weak_labels=900, new_weak=900, classes=3, held_out=1),
            Decision.TRAIN,
            "first training: 6 labels and 900 by rules of 3 classes",
        ),
        (
            but(EMPTY, labels=6, new_labels=6, weak_labels=900, new_weak=900, classes=3, held_out=0),
            Decision.BLOCKED,
            "blocked: versions are judged on labels by people, and none is in the held-out part yet: label a few more items",
        ),
        (
            but(BEGUN, new_labels=2, new_weak=500, weak_labels=500, comparison_reason="y"),
            Decision.TRAIN,
            "2 new labels and 500 by rules since the last training (y)",
        ),
        (but(BEGUN, new_labels=2, new_weak=500, waiting=3), Decision.WAIT, "next training in 8 labels"),
        (but(BEGUN, new_labels=2, new_weak=9), Decision.WAIT, "next training in 8 labels"),
        (
            but(BEGUN, new_labels=9, weak_labels=900, budget=110),
            Decision.TRAIN,
            "budget of 110 labels reached: last training on all 110 labels",
        ),
        (but(BEGUN, new_labels=2, weak_labels=900, budget=111), Decision.WAIT, "next training in 8 labels"),
        (but(BEGUN, new_labels=9, stalled="blocked: no data worker answers"), Decision.BLOCKED, "blocked: no data worker answers"),
        (but(BEGUN, stalled="blocked: x", comparison_reason="y"), Decision.TRAIN, "10 new labels since the last training (y)"),
        (but(BEGUN, last_labels=500, new_labels=49), Decision.WAIT, "next training in 1 label"),
        (but(BEGUN, last_labels=30, new_labels=3), Decision.WAIT, "next training in 7 labels"),
        (but(BEGUN, retrain_labels=25), Decision.WAIT, "next training in 15 labels"),
        (but(BEGUN, live_run=4), Decision.RUNNING, "training now: run 4"),
        (
            but(BEGUN, live_run=4, blocked="blocked: no train worker takes run 4"),
            Decision.BLOCKED,
            "blocked: no train worker takes run 4",
        ),
        (but(BEGUN, **REST), Decision.REST, "resting: target reached: 48 of the last 50 drafts were right"),
        (but(BEGUN, new_labels=3, labels=103, **REST), Decision.WAIT, "next training in 7 labels"),
        (
            but(BEGUN, labels=103, new_labels=3, budget=103),
            Decision.TRAIN,
            "budget of 103 labels reached: last training on all 103 labels",
        ),
        (but(BEGUN, labels=103, new_labels=3, last_labels=103, budget=103), Decision.WAIT, "next training in 8 labels"),
    ],
)
def test_the_policy_says_what_to_do_and_why(view: PolicyView, decision: Decision, reason: str) -> None:
    assert next_training(view) == (decision, reason)


def test_labels_to_next_never_goes_below_zero() -> None:
    assert labels_to_next(but(BEGUN, new_labels=40)) == 0


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        (BEGUN, ""),
        (but(BEGUN, budget=111), ""),
        (but(BEGUN, budget=110), "budget reached: 110 of 110 labels"),
        (but(BEGUN, **REST), "target reached: 48 of the last 50 drafts were right"),
        (but(BEGUN, last_labels=0, **REST), ""),
    ],
)
def test_labelling_stops_at_target_or_budget_with_the_reason(view: PolicyView, reason: str) -> None:
    assert stop_reason(view) == reason


def drafted(version: str, n_right: int, n_wrong: int) -> tuple[DraftedLabel, ...]:
    right = DraftedLabel(version=version, draft=("a",), labels=("a",))
    wrong = DraftedLabel(version=version, draft=("a",), labels=("b",))
    return (wrong,) * n_wrong + (right,) * n_right


@pytest.mark.parametrize(
    ("labels", "is_on", "serving", "comparison", "reason"),
    [
        (drafted("v1", 10, 0), True, "", Comparison.RETRAIN, "no version serves yet: nothing to compare with"),
        (drafted("v1", 9, 0), True, "v1", Comparison.RETRAIN, "too few drafted labels to judge v1: 9 of 10"),
        (drafted("v0", 30, 0), True, "v1", Comparison.RETRAIN, "too few drafted labels to judge v1: 0 of 10"),
        (
            drafted("v1", 8, 2),
            True,
            "v1",
            Comparison.RETRAIN,
            "target missed: 8 of the last 10 drafts were right (80.0%), target 90.0%",
        ),
        (
            drafted("v1", 9, 1),
            True,
            "v1",
            Comparison.REST,
            "target reached: 9 of the last 10 drafts were right (90.0%), target 90.0%",
        ),
        (
            drafted("v1", 10, 40),
            True,
            "v1",
            Comparison.REST,
            "target reached: 10 of the last 10 drafts were right (100.0%), target 90.0%",
        ),
        (drafted("v1", 10, 0), False, "v1", Comparison.RETRAIN, "comparer is switched off: every threshold retrains"),
    ],
)
def test_the_comparer_retrains_only_when_the_target_is_missed(
    labels: tuple[DraftedLabel, ...], is_on: bool, serving: str, comparison: Comparison, reason: str
) -> None:
    view = ComparerView(drafted=labels, serving=serving, target=0.9, window=10, is_on=is_on)
    assert compare(view) == (comparison, reason)


def test_a_multilabel_draft_is_right_only_as_a_whole_set_in_any_order() -> None:
    labels = (
        DraftedLabel(version="v", draft=("a", "b"), labels=("b", "a")),
        DraftedLabel(version="v", draft=("a",), labels=("a", "b")),
        DraftedLabel(version="v", draft=(), labels=()),
    )
    found = agreement(ComparerView(drafted=labels, serving="v", target=0.9, window=10, is_on=True))
    assert (found.right, found.n) == (2, 3)


@pytest.mark.parametrize(
    ("candidates", "step"),
    [
        ([Candidate(5, 0.5, 1.0)], 5),
        ([Candidate(5, 0.9, 1.0), Candidate(10, 0.8, 0.1)], 5),
        ([Candidate(5, 0.9, 1.0), Candidate(10, 0.9, 0.5), Candidate(15, 0.9, 0.7)], 10),
        ([Candidate(5, 0.9, 0.5), Candidate(10, 0.9, 0.5)], 10),
    ],
)
def test_the_selector_takes_the_best_on_the_held_out_part(candidates: list[Candidate], step: int) -> None:
    best, reason = best_checkpoint(candidates)
    assert best.step == step
    assert f"step {step}" in reason


def test_the_selector_refuses_a_run_without_checkpoint() -> None:
    with pytest.raises(InvalidInputError, match="no checkpoint"):
        best_checkpoint([])
