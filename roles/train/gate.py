"""The gate: may a new version serve?

Owns one pure decision over the answers of two versions on the same held-out items. Must never load a model. Called by the
training child before it moves the pointer.
"""

from __future__ import annotations

import enum

import msgspec
import numpy as np

from learning.metrics import paired_verdict


class Gate(enum.Enum):
    """What happens to a new version."""

    SERVE = "serve"
    KEEP = "keep"


class GateView(msgspec.Struct, frozen=True, kw_only=True):
    """`new_correct` and `old_correct` (n,) bool in the same order of held-out items; `serving` '' = nothing serves.

    `pointer_at_start` is the pointer's number when the run began, `pointer` the one now, `moved_by_person` whether a
    promotion or rollback came between.
    """

    new_correct: tuple[bool, ...]
    old_correct: tuple[bool, ...]
    serving: str
    pointer_at_start: int
    pointer: int
    moved_by_person: bool = False


def judge(view: GateView) -> tuple[Gate, str]:
    """Return whether the new version serves, and why."""
    if view.moved_by_person and view.pointer > view.pointer_at_start:
        return Gate.KEEP, f"kept: a person chose {view.serving} after this training began"
    n = len(view.new_correct)
    right = sum(view.new_correct)
    if not view.serving:
        return Gate.SERVE, f"first version: {right} of {n} held-out items right"
    verdict = paired_verdict(np.asarray(view.old_correct, dtype=bool), np.asarray(view.new_correct, dtype=bool))
    if verdict.is_not_worse:
        return Gate.SERVE, f"serves in place of {view.serving}, {verdict.reason}"
    return Gate.KEEP, f"kept, {view.serving} goes on serving: {verdict.reason}"
