"""Votes: majority, and majority weighted by how often a worker agrees with it.

Owns `Votes`. Must never iterate. Called through `learning.crowd.aggregate`, and by the methods that start from a majority.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning.crowd.labels import CrowdLabels
from learning.crowd.quality import worker_quality
from learning.crowd.result import Array, Fit, LabelModel, Options


class VoteOptions(Options, frozen=True, kw_only=True):
    """Votes have nothing to set."""


@dataclass(frozen=True, eq=False)
class Votes:
    """`weights` (n_workers,): what one vote of each worker counts; None = 1 for everybody."""

    n_classes: int
    weights: Array | None = None

    @property
    def base(self) -> Array:
        """No vote."""
        return np.zeros(self.n_classes)

    def contributions(self, items: NDArray[Any], workers: NDArray[Any], classes: NDArray[Any]) -> Array:
        """Return one weighted vote a label: (m, n_classes)."""
        out = np.zeros((len(classes), self.n_classes))
        out[np.arange(len(classes)), classes] = 1.0 if self.weights is None else self.weights[workers]
        return out

    def normalise(self, scores: Array, out: Array | None = None) -> Array:
        """Return shares of the votes; no vote (or none that counts) is uniform. `out` may be `scores`."""
        sums = scores @ np.ones(self.n_classes)
        is_empty = sums <= 0
        sums[is_empty] = 1.0
        shares = np.divide(scores, sums[:, None], out=out)
        shares[is_empty] = 1 / self.n_classes
        return shares

    def grown(self, n_items: int, n_workers: int) -> LabelModel:
        """Return votes with an average weight for new workers."""
        if self.weights is None or n_workers <= len(self.weights):
            return self
        mean = self.weights.mean() if len(self.weights) else 1.0
        return Votes(self.n_classes, np.append(self.weights, np.full(n_workers - len(self.weights), mean)))

    def shape(self) -> tuple[int | None, int | None, int]:
        """Return (None, workers or None, classes)."""
        return None, None if self.weights is None else len(self.weights), self.n_classes


def count_votes(crowd: CrowdLabels, votes: Votes) -> Array:
    """Return the shares of the votes of each item: (n_items, n_classes)."""
    places = crowd.items.astype(np.int64) * crowd.n_classes + crowd.classes
    weights = None if votes.weights is None else votes.weights[crowd.workers]
    scores = np.bincount(places, weights, minlength=crowd.n_items * crowd.n_classes).astype(np.float64, copy=False)
    scores = scores.reshape(crowd.n_items, crowd.n_classes)
    return votes.normalise(scores, out=scores)


def fit_majority(crowd: CrowdLabels, options: VoteOptions, start: Votes | None) -> Fit:
    """Majority: one worker, one vote; `start` changes nothing."""
    votes = Votes(crowd.n_classes)
    return Fit(votes, count_votes(crowd, votes), np.empty(0), True)


def fit_weighted_majority(crowd: CrowdLabels, options: VoteOptions, start: Votes | None) -> Fit:
    """Worker Agreement With Aggregate (Wawa; Figure Eight's and crowd-kit's name): a vote counts as often as it met the majority.

    `start` with weights of an earlier run (known skills, say) is used as it is. A worker without a label weighs nothing.
    """
    if start is not None and start.weights is not None:
        return Fit(start, count_votes(crowd, start), np.empty(0), True)
    shares = count_votes(crowd, Votes(crowd.n_classes))
    winners = np.zeros_like(shares)
    winners[np.arange(len(shares)), shares.argmax(axis=1)] = 1.0
    weights, _ = worker_quality(crowd, winners)
    votes = Votes(crowd.n_classes, np.nan_to_num(weights))
    return Fit(votes, count_votes(crowd, votes), np.empty(0), True)
