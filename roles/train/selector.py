"""The model selector: which checkpoint of a run becomes its model.

Owns one pure decision. Must never read a file. Called by the training child after the last step.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from labelloop.errors import InvalidInputError


class Candidate(msgspec.Struct, frozen=True):
    """One checkpoint judged on the held-out part: `score` (accuracy, [0, 1], high is good), `loss` (log loss, low is good)."""

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
