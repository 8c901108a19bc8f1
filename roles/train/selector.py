"""The model selector: which checkpoint of a run becomes its model.

The rule is `learning.cycle.rules`, shared with cycles that run without a cluster. Called by the training child after the last step.
"""

from __future__ import annotations

from learning.cycle.rules import Candidate, best_checkpoint

__all__ = ["Candidate", "best_checkpoint"]
