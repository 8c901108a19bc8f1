"""The comparer: is a new model needed, and is the new one better than the one that serves?

Owns the base class; its rules are the cluster's own (`learning.cycle.rules`, `learning.metrics.paired_verdict`). Must never read a
clock, file or queue. Called by `learning.cycle.cycle`. The first decision measures what annotators feel: how often the draft, made
before the label, was already right.
"""

from __future__ import annotations

from labelloop.errors import InvalidInputError
from learning.cycle.rules import Agreement, Comparison, compare_agreement
from learning.cycle.training import Batch, Predictor
from learning.metrics import correct, paired_verdict


class Comparer:
    """Compares by the drafts that people left as they were, and on the held-out part. Override either decision for another rule.

    `target`: share of right drafts in (0, 1] at which no new model is needed; 1 = always train. `window`: labels it is measured
    over.
    """

    def __init__(self, target: float = 1.0, window: int = 50) -> None:
        if not 0 < target <= 1 or window < 1:
            raise InvalidInputError(f"target must be in (0, 1] and window 1 or more, got {target} and {window}")
        self.target, self.window = target, window

    def is_needed(self, found: Agreement, serving: str) -> tuple[bool, str]:
        """Return whether a training is worth it now, and why. `serving` '' = nothing serves yet."""
        if not serving:
            return True, "no version serves yet: nothing to compare with"
        if self.target >= 1:
            return True, "every round trains: the target is 100 %"
        wish, reason = compare_agreement(found, serving, self.target, self.window)
        return wish is Comparison.RETRAIN, reason

    def is_better(self, new: Predictor, old: Predictor | None, held_out: Batch | None) -> tuple[bool, str]:
        """Return whether `new` shall serve in place of `old` (None = nothing serves), and why: it must not be clearly worse."""
        if old is None:
            return True, "first version"
        if held_out is None:
            return True, "nothing is held out to judge by: the newest serves"
        before, after = (correct(held_out.y, one.predict_proba(held_out.x)) for one in (old, new))
        verdict = paired_verdict(before, after)
        return verdict.is_not_worse, verdict.reason
