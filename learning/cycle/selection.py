"""The model selector: which checkpoint becomes the model.

Owns how a checkpoint is judged; the rule is `learning.cycle.rules.best_checkpoint`. Must never read a file. Called by
`learning.cycle.cycle`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from learning.cycle.rules import Candidate, best_checkpoint
from learning.cycle.training import Batch, Checkpoint
from learning.metrics import accuracy


class ModelSelector:
    """Chooses among the checkpoints of one training. Override `score` for another figure, or `choose` for another rule."""

    def score(self, checkpoint: Checkpoint, held_out: Batch) -> Candidate:
        """Return how a checkpoint does on the held-out part, of one item or more."""
        proba = checkpoint.model.predict_proba(held_out.x)
        return Candidate(checkpoint.step, accuracy(held_out.y, proba), _log_loss(held_out, proba))

    def choose(self, checkpoints: Iterable[Checkpoint], held_out: Batch | None) -> tuple[Checkpoint, str]:
        """Return the checkpoint that becomes the model and why; None = no held-out part: the last one.

        Raises InvalidInputError without a checkpoint.
        """
        kept = list(checkpoints) if held_out is not None else _last(checkpoints)
        if held_out is None and kept:
            return kept[0], f"step {kept[0].step}, the last: nothing is held out to judge by"
        found, reason = best_checkpoint([self.score(one, held_out) for one in kept] if held_out is not None else [])
        return next(one for one in kept if one.step == found.step), reason


def _last(checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
    kept: list[Checkpoint] = []
    for one in checkpoints:
        kept[:] = [one]
    return kept


def _log_loss(part: Batch, proba: np.ndarray) -> float:
    p = np.clip(proba.astype(np.float64), 1e-7, 1 - 1e-7)
    if part.y.ndim == 1:
        return float(-np.log(p[np.arange(len(part.y)), part.y]).mean())
    return float(-(part.y * np.log(p) + (1 - part.y) * np.log(1 - p)).sum(axis=1).mean())
