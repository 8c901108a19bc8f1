"""The comparer: does the project's target still need a new training?

Owns one pure decision over a frozen view. Must never read a clock, file or queue. Called by the sweep and the policy's view.
It measures what annotators feel: how often the draft, made before the label, was already right.
"""

from __future__ import annotations

import enum

import msgspec


class Comparison(enum.Enum):
    """What the comparer wants."""

    RETRAIN = "retrain"
    REST = "rest"


class DraftedLabel(msgspec.Struct, frozen=True):
    """One label given to an item that showed a draft: the draft's `version` and labels, and what the person answered."""

    version: str
    draft: tuple[str, ...]
    labels: tuple[str, ...]


class ComparerView(msgspec.Struct, frozen=True, kw_only=True):
    """What the comparer sees. `drafted`: newest last; `target` in (0, 1]; `window`: how many labels it measures over."""

    drafted: tuple[DraftedLabel, ...]
    serving: str
    target: float
    window: int
    is_on: bool


class Agreement(msgspec.Struct, frozen=True):
    """`right` of `n` drafts of the serving version were left as they were."""

    right: int
    n: int

    @property
    def share(self) -> float | None:
        """The share in [0, 1]; None without a drafted label."""
        return self.right / self.n if self.n else None


def agreement(view: ComparerView) -> Agreement:
    """Return how often the serving version's drafts were right over the newest `window` labels that showed one.

    Labels of a multilabel item agree only when the whole set does; their order says nothing.
    """
    newest = [one for one in reversed(view.drafted) if one.version == view.serving][: view.window]
    return Agreement(right=sum(set(one.draft) == set(one.labels) for one in newest), n=len(newest))


def compare(view: ComparerView) -> tuple[Comparison, str]:
    """Return whether the target asks for a training, and the sentence with its figures.

    Too few drafted labels prove nothing, so they retrain.
    """
    if not view.is_on:
        return Comparison.RETRAIN, "comparer is switched off: every threshold retrains"
    if not view.serving:
        return Comparison.RETRAIN, "no version serves yet: nothing to compare with"
    found = agreement(view)
    if found.n < view.window:
        return Comparison.RETRAIN, f"too few drafted labels to judge {view.serving}: {found.n} of {view.window}"
    share = found.right / found.n
    figures = f"{found.right} of the last {found.n} drafts were right ({share:.1%}), target {view.target:.1%}"
    if share < view.target:
        return Comparison.RETRAIN, f"target missed: {figures}"
    return Comparison.REST, f"target reached: {figures}"
