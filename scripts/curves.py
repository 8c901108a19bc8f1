"""The random reference of a learning curve: the same algorithm, encoder and budget, labels drawn by chance.

Owns nothing; pure but for training. Called by scripts.annotator. Features come from the caller, rows in the order of the ids.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from learning.algorithms import find_algorithm
from learning.held_out import is_held_out


class Reference(NamedTuple):
    """What the random curve is made of: `pool` and `test` features (n, d) float32, their labels (n,) int64, and the pool's ids."""

    pool: np.ndarray
    pool_y: np.ndarray
    pool_ids: Sequence[str]
    test: np.ndarray
    test_y: np.ndarray
    n_labels: int
    algorithm: str
    parameters: Mapping[str, Any]
    epoch: int
    held_out_share: float


def random_curve(
    reference: Reference, counts: Sequence[int], seeds: int = 5, tick: Callable[[], None] = lambda: None
) -> list[list[float]]:
    """Return [labels, mean, low, high] of test accuracy over `seeds` random orders, one row for each of `counts`.

    Each seed draws one order and grows along it; a training at n labels holds out the same share of items, by the same hash,
    as the cluster does. `tick` is called after each training.
    """
    held = np.array([is_held_out(item_id, reference.held_out_share) for item_id in reference.pool_ids])
    accuracy = np.zeros((seeds, len(counts)))
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(reference.pool_ids))
        for column, count in enumerate(counts):
            taken = order[:count]
            accuracy[seed, column] = _accuracy(reference, taken[~held[taken]], seed)
            tick()
    return [
        [int(count), float(column.mean()), float(column.min()), float(column.max())]
        for count, column in zip(counts, accuracy.T, strict=True)
    ]


def _accuracy(reference: Reference, rows: np.ndarray, seed: int) -> float:
    if not len(rows):
        return 0.0
    training = find_algorithm(reference.algorithm).start(
        reference.pool[rows],
        reference.pool_y[rows],
        reference.n_labels,
        False,
        dict(reference.parameters),
        reference.epoch,
        seed,
        None,
    )
    while training.step < training.steps:
        training.advance()
    chosen = training.model().predict_proba(reference.test).argmax(axis=1)
    return float((chosen == reference.test_y).mean())


def corrections_per_100(corrected: Sequence[bool]) -> list[float]:
    """Return corrections per 100 in each run of 100 labels that carried a draft; a last run below 20 labels is left out."""
    runs = [corrected[start : start + 100] for start in range(0, len(corrected), 100)]
    return [round(100 * sum(run) / len(run), 2) for run in runs if len(run) >= 20]


def area(curve: Sequence[Sequence[float]]) -> float:
    """Return the mean height of a curve of [labels, value, ...] rows: its area over its width (trapezoid rule)."""
    if len(curve) < 2:
        return curve[0][1] if curve else 0.0
    inside = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(curve))
    return inside / (curve[-1][0] - curve[0][0])


def summary(report: Mapping[str, Any]) -> str:
    """Return what a report means, in three lines."""
    mine, random = area(report["curve"]), area(report["random_curve"])
    high = area([[row[0], row[3]] for row in report["random_curve"]])
    where = "above its band" if mine > high else "within its band" if mine >= random else "BELOW it"
    first, last = report["corrections_first_100"], report["corrections_last_100"]
    return (
        f"area under the curve {mine:.4f}, random {random:.4f} (band up to {high:.4f}): {where}\n"
        f"corrections in the first 100 labels that carried a draft: {first}, in the last 100: {last}\n"
        f"lost {report['lost']}, doubled {report['doubled']}, {len(report['versions'])} versions, {report['seconds']} s"
    )
