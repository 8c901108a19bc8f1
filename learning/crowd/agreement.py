"""How far people agree: Cohen's and Fleiss' kappa, Krippendorff's alpha, overlap and F1 of marks; in all, per class and per pair.

Owns the coefficients. Must never know a name of a person or an item: all are numbers from 0. Only items with two opinions or more
count. Called by the app's page of quality.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labelloop.errors import InvalidInputError
from learning.crowd.matching import match_regions, overlap

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]


class Agreement(NamedTuple):
    """Agreement on classes. NaN = not defined: no item with two opinions, or one class alone was ever given.

    `n_items` have two opinions or more; `share` of the pairs of opinions on one item are equal; `fleiss` and `alpha` correct that
    for chance; `alpha_by_class` (n_classes,): each class against all others. `pairs` (p, 2) workers with a common item, first <
    second, with `pair_items`, `pair_share` and `cohen` (p,).
    """

    n_items: int
    share: float
    fleiss: float
    alpha: float
    alpha_by_class: Array
    pairs: Numbers
    pair_items: Numbers
    pair_share: Array
    cohen: Array


class MarkAgreement(NamedTuple):
    """Agreement on marks between each two people who looked at the same item, averaged over items. NaN = nothing to compare.

    `iou`: mean intersection over union of matched marks; `f1`: of marks matched at the overlap asked for, with the same class;
    `f1_by_class` (n_classes,). `pairs` (p, 2), `pair_items`, `pair_iou`, `pair_f1` (p,) the same for each pair of people.
    """

    n_items: int
    iou: float
    f1: float
    f1_by_class: Array
    pairs: Numbers
    pair_items: Numbers
    pair_iou: Array
    pair_f1: Array


def _checked(**given: ArrayLike) -> list[Numbers]:
    out = [np.asarray(values) for values in given.values()]
    for name, values in zip(given, out, strict=True):
        if values.ndim != 1 or values.shape != out[0].shape:
            raise InvalidInputError(f"{name} has shape {values.shape}: give one number an opinion, as many as items")
        if values.size and (not np.issubdtype(values.dtype, np.integer) or values.min() < 0):
            raise InvalidInputError(f"{name} must be whole numbers from 0 on")
    return [values.astype(np.int64) for values in out]


def class_agreement(items: ArrayLike, workers: ArrayLike, classes: ArrayLike, n_classes: int) -> Agreement:
    """Return how far people agree on classes; (n,) whole numbers each, one row an opinion, each worker once an item.

    Fleiss, Psychological Bulletin 1971, for any number of opinions an item; Krippendorff, Content Analysis 2004, nominal; Cohen,
    Educational and Psychological Measurement 1960. Raises InvalidInputError on other shapes or a class beyond `n_classes`.
    """
    a, b, c = _checked(items=items, workers=workers, classes=classes)
    if c.size and c.max() >= n_classes:
        raise InvalidInputError(f"class {c.max()} is beyond the {n_classes} classes")
    counts = _counts(a, c, n_classes)
    m = counts.sum(axis=1)
    share, fleiss = _fleiss(counts, m)
    rest = [_alpha(np.stack([counts[:, k], m - counts[:, k]], axis=1), m) for k in range(n_classes)]
    pairs, _, first, second = _pair_rows(a, b)
    n, observed, cohen, found = _cohen(pairs, c[first], c[second], n_classes)
    return Agreement(len(m), share, fleiss, _alpha(counts, m), np.array(rest), found, n, observed, cohen)


def _counts(items: Numbers, classes: Numbers, n_classes: int) -> Array:
    """Return (items with two opinions or more, n_classes) counts."""
    if not items.size:
        return np.zeros((0, n_classes))
    _, place, sizes = np.unique(items, return_inverse=True, return_counts=True)
    row = np.cumsum(sizes > 1) - 1
    many = sizes[place] > 1
    flat = row[place[many]] * n_classes + classes[many]
    return np.bincount(flat, minlength=int((sizes > 1).sum()) * n_classes).reshape(-1, n_classes).astype(np.float64)


def _corrected(observed: Array, expected: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(expected < 1, (observed - expected) / (1 - expected), np.nan))


def _fleiss(counts: Array, m: Array) -> tuple[float, float]:
    if not len(m):
        return float("nan"), float("nan")
    observed = float(((counts * (counts - 1)).sum(axis=1) / (m * (m - 1))).mean())
    p = counts.sum(axis=0) / counts.sum()
    return observed, float(_corrected(np.array(observed), np.array((p**2).sum())))


def _alpha(counts: Array, m: Array) -> float:
    """Krippendorff's alpha for nominal data out of counts (n_items, n_classes), m their sums."""
    if not len(m):
        return float("nan")
    same = ((counts * (counts - 1)).sum(axis=1) / (m - 1)).sum()
    n, totals = m.sum(), counts.sum(axis=0)
    expected = 1 - (totals * (totals - 1)).sum() / (n * (n - 1))
    return float(1 - (1 - same / n) / expected) if expected > 0 else float("nan")


