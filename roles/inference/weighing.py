"""Votes of rules to the table that people read and the labels that trainings learn from.

Owns what is said where no label model can be fitted. Must never look at an item: votes come in. Called by `voting` on RPC threads;
numpy alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from labelloop.messages import Array, ItemError, RulesReply, RuleView, TaskSpec
from learning.weak import METHODS, LabelModel, RuleReport, check_truth, check_votes, fit, summarise, why_not_fit

NONE = "none"  # the method of an answer without a label model
_DTYPES = frozenset({"int8", "int16", "int32", "int64"})


def read_numbers(name: str, array: Array, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return whole numbers of a message; -1 in `shape` = any size. Raises InvalidInputError naming what does not fit."""
    is_shaped = len(array.shape) == len(shape) and all(want in (-1, have) for have, want in zip(array.shape, shape, strict=True))
    if array.dtype not in _DTYPES or not is_shaped:
        wanted = ", ".join("any" if size < 0 else str(size) for size in shape)
        raise InvalidInputError(f"{name} must be int16 of shape ({wanted}), got {array.dtype[:20]} of {array.shape}")
    if len(array.data) != math.prod(array.shape) * np.dtype(array.dtype).itemsize or min(array.shape) < 0:
        raise InvalidInputError(f"{name} of shape {array.shape} has {len(array.data)} bytes: send the whole buffer")
    return np.frombuffer(array.data, dtype=array.dtype).reshape(array.shape)


def check_method(method: str) -> None:
    """Raise InvalidInputError unless `method` names a label model."""
    if method not in METHODS:
        raise InvalidInputError(f"label model {method!r} is unknown: use one of {', '.join(METHODS)}")


def weigh(
    spec: TaskSpec,
    names: tuple[str, ...],
    votes: NDArray[Any],
    known: NDArray[Any] | None,
    method: str,
    failed: Sequence[ItemError] = (),
) -> RulesReply:
    """Return the table and the labels of votes (n, m) by the rules called `names`; known: (n,) labels, -1 = unknown.

    Votes that give no label model (no rule fires, all say one label, nothing is left to label) are answered with method 'none',
    nothing covered and the reason: a person who has just written a first rule wants its row of the table, not an error.
    Raises InvalidInputError on malformed votes, names, known labels or method, and as `learning.weak.fit` for a model by name.
    """
    k = len(spec.extra.labels)
    check_method(method)
    votes = check_votes(votes, k)
    truth = np.full(len(votes), -1, dtype=np.int64) if known is None else check_truth(known, len(votes), k)
    table = summarise(names, votes, k, truth)
    problem = why_not_fit(votes, truth, k)
    if problem is None:
        uses_known = method != "matrix-completion" and bool((truth >= 0).any())
        model = fit(votes, k, method=method, truth=truth if uses_known else None)
        proba, is_covered = model.predict(votes)
        used, reason, weights = model.method, model.reason, _weights(model)
    else:
        proba, is_covered = np.full((len(votes), k), 1 / k, dtype=np.float32), np.zeros(len(votes), dtype=np.bool_)
        used, reason, weights = NONE, problem, [None] * len(names)
    return RulesReply(
        rules=tuple(_view(report, weight, spec.extra.labels) for report, weight in zip(table.rules, weights, strict=True)),
        n_items=table.n_items,
        coverage=table.coverage,
        overlap=table.overlap,
        conflict=table.conflict,
        votes=_array(votes),
        proba=_array(proba),
        is_covered=_array(is_covered),
        method=used,
        reason=reason,
        failed=tuple(failed),
    )


def _weights(model: LabelModel) -> list[float | None]:
    """How often each rule is taken to be right, None where it never fired."""
    shares = enumerate(model.accuracies().tolist())
    return [None if rule in model.silent or math.isnan(share) else share for rule, share in shares]


def _view(report: RuleReport, weight: float | None, labels: tuple[str, ...]) -> RuleView:
    return RuleView(
        name=report.name,
        labels=tuple(labels[number] for number in report.labels),
        n_votes=report.n_votes,
        coverage=report.coverage,
        overlap=report.overlap,
        conflict=report.conflict,
        accuracy=report.accuracy,
        n_known=report.n_known,
        weight=weight,
        note=report.note,
    )


def _array(values: NDArray[Any]) -> Array:
    values = np.ascontiguousarray(values)
    return Array(dtype=str(values.dtype), shape=values.shape, data=values.tobytes())
