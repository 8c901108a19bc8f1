"""What several annotators say of the same items: one file a published method, `aggregate` the one entry.

Owns the table of methods. Must never read, write or know a name of a person. Called by the app's review, the roles and the bench.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np

from labelloop.errors import InvalidInputError
from learning.crowd.dawid_skene import DawidSkene, DawidSkeneOptions, fit_dawid_skene
from learning.crowd.glad import Glad, GladOptions, fit_glad
from learning.crowd.labels import CrowdLabels, crowd_labels
from learning.crowd.mace import Mace, MaceOptions, fit_mace
from learning.crowd.one_coin import OneCoin, OneCoinOptions, fit_one_coin
from learning.crowd.result import Aggregation, Fit, LabelModel, Options, make_aggregation
from learning.crowd.votes import VoteOptions, Votes, fit_majority, fit_weighted_majority

__all__ = ["METHODS", "Aggregation", "CrowdLabels", "LabelModel", "Method", "aggregate", "crowd_labels"]


class Method(NamedTuple):
    """A method: its options' schema, its parameters' type, its fit, and when to use it."""

    options: type[Options]
    parameters: type[Any]
    fit: Callable[[CrowdLabels, Any, Any], Fit]
    use: str


METHODS: dict[str, Method] = {
    "majority": Method(VoteOptions, Votes, fit_majority, "few labels a worker; the baseline"),
    "weighted-majority": Method(VoteOptions, Votes, fit_weighted_majority, "a quick look at who agrees"),
    "one-coin": Method(OneCoinOptions, OneCoin, fit_one_coin, "some ten labels a worker"),
    "dawid-skene": Method(DawidSkeneOptions, DawidSkene, fit_dawid_skene, "many labels a worker; classes that get confused"),
    "glad": Method(GladOptions, Glad, fit_glad, "items of uneven difficulty"),
    "mace": Method(MaceOptions, Mace, fit_mace, "workers who may click without looking"),
}


def aggregate(
    method: str, labels: CrowdLabels, *, options: Mapping[str, Any] | None = None, start: LabelModel | None = None
) -> Aggregation:
    """Return what the crowd says by `method`, one of `METHODS`: posteriors, labels, annotator quality, confusion matrices.

    labels: from `crowd_labels`. options: of the method, each with a default (`METHODS[name].options` is the schema). start:
    `parameters` of an earlier answer of the same method, to go on from. The answer depends on the arguments alone.

    | bad input | answer |
    |---|---|
    | unknown method; an option unknown or out of range; `start` of another method or of other counts | InvalidInputError |
    | no label at all; n_classes 1; no item with two labels, so that workers cannot be compared | votes; `reason` says so |
    | an item without a label | label -1, posterior = the model's class prior |
    | one class seen of several | that class everywhere, and `reason` says that nothing can be learned of the workers |
    | an annotator with one label | `quality` from it, `quality_low` near 0.2 at best |
    | an annotator without a label | `quality` NaN, confusion uniform |
    | confusion matrices beyond 250 million numbers (dawid-skene) | InvalidInputError |
    """
    if method not in METHODS:
        raise InvalidInputError(f"method {method!r} is unknown: use one of {', '.join(METHODS)}")
    chosen = METHODS[method]
    try:
        settings = msgspec.convert(dict(options or {}), chosen.options)
    except msgspec.ValidationError as exc:
        fields = ", ".join(chosen.options.__struct_fields__) or "none"
        raise InvalidInputError(f"options of {method!r}: {exc}; it knows {fields}") from exc
    _check_start(method, chosen, labels, start)
    nothing = _why_only_votes(labels)
    if nothing is not None:
        return make_aggregation(method, labels, fit_majority(labels, VoteOptions(), None), nothing)
    fit = chosen.fit(labels, settings, start)
    return make_aggregation(method, labels, fit, _reason(labels, fit))


def _check_start(method: str, chosen: Method, labels: CrowdLabels, start: LabelModel | None) -> None:
    if start is None:
        return
    if not isinstance(start, chosen.parameters):
        raise InvalidInputError(f"start is {type(start).__name__}, not what {method!r} fits: pass parameters of {method!r}")
    wanted = (labels.n_items, labels.n_workers, labels.n_classes)
    if any(have is not None and have != want for have, want in zip(start.shape(), wanted, strict=True)):
        raise InvalidInputError(f"start knows (items, workers, classes) {start.shape()}, the labels {wanted}: use start.grown(...)")


def _why_only_votes(labels: CrowdLabels) -> str | None:
    if labels.n_labels == 0:
        return "there is no label yet"
    if labels.n_classes == 1:
        return "there is only one class"
    if int(labels.labels_per_item.max()) < 2:
        return "no item has two labels, so the workers cannot be compared: votes"
    return None


def _reason(labels: CrowdLabels, fit: Fit) -> str:
    n_seen = int((np.bincount(labels.classes, minlength=labels.n_classes) > 0).sum())
    if n_seen == 1:
        return "only one class was given: nothing can be learned of the workers"
    if not len(fit.trace):
        return "counted"
    return f"{'converged' if fit.has_converged else 'stopped'} after {len(fit.trace)} steps"
