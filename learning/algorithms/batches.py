"""Which samples a step sees: a function of (seed, step) alone, whatever the machine, the world size or the number of restarts.

Owns the order. Must never keep a random state between steps. Called by the iterative algorithms.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LEAST_STEPS = 200
_LEAST_EPOCHS = 8


class Batches:
    """Batches of `size` rows out of `n`, each epoch a new permutation; the last batch of an epoch may be smaller.

    `among` (n,): the rows of the training set that may be drawn, None = the first n, all of them.
    """

    def __init__(self, n: int, size: int, seed: int, among: NDArray[np.int64] | None = None) -> None:
        self._n, self._size, self._seed, self._among = n, min(size, n), seed, among
        self.per_epoch = -(-n // self._size)
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def steps(self, epoch: int, least_steps: int = _LEAST_STEPS, least_epochs: int = _LEAST_EPOCHS) -> int:
        """Return the steps of `epoch` passes; 0 = as many passes as make `least_steps`, and at least `least_epochs`."""
        return (epoch or max(least_epochs, -(-least_steps // self.per_epoch))) * self.per_epoch

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return the rows of `step` (counted from 0)."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            order = np.random.default_rng([self._seed, epoch]).permutation(self._n)
            self._epoch, self._order = epoch, order if self._among is None else self._among[order]
        return self._order[place * self._size : (place + 1) * self._size]


def step_rng(seed: int, step: int) -> np.random.Generator:
    """Return the generator of everything random in one step but the sample order (augmentation, dropout)."""
    return np.random.default_rng([seed, step, 1])
