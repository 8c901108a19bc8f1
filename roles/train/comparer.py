"""The comparer: does the project's target still need a new training?

Owns the view and what of it counts; the rule is `learning.cycle.rules`, shared with cycles that run without a cluster. Must never
read a clock, file or queue. Called by the sweep and the policy's view. It measures what annotators feel: how often the draft, made
before the label, was already right; of boxes and spans, how many were (F1 of an item: boxes agree from an overlap of 0.5 up, spans
when both ends are the same).
"""

from __future__ import annotations

import functools

import msgspec

from labelloop.messages import Region
from learning.cycle.rules import Agreement, Comparison, compare_agreement
from learning.metrics_regions import item_f1
from roles.regions import to_arrays

__all__ = ["Agreement", "Comparison", "ComparerView", "DraftedLabel", "agreement", "compare"]


class DraftedLabel(msgspec.Struct, frozen=True):
    """One label given to an item that showed a draft: the draft's `version` and labels, and what the person answered; the same of
    regions."""

    version: str
    draft: tuple[str, ...]
    labels: tuple[str, ...]
    draft_regions: tuple[Region, ...] = ()
    regions: tuple[Region, ...] = ()


class ComparerView(msgspec.Struct, frozen=True, kw_only=True):
    """What the comparer sees. `drafted`: newest last; `target` in (0, 1]; `window`: how many labels it measures over."""

    drafted: tuple[DraftedLabel, ...]
    serving: str
    target: float
    window: int
    is_on: bool


def agreement(view: ComparerView) -> Agreement:
    """Return how often the serving version's drafts were right over the newest `window` labels that showed one.

    Labels of a multilabel item agree only when the whole set does; their order says nothing.
    """
    newest = [one for one in reversed(view.drafted) if one.version == view.serving][: view.window]
    if any(one.draft_regions or one.regions for one in newest):
        return Agreement(sum(agreement_of(one.draft_regions, one.regions) for one in newest), len(newest), is_of_regions=True)
    return Agreement(right=sum(set(one.draft) == set(one.labels) for one in newest), n=len(newest))


@functools.lru_cache(maxsize=4096)
def agreement_of(draft: tuple[Region, ...], regions: tuple[Region, ...]) -> float:
    """Return the F1 of one draft in [0, 1]; 1 where neither has a region. Kept: every cycle asks for the same newest items."""
    both = (*draft, *regions)
    if not draft or not regions:
        return float(not both)
    number_of = {label: i for i, label in enumerate({one.label for one in both})}
    widths = {len(one.where) for one in both}
    if len(widths) > 1:
        return 0.0  # a draft of another kind than the label: nothing of it was of use
    width = widths.pop()
    return float(item_f1([to_arrays(regions, number_of, width)], [to_arrays(draft, number_of, width)])[0])


def compare(view: ComparerView) -> tuple[Comparison, str]:
    """Return whether the target asks for a training, and the sentence with its figures.

    Too few drafted labels prove nothing, so they retrain.
    """
    if not view.is_on:
        return Comparison.RETRAIN, "comparer is switched off: every threshold retrains"
    if not view.serving:
        return Comparison.RETRAIN, "no version serves yet: nothing to compare with"
    return compare_agreement(agreement(view), view.serving, view.target, view.window)