def interval_alpha(items: ArrayLike, values: ArrayLike) -> float:
    """Return Krippendorff's alpha for numbers (interval data), NaN without an item of two opinions or without any spread."""
    a = _checked(items=items)[0]
    v = np.asarray(values, dtype=np.float64)
    if v.shape != a.shape or not np.isfinite(v).all():
        raise InvalidInputError(f"values of shape {v.shape}: give one finite number an opinion")
    _, place, sizes = np.unique(a, return_inverse=True, return_counts=True)
    many = sizes[place] > 1 if a.size else np.zeros(0, bool)
    v, place = v[many], place[many] if a.size else place
    n = len(v)
    if n < 2:
        return float("nan")
    m = np.bincount(place, minlength=len(sizes))[place]
    sums, squares = np.bincount(place, v, minlength=len(sizes)), np.bincount(place, v**2, minlength=len(sizes))
    within = float(((v**2 * m - 2 * v * sums[place] + squares[place]) / (m - 1)).sum() / n)
    overall = float((2 * n * (v**2).sum() - 2 * v.sum() ** 2) / (n * (n - 1)))
    return 1 - within / overall if overall > 0 else float("nan")


# ---------------------------------------------------------------- pairs


def _pair_rows(items: Numbers, workers: Numbers) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Return every two opinions on one item: (r, 2) workers, first < second, (r,) items, and the two rows of each."""
    order = np.lexsort((workers, items))
    sorted_items = items[order]
    left, right = [], []
    for gap in range(1, int(np.unique(items, return_counts=True)[1].max(initial=1))):
        at = np.flatnonzero(sorted_items[gap:] == sorted_items[:-gap])
        left.append(at)
        right.append(at + gap)
    none = np.zeros(0, dtype=np.int64)
    first, second = order[np.concatenate([none, *left])], order[np.concatenate([none, *right])]
    return np.stack([workers[first], workers[second]], axis=1), items[first], first, second


def _cohen(pairs: Numbers, first: Numbers, second: Numbers, n_classes: int) -> tuple[Numbers, Array, Array, Numbers]:
    """Return of each pair of people the common items, the share of equal classes, kappa, and who they are (p, 2)."""
    found, place = np.unique(pairs, axis=0, return_inverse=True) if len(pairs) else (pairs, np.zeros(0, dtype=np.int64))
    place = place.reshape(-1)
    n = np.bincount(place, minlength=len(found))
    shares = [np.bincount(place * n_classes + c, minlength=len(found) * n_classes).reshape(-1, n_classes) for c in (first, second)]
    observed = np.bincount(place, first == second, minlength=len(found)) / np.maximum(n, 1)
    expected = (shares[0] * shares[1]).sum(axis=1) / np.maximum(n, 1) ** 2
    return n.astype(np.int64), observed, _corrected(observed, expected), found


# ---------------------------------------------------------------- marks


def mark_agreement(
    items: ArrayLike,
    workers: ArrayLike,
    classes: ArrayLike,
    outlines: ArrayLike,
    looked: ArrayLike,
    n_classes: int,
    least: float = 0.5,
) -> MarkAgreement:
    """Return how far people agree on marks: (n,) whole numbers and outlines (n, 2) or (n, 4) as `crowd_regions` takes them.

    looked: (m, 2) pairs (item, worker) of all who saw an item. Two marks are one thing from an intersection over union of `least`
    on. A pair of people who both marked nothing agrees fully and has no overlap.
    """
    a, b, c = _checked(items=items, workers=workers, classes=classes)
    seen = np.asarray(looked, dtype=np.int64).reshape(-1, 2)
    pairs, pair_items, _, _ = _pair_rows(seen[:, 0], seen[:, 1])
    lines = _copied(a, b, pairs, pair_items)
    row, side, mark = lines
    shapes = np.asarray(outlines, dtype=np.float64).reshape(len(a), -1)[mark] if len(a) else np.zeros((0, 4))
    groups = match_regions(row, side, shapes, least) if len(row) else np.zeros(0, dtype=np.int64)
    first, second = _couples(groups, side)
    same = c[mark[first]] == c[mark[second]]
    shares = overlap(shapes[first], shapes[second]) if len(first) else np.zeros(0)
    iou = _means(row[first], shares, len(pairs))
    f1 = _f1(row[first][same], row, len(pairs))
    by_class = [_class_f1(k, row, c[mark], row[first][same], c[mark[first]][same], len(pairs)) for k in range(n_classes)]
    found, place = np.unique(pairs, axis=0, return_inverse=True) if len(pairs) else (pairs, np.zeros(0, dtype=np.int64))
    place = place.reshape(-1)
    counts = np.bincount(place, minlength=len(found)).astype(np.int64)
    per_iou, per_f1 = (_means(place[~np.isnan(of)], of[~np.isnan(of)], len(found)) for of in (iou, f1))
    return MarkAgreement(len(np.unique(pair_items)), _mean(iou), _mean(f1), np.array(by_class), found, counts, per_iou, per_f1)


def _copied(items: Numbers, workers: Numbers, pairs: Numbers, pair_items: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Return the marks once for each pair of people that its author is in: pair row, side (0, 1) and mark."""
    order = np.lexsort((workers, items))
    span = int(max(workers.max(initial=0), pairs.max(initial=0))) + 1
    keys = items[order] * span + workers[order]
    rows, sides, marks = [], [], []
    for side in (0, 1):
        wanted = pair_items * span + pairs[:, side]
        begin, end = np.searchsorted(keys, wanted, "left"), np.searchsorted(keys, wanted, "right")
        n = end - begin
        rows.append(np.repeat(np.arange(len(pairs)), n))
        sides.append(np.full(int(n.sum()), side))
        marks.append(order[np.repeat(begin - (np.cumsum(n) - n), n) + np.arange(int(n.sum()))])
    return np.concatenate(rows), np.concatenate(sides), np.concatenate(marks)


