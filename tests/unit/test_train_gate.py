"""The gate: tables of frozen view -> (decision, reason)."""

from __future__ import annotations

import pytest

from roles.train.gate import Gate, GateView, judge


def view(old: str, new: str, serving: str = "v1", at_start: int = 1, now: int = 1, by_person: bool = False) -> GateView:
    return GateView(
        new_correct=tuple(c == "1" for c in new),
        old_correct=tuple(c == "1" for c in old),
        serving=serving,
        pointer_at_start=at_start,
        pointer=now,
        moved_by_person=by_person,
    )


@pytest.mark.parametrize(
    ("seen", "decision", "words"),
    [
        (view("", "10", serving=""), Gate.SERVE, "first version: 1 of 2 held-out items right"),
        (view("0000", "1111"), Gate.SERVE, "serves in place of v1, not worse"),
        (view("1010", "1010"), Gate.SERVE, "serves in place of v1, not worse"),
        (view("1" * 60, "0" * 20 + "1" * 40), Gate.KEEP, "kept, v1 goes on serving: worse"),
        (view("0" * 20, "1" * 20, at_start=1, now=2), Gate.SERVE, "serves in place of v1"),
        (
            view("0" * 20, "1" * 20, at_start=1, now=2, by_person=True),
            Gate.KEEP,
            "kept: a person chose v1 after this training began",
        ),
        (view("0" * 20, "1" * 20, at_start=2, now=2, by_person=True), Gate.SERVE, "serves in place of v1"),
    ],
)
def test_a_version_serves_only_when_it_is_not_worse_and_nobody_chose_another(seen: GateView, decision: Gate, words: str) -> None:
    decided, reason = judge(seen)
    assert decided is decision
    assert words in reason
