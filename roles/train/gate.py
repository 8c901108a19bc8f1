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
    promotion or rollback came between. For boxes and spans, which are hardly ever right throughout, `new_wrong` and `old_wrong`
    (n,) say how many corrections each item needs instead, and `new_score` and `old_score` in [0, 1] what `measure` says.
    """

    serving: str
    pointer_at_start: int
    pointer: int
    new_correct: tuple[bool, ...] = ()
    old_correct: tuple[bool, ...] = ()
    moved_by_person: bool = False
    measure: str = ""
    new_wrong: tuple[int, ...] = ()
    old_wrong: tuple[int, ...] = ()
    new_score: float = 0.0
    old_score: float = 0.0


def judge(view: GateView) -> tuple[Gate, str]:
    """Return whether the new version serves, and why."""
    if view.moved_by_person and view.pointer > view.pointer_at_start:
        return Gate.KEEP, f"kept: a person chose {view.serving} after this training began"
    if view.measure:
        return _judge_regions(view)
    n = len(view.new_correct)
    right = sum(view.new_correct)
    if not view.serving:
        return Gate.SERVE, f"first version: {right} of {n} held-out items right"
    verdict = paired_verdict(np.asarray(view.old_correct, dtype=bool), np.asarray(view.new_correct, dtype=bool))
    if verdict.is_not_worse:
        return Gate.SERVE, f"serves in place of {view.serving}, {verdict.reason}"
    return Gate.KEEP, f"kept, {view.serving} goes on serving: {verdict.reason}"


def _judge_regions(view: GateView) -> tuple[Gate, str]:
    """Refuse a version only when its score fell and more items need more corrections than chance explains."""
    new, old = np.asarray(view.new_wrong, dtype=np.int64), np.asarray(view.old_wrong, dtype=np.int64)
    if not view.serving:
        return Gate.SERVE, f"first version: {view.measure} {view.new_score:.3f} on {len(new)} held-out items"
    verdict = paired_verdict(old < new, new < old)
    facts = (
        f"{view.measure} {view.new_score:.3f}, before {view.old_score:.3f}; fewer corrections on {int((new < old).sum())} of "
        f"{len(new)} held-out items, more on {int((old < new).sum())}"
    )
    if verdict.is_not_worse or view.new_score >= view.old_score:
        return Gate.SERVE, f"serves in place of {view.serving}, not worse: {facts}"
    return Gate.KEEP, f"kept, {view.serving} goes on serving: worse: {facts}"