def _couples(groups: Numbers, side: Numbers) -> tuple[Numbers, Numbers]:
    """Return the two marks of each group that has two."""
    order = np.lexsort((side, groups))
    both = np.flatnonzero(groups[order][1:] == groups[order][:-1])
    return order[both], order[both + 1]


def _means(place: Numbers, values: Array, n: int) -> Array:
    counts = np.bincount(place, minlength=n)
    return np.asarray(np.where(counts > 0, np.bincount(place, values, minlength=n) / np.maximum(counts, 1), np.nan))


def _mean(values: Array) -> float:
    return float(np.nanmean(values)) if len(values) and not np.isnan(values).all() else float("nan")


def _f1(matched: Numbers, marked: Numbers, n: int) -> Array:
    """F1 of each pair row: 1 where neither marked anything."""
    total = np.bincount(marked, minlength=n)
    return np.asarray(np.where(total > 0, 2 * np.bincount(matched, minlength=n) / np.maximum(total, 1), 1.0))


def _class_f1(k: int, row: Numbers, classes: Numbers, matched: Numbers, matched_classes: Numbers, n: int) -> float:
    total = np.bincount(row[classes == k], minlength=n)
    hits = np.bincount(matched[matched_classes == k], minlength=n)
    return float((2 * hits[total > 0] / total[total > 0]).mean()) if (total > 0).any() else float("nan")
