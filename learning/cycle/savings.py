"""What curves of labels and scores say: labels to a share of the full score, area, bands over seeds, the ratio to random.

Owns the definitions; pure. Must never train. Called by scripts.simulation and the benchmark.

A curve is (labels, scores), both (n_rounds,), labels rising. A *band* is the mean with its standard deviation over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError

_DRAWS = 2000  # of the bootstrap
Curve = tuple[NDArray[np.int64], NDArray[np.float64]]


class Crossing(msgspec.Struct, frozen=True):
    """Labels at which a curve reaches a target; `is_censored`: it never does, `labels` is then the last it was measured at."""

    labels: int
    is_censored: bool


class Band(msgspec.Struct, frozen=True):
    """Mean, standard deviation, least and most over seeds. `censored`: how many seeds never arrived, the mean is then too low."""

    mean: float
    sd: float
    low: float
    high: float
    censored: int = 0


class Ratio(msgspec.Struct, frozen=True):
    """Labels of a strategy over labels of random, of the means; `low` and `high` hold 90 % of a bootstrap over seeds.

    `bound`: '' = measured, '<=' = random was censored, so the truth is at most this, '>=' = the strategy was, '?' = both.
    """

    value: float
    low: float
    high: float
    bound: str


def crossing(curve: Curve, target: float) -> Crossing:
    """Return where the median of three neighbouring scores first reaches `target`: one lucky round does not count.

    At both ends the median is of two. Raises InvalidInputError without a round.
    """
    labels, scores = curve
    if not len(scores) or len(labels) != len(scores):
        raise InvalidInputError(f"a curve needs one score a round and a round at least, got {len(labels)} and {len(scores)}")
    smooth = np.array([np.median(scores[max(0, at - 1) : at + 2]) for at in range(len(scores))])
    hits = np.flatnonzero(smooth >= target)
    return Crossing(int(labels[hits[0]]), False) if len(hits) else Crossing(int(labels[-1]), True)


def area(curve: Curve) -> float:
    """Return the mean height of a curve: its area over its width (trapezoid rule)."""
    labels, scores = curve
    if len(scores) < 2:
        return float(scores[0]) if len(scores) else 0.0
    return float(np.trapezoid(scores, labels) / (labels[-1] - labels[0]))


def band(values: Sequence[float], censored: int = 0) -> Band:
    """Return the band of one number a seed, at least one."""
    found = np.asarray(values, dtype=np.float64)
    return Band(float(found.mean()), float(found.std()), float(found.min()), float(found.max()), censored)


def crossing_band(found: Sequence[Crossing]) -> Band:
    """Return the band of one crossing a seed."""
    return band([one.labels for one in found], sum(one.is_censored for one in found))


def ratio(strategy: Sequence[Crossing], random: Sequence[Crossing], seed: int = 0) -> Ratio:
    """Return how many of random's labels a strategy needs; below 1 it saves. One crossing a seed on each side."""
    mine, base = (np.array([one.labels for one in side], dtype=np.float64) for side in (strategy, random))
    rng = np.random.default_rng(seed)
    drawn = [side[rng.integers(len(side), size=(_DRAWS, len(side)))].mean(axis=1) for side in (mine, base)]
    low, high = np.quantile(drawn[0] / drawn[1], (0.05, 0.95))
    open_mine, open_base = (any(one.is_censored for one in side) for side in (strategy, random))
    bound = {(False, False): "", (False, True): "<=", (True, False): ">=", (True, True): "?"}[open_mine, open_base]
    return Ratio(float(mine.mean() / base.mean()), float(low), float(high), bound)


def verdict(strategy: Sequence[float], random: Sequence[float]) -> str:
    """Return 'better', 'within bands' or 'worse' for the areas under the curves, one a seed.

    Better or worse means that the bands (mean and a standard deviation to each side) do not touch.
    """
    mine, base = band(strategy), band(random)
    if mine.mean - mine.sd > base.mean + base.sd:
        return "better"
    return "worse" if mine.mean + mine.sd < base.mean - base.sd else "within bands"
