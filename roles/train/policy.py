"""The training policy: when does a task train next, and may labelling stop?

Owns two pure decisions over a frozen view. Must never read a clock, file or queue. Called by the sweep, which acts, and by
`progress`, which shows the reason.
"""

from __future__ import annotations

import enum
import math

import msgspec

from roles.train.comparer import Comparison


class Decision(enum.Enum):
    """What to do about the next training of a task."""

    TRAIN = "train"
    WAIT = "wait"
    REST = "rest"
    RUNNING = "running"
    BLOCKED = "blocked"


class PolicyView(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy sees of one task.

    `labels`: merged labels usable for training; `classes`: different labels among those outside the held-out part;
    `held_out`: labels in the held-out part; `new_labels`: items whose label came or changed since the last run began;
    `last_labels`: labels of that run, 0 = none yet; `live_run`: run that is queued or running, 0 = none;
    `blocked`: why nothing can train now ('' = it can); `stalled`: why submitted labels do not arrive ('' = they do).
    """

    labels: int
    classes: int
    held_out: int
    new_labels: int
    last_labels: int
    live_run: int = 0
    comparison: Comparison = Comparison.RETRAIN
    comparison_reason: str = ""
    blocked: str = ""
    stalled: str = ""
    budget: int = 0
    retrain_labels: int = 0
    first_labels: int = 20
    growth: float = 0.1
    least_new_labels: int = 10


def threshold(view: PolicyView) -> int:
    """Return how many new labels start the next training."""
    if view.last_labels == 0:
        return view.first_labels
    if view.retrain_labels:
        return view.retrain_labels
    return max(view.least_new_labels, math.ceil(round(view.growth * view.last_labels, 9)))


def labels_to_next(view: PolicyView) -> int:
    """Return how many labels are missing until the next threshold, 0 = it is reached."""
    return max(0, threshold(view) - view.new_labels)


def _is_last_of_budget(view: PolicyView) -> bool:
    return 0 < view.budget <= view.labels and view.last_labels < view.budget and view.new_labels > 0


def why_not_trainable(view: PolicyView) -> str | None:
    """Return what the labels lack for any training at all, None when they suffice."""
    if view.classes < 2:
        return f"blocked: labels of at least 2 classes are needed, {view.classes} seen so far"
    if view.held_out < 1:
        return "blocked: no labelled item is in the held-out part yet, label a few more"
    return None


def next_training(view: PolicyView) -> tuple[Decision, str]:
    """Return what to do now and the sentence that says why."""
    if view.live_run:
        return (Decision.BLOCKED, view.blocked) if view.blocked else (Decision.RUNNING, f"training now: run {view.live_run}")
    missing = labels_to_next(view)
    is_last = _is_last_of_budget(view)
    if missing and not is_last and view.stalled:
        return Decision.BLOCKED, view.stalled
    if missing and not is_last:
        return Decision.WAIT, f"next training in {missing} label{'s' if missing > 1 else ''}"
    if reason := why_not_trainable(view):
        return Decision.BLOCKED, reason
    if view.last_labels and view.comparison is Comparison.REST:
        return Decision.REST, f"resting: {view.comparison_reason}"
    if view.blocked:
        return Decision.BLOCKED, view.blocked
    if is_last:
        return Decision.TRAIN, f"budget of {view.budget} labels reached: last training on all {view.labels} labels"
    if not view.last_labels:
        return Decision.TRAIN, f"first training: {view.labels} labels of {view.classes} classes"
    return Decision.TRAIN, f"{view.new_labels} new labels since the last training ({view.comparison_reason})"


def stop_reason(view: PolicyView) -> str:
    """Return why labelling may stop, '' = go on."""
    if 0 < view.budget <= view.labels:
        return f"budget reached: {view.labels} of {view.budget} labels"
    if view.last_labels and view.comparison is Comparison.REST:
        return view.comparison_reason
    return ""
