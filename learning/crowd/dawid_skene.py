"""dawid-skene: a confusion matrix for every annotator, by expectation maximisation.

A. P. Dawid, A. M. Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm", Applied Statistics, 1979.
Owns the confusion tables. Must never build anything of size labels x classes. Called through `learning.crowd.aggregate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.crowd.labels import CrowdLabels
from learning.crowd.products import ItemBlock, falling_order, item_blocks, multiply_rows
from learning.crowd.quality import FLOOR, confusion_table
from learning.crowd.result import Array, ClimbOptions, Fit, LabelModel, climb
from learning.crowd.votes import Votes, count_votes

_MOST_CELLS = 250_000_000  # numbers in all confusion matrices: 2 GB


class DawidSkeneOptions(ClimbOptions, frozen=True, kw_only=True):
    """Options of Dawid-Skene."""

    smoothing: Annotated[
        float, msgspec.Meta(ge=0, description="Pseudo-labels on each true class of each worker; 0 = the bare likelihood.")
    ] = 0.5


@dataclass(frozen=True, eq=False)
class DawidSkene:
    """`log_prior` (n_classes,) and `log_table` (n_workers * given, true): natural logarithms."""

    log_prior: Array
    log_table: Array

    @property
    def base(self) -> Array:
        """The class prior."""
        return self.log_prior

    def contributions(self, items: NDArray[Any], workers: NDArray[Any], classes: NDArray[Any]) -> Array:
        """Return log P(label | true class) of each label: (m, n_classes)."""
        return self.log_table[np.asarray(workers) * len(self.log_prior) + classes]

    def normalise(self, scores: Array) -> Array:
        """Return the softmax of each row."""
        return softmax(scores)

    def grown(self, n_items: int, n_workers: int) -> LabelModel:
        """Return parameters in which new workers have the mean confusion matrix."""
        k = len(self.log_prior)
        have = len(self.log_table) // k
        if n_workers <= have:
            return self
        tables = np.exp(self.log_table).reshape(have, k, k)
        mean = np.log(tables.mean(axis=0)) if have else np.full((k, k), -np.log(k))
        return DawidSkene(self.log_prior, np.concatenate([self.log_table, np.tile(mean, (n_workers - have, 1))]))

    def shape(self) -> tuple[int | None, int | None, int]:
        """Return (None, workers, classes)."""
        k = len(self.log_prior)
        return None, len(self.log_table) // k, k


class _Expectation(NamedTuple):
    counts: Array  # (n_workers * given, true)
    sums: Array  # (n_classes,) over labelled items


def softmax(scores: Array) -> Array:
    """Return exp(scores) with rows that sum to 1, without overflow: (m, n_classes)."""
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def fit_dawid_skene(crowd: CrowdLabels, options: DawidSkeneOptions, start: DawidSkene | None) -> Fit:
    """Climb from the majority vote (or from `start`) to a maximum of the (with smoothing: penalised) likelihood.

    Memory: n_items x n_classes and n_workers x n_classes^2. Raises InvalidInputError where the latter exceeds 250 million.
    """
    k = crowd.n_classes
    if crowd.n_workers * k * k > _MOST_CELLS:
        raise InvalidInputError(f"{crowd.n_workers} confusion matrices of {k} x {k} do not fit: use 'one-coin' or 'mace'")
    order = falling_order(crowd)
    blocks = item_blocks(crowd, order)
    weights = np.empty((crowd.n_items, k))  # posterior / prior, in falling order

    def expect(now: DawidSkene) -> tuple[_Expectation, float]:
        table, prior, counts, value = np.exp(now.log_table), np.exp(now.log_prior), np.zeros_like(now.log_table), 0.0
        for block in blocks:
            value += _expect_block(block, table, prior, weights[block.rows])
            counts += block.turned @ weights[block.rows]
        sums = np.ones(crowd.n_items) @ weights - (~crowd.labelled).sum()  # an item without a label says nothing
        value += options.smoothing / k * now.log_table.sum() if options.smoothing else 0.0
        return _Expectation(counts * prior, sums * prior), value

    def maximise(found: _Expectation, _: DawidSkene) -> DawidSkene:
        return _maximise(crowd, found, options.smoothing)

    found, _, trace, has_converged = climb(
        start or _from_majority(crowd, options.smoothing), expect, maximise, crowd.n_labels, options
    )
    posteriors = np.empty_like(weights)
    posteriors[order] = weights * np.exp(found.log_prior)
    return Fit(found, posteriors, trace, has_converged)


def _from_majority(crowd: CrowdLabels, smoothing: float) -> DawidSkene:
    votes = count_votes(crowd, Votes(crowd.n_classes))
    sums = np.ones(crowd.n_items) @ votes - (~crowd.labelled).sum() / crowd.n_classes
    return _maximise(crowd, _Expectation(crowd.by_item.T @ votes, sums), smoothing)


def _maximise(crowd: CrowdLabels, found: _Expectation, smoothing: float) -> DawidSkene:
    prior = np.maximum(found.sums / max(found.sums.sum(), 1.0), FLOOR)
    return DawidSkene(np.log(prior / prior.sum()), np.log(confusion_table(crowd, found.counts, smoothing)))


def _expect_block(block: ItemBlock, table: Array, prior: Array, out: Array) -> float:
    """Write posteriors / prior of a block of items into `out` and return its log-likelihood.

    The prior is left out because it is a factor of each column: on the small tables of counts it costs nothing.
    """
    taken = multiply_rows(block, table, out)
    sums = out @ prior
    np.divide(out, sums[:, None], out=out)
    return float(np.log(sums).sum()) + taken
