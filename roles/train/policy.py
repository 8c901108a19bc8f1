"""The training policy: when does a task train next, and may labelling stop?

Owns two pure decisions over a frozen view. Must never read a clock, file or queue. Called by the sweep, which acts, and by
`progress`, which shows the reason.
"""

from __future__ import annotations

import enum
import math

import msgspec

from labelloop.messages import TaskSpec
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

    `labels`: merged labels usable for training; `classes`: different labels among those outside the held-out part, of which
    `fewest_classes` are needed;
    `held_out`: labels in the held-out part; `new_labels`: items whose label came or changed since the last run began;
    `last_labels`: labels of that run, 0 = none yet; `live_run`: run that is queued or running, 0 = none;
    `blocked`: why nothing can train now ('' = it can); `stalled`: why submitted labels do not arrive ('' = they do).

    All these count what people said, but for `classes`; `weak_labels` is how many labels rules or a crowd gave and `new_weak` how
    many of them came or changed since the last run began. `waiting`: batches not processed yet.
    """

    labels: int
    classes: int
    held_out: int
    new_labels: int
    last_labels: int
    fewest_classes: int = 2
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
    weak_labels: int = 0
    new_weak: int = 0
    waiting: int = 0


_NO_JUDGE = "blocked: versions are judged on labels by people, and none is in the held-out part yet: label a few more items"


def fewest_classes(spec: TaskSpec) -> int:
    """Return how many different labels a training needs: a region of one label stands out from its surroundings."""
    return 1 if spec.extra.kind == "regions" else 2


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


def is_weak_due(view: PolicyView) -> bool:
    """Return whether new labels by rules start a training: all that came count as one event, however many they are.

    A person applies rules to a whole pool; counted one by one its labels would train again and again while its batches come in, and
    raise the threshold for people's labels beyond reach.
    """
    return view.new_weak >= view.least_new_labels and not view.waiting


def _is_last_of_budget(view: PolicyView) -> bool:
    return 0 < view.budget <= view.labels and view.last_labels < view.budget and view.new_labels > 0


def why_not_trainable(view: PolicyView) -> str | None:
    """Return what the labels lack for any training at all, None when they suffice."""
    if view.classes < view.fewest_classes:
        if view.fewest_classes == 1:
            return "blocked: no region outside the held-out part is labelled yet, label a few more"
        return f"blocked: labels of at least {view.fewest_classes} classes are needed, {view.classes} seen so far"
    if view.held_out < 1:
        return _NO_JUDGE if view.weak_labels else "blocked: no labelled item is in the held-out part yet, label a few more"
    return None


def next_training(view: PolicyView) -> tuple[Decision, str]:
    """Return what to do now and the sentence that says why."""
    if view.live_run:
        return (Decision.BLOCKED, view.blocked) if view.blocked else (Decision.RUNNING, f"training now: run {view.live_run}")
    missing = labels_to_next(view)
    is_last = _is_last_of_budget(view)
    is_early = bool(missing) and not is_last and not is_weak_due(view)
    if is_early and view.stalled:
        return Decision.BLOCKED, view.stalled
    if is_early:
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
        by_rules = f" and {view.weak_labels} by rules" if view.weak_labels else ""
        return Decision.TRAIN, f"first training: {view.labels} labels{by_rules} of {view.classes} classes"
    by_rules = f" and {view.new_weak} by rules" if view.new_weak else ""
    return Decision.TRAIN, f"{view.new_labels} new labels{by_rules} since the last training ({view.comparison_reason})"


def stop_reason(view: PolicyView) -> str:
    """Return why labelling may stop, '' = go on."""
    if 0 < view.budget <= view.labels:
        return f"budget reached: {view.labels} of {view.budget} labels"
    if view.last_labels and view.comparison is Comparison.REST:
        return view.comparison_reason
    return ""
