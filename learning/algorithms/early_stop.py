"""When a training ends before its last step, and which of its weights it ends with.

L. Prechelt, "Early Stopping - But When?", in Neural Networks: Tricks of the Trade, 1998: stop after `patience` looks without a
better loss on samples kept aside, and go back to the best weights. Owns the inner split and the decision. Must never touch a
network: the caller brings losses and weights. Called by `torch_training`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_KEPT = 6  # samples kept aside; fewer say nothing, and the training goes to its end
_PREFIX = "best."


class EarlyStop:
    """What has been seen of the losses on the samples kept aside.

    `rows` (m,) of the training set are kept aside and looked at every `every` steps; `weights` are the best so far.
    """

    def __init__(self, rows: NDArray[np.int64], every: int, patience: int) -> None:
        self.rows, self.every, self.patience = rows, every, patience
        self.best_loss: float | None = None
        self.best_step = self.waited = 0
        self.weights: dict[str, NDArray[Any]] = {}

    def looks_at(self, step: int) -> bool:
        """Return whether the weights that `step` steps have made are to be judged."""
        return step > 0 and step % self.every == 0

    def is_over(self, step: int, loss: float, weights: Callable[[], dict[str, NDArray[Any]]]) -> bool:
        """Take the loss after `step` steps; return whether patience is at its end. NaN counts as no better."""
        if math.isfinite(loss) and (self.best_loss is None or loss < self.best_loss):
            self.best_loss, self.best_step, self.waited, self.weights = loss, step, 0, weights()
            return False
        self.waited += 1
        return self.waited >= self.patience

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the best weights under names of their own, for a checkpoint."""
        return {f"{_PREFIX}{name}": value for name, value in self.weights.items()}

    def facts(self) -> dict[str, Any]:
        """Return the rest of what `restore` needs."""
        return {"best_loss": self.best_loss, "best_step": self.best_step, "waited": self.waited}

    def restore(self, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
        """Go to where `arrays` and `facts` were taken. Raises KeyError when a fact is missing."""
        self.best_loss, self.best_step, self.waited = facts["best_loss"], facts["best_step"], facts["waited"]
        self.weights = {name.removeprefix(_PREFIX): value for name, value in arrays.items() if name.startswith(_PREFIX)}


def keep_aside(y: NDArray[Any], share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows to train on and rows kept aside, both rising: of each class `share`, rounded down, drawn by `seed`.

    y: checked labels; several labels an item or probabilities: `share` of all rows. With fewer than LEAST_KEPT rows to keep aside
    none are. A class never loses its last sample.
    """
    order = np.random.default_rng([seed, 2]).permutation(len(y))
    groups = [order] if y.ndim == 2 else [order[y[order] == label] for label in np.unique(y)]
    kept = np.sort(np.concatenate([group[: int(share * len(group))] for group in groups]))
    if len(kept) < LEAST_KEPT:
        kept = np.empty(0, dtype=np.int64)
    return np.setdiff1d(np.arange(len(y)), kept), kept
