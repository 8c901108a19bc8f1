"""The pure rules of a cycle that the cluster's trainings follow too: which checkpoint, and does the target need a new model?

Must never read a clock, file or queue, or import numpy: a process that only decides stays light. Called by
`learning.cycle.selection` and `learning.cycle.comparison`, and by roles.train under the names `selector` and `comparer`.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec

from labelloop.errors import InvalidInputError


class Candidate(msgspec.Struct, frozen=True):
    """One checkpoint judged on the held-out part: `score` in [0, 1], high is good (accuracy, mAP50 or span F1), `loss`, low is good
    (log loss; of regions 1 - F1)."""

    step: int
    score: float
    loss: float


def best_checkpoint(candidates: Sequence[Candidate]) -> tuple[Candidate, str]:
    """Return the candidate with the highest held-out score; ties go to the lower loss, then to the later step.

    Raises InvalidInputError without a candidate.
    """
    if not candidates:
        raise InvalidInputError("no checkpoint to choose from: a run judges at least its last step")
    best = max(candidates, key=lambda one: (one.score, -one.loss, one.step))
    last = max(candidates, key=lambda one: one.step)
    if best == last:
        return best, f"step {best.step}, the last of {len(candidates)} judged, is the best on the held-out part ({best.score:.1%})"
    return (
        best,
        f"step {best.step} of {last.step} is the best on the held-out part ({best.score:.1%}, the last has {last.score:.1%})",
    )


class Comparison(enum.Enum):
    """What the comparer wants."""

    RETRAIN = "retrain"
    REST = "rest"


class Agreement(msgspec.Struct, frozen=True):
    """`right` of `n` drafts of the serving version were left as they were; a draft of regions counts by its F1 in [0, 1]."""

    right: float
    n: int
    is_of_regions: bool = False

    @property
    def share(self) -> float | None:
        """The share in [0, 1]; None without a drafted label."""
        return self.right / self.n if self.n else None

    @property
    def figures(self) -> str:
        """What was counted of one draft or more, for people."""
        if self.is_of_regions:
            return f"the regions of the last {self.n} drafts agreed by {self.right / self.n:.1%} (F1)"
        return f"{self.right:g} of the last {self.n} drafts were right ({self.right / self.n:.1%})"


def compare_agreement(found: Agreement, serving: str, target: float, window: int) -> tuple[Comparison, str]:
    """Return whether `target` in (0, 1] asks for a training, and the sentence with its figures.

    found: over the newest labels that showed a draft of `serving`, counted until they are `window` or more. Too few prove nothing,
    so they retrain.
    """
    if found.n < window:
        return Comparison.RETRAIN, f"too few drafted labels to judge {serving}: {found.n} of {window}"
    share = found.right / found.n
    figures = f"{found.figures}, target {target:.1%}"
    if share < target:
        return Comparison.RETRAIN, f"target missed: {figures}"
    return Comparison.REST, f"target reached: {figures}"
