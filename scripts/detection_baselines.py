"""What a detector has to beat: two simple ways to find boxes, on the same maps.

Owns the baselines of `bench detection` alone. Must never be offered to people. Called by scripts.bench_detection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learning.boxes import suppress
from learning.feature_map import Level, split_levels
from learning.metrics_regions import overlaps
from learning.regions import Regions

_SIZES = (2, 3, 4, 5)  # of windows, in cells of the coarse map
_POSITIVE, _NEGATIVE = 0.5, 0.3
_NEGATIVES_A_PICTURE = 20
_MOST = 100
Array = NDArray[np.float32]


def usual_box(boxes: Sequence[Regions], n: int) -> list[Regions]:
    """Return the most frequent class in the mean box for each of `n` pictures: what one knows without looking."""
    where = np.concatenate([one.where for one in boxes]).mean(axis=0, keepdims=True)
    label = np.bincount(np.concatenate([one.labels for one in boxes])).argmax()
    return [Regions(where.astype(np.float32), np.array([label]), np.ones(1, np.float32))] * n


class SlidingWindows(NamedTuple):
    """Logistic regression on the mean features of each window, class `n_labels` = nothing there."""

    model: object
    levels: tuple[Level, ...]
    n_labels: int
    mean: Array
    factor: Array


def fit_windows(x: Array, boxes: Sequence[Regions], levels: tuple[Level, ...], n_labels: int, seed: int) -> SlidingWindows:
    """Learn from windows: those that overlap a box by half or more are of its class, of those under 0.3 some show nothing."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(seed)
    pooled, windows = _pool(x, levels)
    rows, labels = [], []
    for features, one in zip(pooled, boxes, strict=True):
        pairs = overlaps(windows, one.where) if len(one.labels) else np.zeros((len(windows), 1))
        best = pairs.max(axis=1)
        is_there = best >= _POSITIVE
        nothing = rng.permutation(np.flatnonzero(best < _NEGATIVE))[:_NEGATIVES_A_PICTURE]
        rows += [features[is_there], features[nothing]]
        labels += [one.labels[pairs[is_there].argmax(axis=1)], np.full(len(nothing), n_labels)]
    design = np.concatenate(rows)
    mean, factor = design.mean(axis=0), 1 / np.maximum(design.std(axis=0), 1e-6)
    model = LogisticRegression(C=0.1, max_iter=200).fit((design - mean) * factor, np.concatenate(labels))
    return SlidingWindows(model, levels, n_labels, mean, factor)


def find_windows(fitted: SlidingWindows, x: Array) -> list[Regions]:
    """Return the surest windows of each picture, one a thing."""
    pooled, windows = _pool(x, fitted.levels)
    found = []
    for features in pooled:
        proba = np.zeros((len(windows), fitted.n_labels + 1), np.float32)
        proba[:, fitted.model.classes_] = fitted.model.predict_proba((features - fitted.mean) * fitted.factor)  # type: ignore[attr-defined]
        scores = proba[:, : fitted.n_labels].max(axis=1)
        best = np.argsort(-scores, kind="stable")[:_MOST]
        best = best[suppress(windows[best][None], 0.4)[0]]
        found.append(Regions(windows[best], proba[best, : fitted.n_labels].argmax(axis=1), scores[best]))
    return found


def _pool(x: Array, levels: tuple[Level, ...]) -> tuple[list[Array], Array]:
    """Return the mean features of every window of each picture, n of (m, c), and the windows as boxes (m, 4)."""
    fine, coarse = split_levels(x, levels)
    height, width = coarse.shape[2:]
    folded = fine.reshape(*fine.shape[:2], height, fine.shape[2] // height, width, fine.shape[3] // width).mean(axis=(3, 5))
    both = np.concatenate([folded, coarse], axis=1).astype(np.float64)
    sums = np.zeros((*both.shape[:2], height + 1, width + 1))
    sums[:, :, 1:, 1:] = both.cumsum(axis=2).cumsum(axis=3)
    parts, windows = [], []
    for down in _SIZES:
        for right in _SIZES:
            total = (
                sums[:, :, down:, right:] - sums[:, :, :-down, right:] - sums[:, :, down:, :-right] + sums[:, :, :-down, :-right]
            )
            parts.append((total / (down * right)).reshape(*both.shape[:2], -1))
            rows, columns = np.mgrid[: height + 1 - down, : width + 1 - right]
            shape = np.full(rows.size, right / width), np.full(rows.size, down / height)
            windows.append(np.stack([columns.ravel() / width, rows.ravel() / height, *shape], axis=1))
    pooled = np.concatenate(parts, axis=2).transpose(0, 2, 1).astype(np.float32)
    return list(pooled), np.concatenate(windows).astype(np.float32)
