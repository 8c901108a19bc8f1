"""What an aggregation answers, and what its methods share: options, parameters, the climb of the likelihood.

Owns `Aggregation`, `Options`, `LabelModel`, `Fit` and `climb`. Must never import a method. Called by every method of this package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from learning.crowd.labels import CrowdLabels
from learning.crowd.quality import confusion_matrices, worker_quality

Array = NDArray[np.float64]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of a method: every field has a default and a description."""


class ClimbOptions(Options, frozen=True, kw_only=True):
    """Options of all methods that climb a likelihood."""

    n_iter: Annotated[int, msgspec.Meta(ge=1, le=10_000, description="Most E steps.")] = 100
    tol: Annotated[float, msgspec.Meta(ge=0, description="Stop when the log-likelihood per label rises by less, nats.")] = 1e-5


class LabelModel(Protocol):
    """Fitted parameters: how a label speaks for each class. Scores of an item add up over its labels; `normalise` ends them."""

    @property
    def base(self) -> Array:
        """Score of an item before its first label: (n_classes,)."""

    def contributions(self, items: NDArray[Any], workers: NDArray[Any], classes: NDArray[Any]) -> Array:
        """Return what each of m labels adds to the scores of its item: (m, n_classes)."""

    def normalise(self, scores: Array) -> Array:
        """Return posteriors of rows of scores: (m, n_classes), rows sum to 1."""

    def grown(self, n_items: int, n_workers: int) -> LabelModel:
        """Return parameters for at least as many items and workers; a new worker counts as an average one."""

    def shape(self) -> tuple[int | None, int | None, int]:
        """Return (items, workers, classes) it was fitted on; None where it fits any number."""


class Fit(NamedTuple):
    """What a method found: `posteriors` (n_items, n_classes) are exactly the E step of `parameters`; `trace` rises."""

    parameters: LabelModel
    posteriors: Array
    trace: Array
    has_converged: bool


@dataclass(frozen=True, eq=False)
class Aggregation:
    """What a crowd says.

    `posteriors` (n_items, n_classes) float64, rows sum to 1. `labels` (n_items,) int64: the likeliest class (the lowest of equals),
    -1 where nobody labelled. `quality` (n_workers,): chance that a label of the worker is right, NaN without a label; `quality_low`
    is the lower end of its 95 % interval (Wilson), so that one lucky label is not taken for mastery. `log_likelihood` (n_iter,)
    rises; empty for votes. `reason` is one sentence for people. `parameters` start another run or a stream.
    """

    method: str
    crowd: CrowdLabels
    posteriors: Array
    labels: NDArray[np.int64]
    quality: Array
    quality_low: Array
    log_likelihood: Array
    has_converged: bool
    parameters: LabelModel
    reason: str

    @cached_property
    def confusion(self) -> Array:
        """P(label given | true class) of each worker: (n_workers, n_classes, n_classes), rows [worker, true] sum to 1.

        Counted from the posteriors; a true class that a worker never met is spread evenly over the labels the worker used.
        """
        return confusion_matrices(self.crowd, self.posteriors)


def make_aggregation(method: str, crowd: CrowdLabels, fit: Fit, reason: str) -> Aggregation:
    """Return the answer of `method` with what can be read from its posteriors."""
    labels = fit.posteriors.argmax(axis=1)
    labels[~crowd.labelled] = -1
    quality, low = worker_quality(crowd, fit.posteriors)
    return Aggregation(method, crowd, fit.posteriors, labels, quality, low, fit.trace, fit.has_converged, fit.parameters, reason)


P = TypeVar("P")
Q = TypeVar("Q")


def climb(
    start: P, expect: Callable[[P], tuple[Q, float]], maximise: Callable[[Q, P], P], n_labels: int, options: ClimbOptions
) -> tuple[P, Q, Array, bool]:
    """Alternate E and M steps from `start`; return (parameters, their E step, log-likelihood of each E step, has converged).

    expect(parameters) -> (expectation, log-likelihood in nats); maximise(expectation, parameters) -> parameters.
    A. P. Dempster, N. M. Laird, D. B. Rubin, "Maximum Likelihood from Incomplete Data via the EM Algorithm", JRSS B, 1977.
    """
    parameters = start
    expectation, value = expect(parameters)
    trace = [value]
    while len(trace) < options.n_iter:
        parameters = maximise(expectation, parameters)
        expectation, value = expect(parameters)
        trace.append(value)
        if trace[-1] - trace[-2] < options.tol * n_labels:
            return parameters, expectation, np.array(trace), True
    return parameters, expectation, np.array(trace), False
