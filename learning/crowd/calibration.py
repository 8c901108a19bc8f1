"""Posteriors that mean what they say: one temperature, from gold items or from the labels themselves.

C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017 (temperature scaling). Without
gold the temperature is the one under which every label is best foretold by the other labels of its item: workers who share errors
make a model too sure, and then foretell each other too badly. It is never below 1 then: the parameters have seen these labels.
Owns the temperature. Must never change the order of classes. Called by whoever shows or trains on posteriors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from labelloop.errors import InvalidInputError
from learning.crowd.dawid_skene import softmax
from learning.crowd.labels import CrowdLabels
from learning.crowd.quality import FLOOR
from learning.crowd.result import Aggregation
from learning.crowd.stream import full_scores
from learning.crowd.votes import Votes

Array = NDArray[np.float64]
_HIGHEST = 50.0
_MOST_LABELS = 50_000  # a temperature is one number: a seeded sample is enough
_FEWEST_GOLD = 10


class Calibrated(NamedTuple):
    """`posteriors` (n_items, n_classes), rows sum to 1; `temperature`: above 1 the model was too sure. `source` gold or labels."""

    posteriors: Array
    temperature: float
    source: str


def calibrate(found: Aggregation, *, gold: ArrayLike | None = None, seed: int = 0) -> Calibrated:
    """Return posteriors at the temperature that fits best.

    gold: (n_items,) true classes, -1 = unknown; None = from the labels alone (not for votes, which model no label).

    | bad input | answer |
    |---|---|
    | gold of another length, or beyond the classes | InvalidInputError |
    | fewer than 10 gold items with a label | InvalidInputError: pass gold=None |
    | votes without gold (an answer in which no item has two labels is votes too) | InvalidInputError |
    """
    logs = _logs(found)
    if gold is not None:
        truth = _checked_gold(found.crowd, gold)
        rows = np.flatnonzero((truth >= 0) & found.crowd.labelled)
        if len(rows) < _FEWEST_GOLD:
            raise InvalidInputError(f"{len(rows)} gold items are too few, {_FEWEST_GOLD} are needed: pass gold=None")
        temperature = _best(lambda t: _log_loss(softmax(logs[rows] / t), truth[rows]), 0.2)
        return Calibrated(softmax(logs / temperature), temperature, "gold")
    if isinstance(found.parameters, Votes):
        raise InvalidInputError(f"{found.method!r} models no label: pass gold, or use 'one-coin' or 'dawid-skene'")
    temperature = _best(_foretelling(found, seed), 1.0)
    return Calibrated(softmax(logs / temperature), temperature, "labels")


def _checked_gold(crowd: CrowdLabels, gold: ArrayLike) -> NDArray[np.int64]:
    truth = np.asarray(gold)
    if truth.shape != (crowd.n_items,) or truth.dtype.kind not in "iu":
        raise InvalidInputError(f"gold must be {crowd.n_items} whole numbers, one an item, got {truth.dtype} {truth.shape}")
    if len(truth) and int(truth.max()) >= crowd.n_classes:
        raise InvalidInputError(f"gold holds {int(truth.max())}, outside 0 to {crowd.n_classes - 1}; -1 is unknown")
    return truth.astype(np.int64)


def _log_loss(posteriors: Array, truth: NDArray[np.int64]) -> float:
    return float(-np.log(np.maximum(posteriors[np.arange(len(truth)), truth], FLOOR)).mean())


def _logs(found: Aggregation) -> Array:
    if not isinstance(found.parameters, Votes):
        return np.asarray(np.log(np.maximum(found.posteriors, FLOOR)))
    n = found.crowd.labels_per_item[:, None]  # one vote more, spread evenly: a share of 0 of three labels is not impossible
    return np.asarray(np.log((found.posteriors * n + 1 / found.crowd.n_classes) / (n + 1)))


def _best(loss: Any, lowest: float) -> float:
    bounds = (np.log(lowest), np.log(_HIGHEST))
    found = minimize_scalar(lambda log_t: loss(np.exp(log_t)), bounds=bounds, method="bounded", options={"xatol": 1e-3})
    best = float(np.exp(found.x))
    return best if loss(best) < loss(1.0) else 1.0


def _foretelling(found: Aggregation, seed: int) -> Any:
    """Return the loss of a temperature: how badly labels are foretold by the other labels of their item."""
    crowd, model = found.crowd, found.parameters
    rows = np.flatnonzero(crowd.labels_per_item[crowd.items] > 1)
    if len(rows) > _MOST_LABELS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _MOST_LABELS, replace=False))
    items, workers, classes = crowd.items[rows], crowd.workers[rows], crowd.classes[rows]
    own = model.contributions(items, workers, classes)
    others = full_scores(model, crowd)[items] - own
    likelihood = np.exp(own)
    return lambda t: float(-np.log(np.maximum((softmax(others / t) * likelihood).sum(axis=1), FLOOR)).mean())
