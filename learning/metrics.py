"""How good a model is, and whether a new one is worse than the old one on the same items.

Owns the figures that manifests, gate and pages show. Must never train or predict. Called by the train role and the bench.
`y` is (n,) int64 class numbers (multiclass) or (n, k) of 0/1 (multilabel); `proba` is (n, k) as models answer it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labelloop.errors import InvalidInputError

_FEW_ITEMS = 50  # below this many held-out items the sign test alone lets clear losses pass
_CLEAR_SHARE = 0.1  # what counts as a clear loss there: this share of the held-out items


class Verdict(NamedTuple):
    """The gate's answer: `is_not_worse`, and the sentence that log and project page show."""

    is_not_worse: bool
    reason: str


def decide(proba: ArrayLike, is_multilabel: bool) -> NDArray[np.int64]:
    """Return what `proba` decides: (n,) the likeliest class, or (n, k) of 0/1 with 1 from probability 0.5 up."""
    p = np.asarray(proba)
    return (p >= 0.5).astype(np.int64) if is_multilabel else p.argmax(axis=1).astype(np.int64)


def correct(y: ArrayLike, proba: ArrayLike) -> NDArray[np.bool_]:
    """Return per item whether the draft would need no correction: (n,) bool; for multilabel every label must be right.

    Raises InvalidInputError when the lengths differ.
    """
    truth, p = _pair(y, proba)
    hits = decide(p, truth.ndim == 2) == truth
    return hits.all(axis=1) if truth.ndim == 2 else hits


def accuracy(y: ArrayLike, proba: ArrayLike) -> float:
    """Return the share of items that `correct` calls right, in [0, 1]. Raises InvalidInputError without items."""
    hits = correct(y, proba)
    if not len(hits):
        raise InvalidInputError("accuracy of no items is undefined: label held-out items first")
    return float(hits.mean())


def macro_f1(y: ArrayLike, proba: ArrayLike) -> float:
    """Return the mean F1 of the classes that occur in `y` or in the answers, in [0, 1]; labels likewise for multilabel.

    0.0 when nothing occurs (multilabel, all empty). Raises InvalidInputError without items.
    """
    truth, p = _pair(y, proba)
    if not len(truth):
        raise InvalidInputError("macro_f1 of no items is undefined: label held-out items first")
    said = decide(p, truth.ndim == 2)
    if truth.ndim == 1:
        k = p.shape[1]
        hits = np.bincount(truth[said == truth], minlength=k)
        total = np.bincount(truth, minlength=k) + np.bincount(said, minlength=k)
    else:
        hits, total = (said & truth).sum(axis=0), said.sum(axis=0) + truth.sum(axis=0)
    occurs = total > 0
    return float((2.0 * hits[occurs] / total[occurs]).mean()) if occurs.any() else 0.0


def expected_calibration_error(y: ArrayLike, proba: ArrayLike, bins: int = 15) -> float:
    """Return the mean distance between confidence and accuracy over `bins` equal-width bins of confidence, in [0, 1].

    Confidence is that of the answer given; multilabel counts each label of each item as one answer. M. P. Naeini, G. Cooper,
    M. Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015.
    Raises InvalidInputError without items.
    """
    truth, p = _pair(y, proba)
    if not len(truth):
        raise InvalidInputError("expected_calibration_error of no items is undefined: label held-out items first")
    if truth.ndim == 2:
        confidence, hits = np.maximum(p, 1 - p).ravel(), (decide(p, True) == truth).ravel()
    else:
        confidence, hits = p.max(axis=1), p.argmax(axis=1) == truth
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gap = np.bincount(place, weights=confidence - hits, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))


def area_under_curve(labels: ArrayLike, values: ArrayLike) -> float:
    """Return the mean height of a learning curve: its trapezoid area over `labels` (n,) rising, divided by their range.

    One point gives its own value. Raises InvalidInputError when empty, of unequal lengths or not rising.
    """
    x, heights = np.asarray(labels, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if x.shape != heights.shape or x.ndim != 1 or not len(x):
        raise InvalidInputError(f"a learning curve needs as many label counts as values, got shapes {x.shape} and {heights.shape}")
    if len(x) == 1:
        return float(heights[0])
    if (np.diff(x) <= 0).any():
        raise InvalidInputError("the label counts of a learning curve must rise")
    return float(np.trapezoid(heights, x) / (x[-1] - x[0]))


def paired_verdict(old_correct: ArrayLike, new_correct: ArrayLike, level: float = 0.05) -> Verdict:
    """Judge whether a new model is not worse than the old one on the same held-out items (the gate).

    Only items on which the two differ speak: `lost` (old right, new wrong) and `gained` (the reverse). If neither model were
    better each would be a fair coin, so the one-sided exact sign test P(at least `lost` of `lost + gained`) refuses the new model
    below `level`. With fewer than five differing items that test can never refuse at 5 %, so on a small held-out part (under 50
    items) the new model is also refused on a clear majority: at least two more lost than gained, at least twice as many
    lost as gained, and a net loss of at least a tenth of the items. Without items, or without an old model's answers differing,
    it passes: labels come first.

    Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages", Psychometrika 1947.

    old_correct, new_correct: (n,) bool over the same items in the same order. Raises InvalidInputError when the lengths differ.
    """
    old, new = np.asarray(old_correct, dtype=np.bool_), np.asarray(new_correct, dtype=np.bool_)
    if old.shape != new.shape or old.ndim != 1:
        raise InvalidInputError(f"a paired verdict needs the same items twice, got shapes {old.shape} and {new.shape}")
    if not len(old):
        return Verdict(True, "not worse: no held-out item to compare on yet")
    lost, gained = int((old & ~new).sum()), int((~old & new).sum())
    facts = f"{new.sum()} of {len(new)} held-out items right, before {old.sum()} ({gained} gained, {lost} lost"
    p_value = _tail(lost, lost + gained)
    if lost > gained and p_value < level:
        return Verdict(False, f"worse: {facts}; by chance alone p = {p_value:.3g} < {level:g})")
    is_clear = lost - gained >= max(2, _CLEAR_SHARE * len(new)) and lost >= 2 * gained
    if len(new) < _FEW_ITEMS and is_clear:
        return Verdict(False, f"worse: {facts}; a clear majority on few items)")
    return Verdict(True, f"not worse: {facts})")


def _tail(least: int, n: int) -> float:
    """Return P(X >= least) for X ~ Binomial(n, 1/2)."""
    if least <= 0:
        return 1.0
    base = math.lgamma(n + 1) - n * math.log(2)
    return min(1.0, math.fsum(math.exp(base - math.lgamma(i + 1) - math.lgamma(n - i + 1)) for i in range(least, n + 1)))


def _pair(y: ArrayLike, proba: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    truth, p = np.asarray(y).astype(np.int64), np.asarray(proba, dtype=np.float64)
    if p.ndim != 2 or truth.ndim not in (1, 2) or len(truth) != len(p) or (truth.ndim == 2 and truth.shape != p.shape):
        raise InvalidInputError(f"labels of shape {truth.shape} do not fit probabilities of shape {p.shape}")
    return truth, p
