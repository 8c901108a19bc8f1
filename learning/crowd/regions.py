"""Spans and boxes of several annotators: matched by overlap, then each group aggregated as an item with one class more, 'nothing'.

Owns `Regions`, `Consensus` and the meaning of a worker who looked and drew nothing. Must never touch text or pixels. Called by the
app's review and the roles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labelloop.errors import InvalidInputError
from learning.crowd import Aggregation, aggregate, crowd_labels
from learning.crowd.matching import consensus_outlines, match_regions, overlap

Array = NDArray[np.float64]
_LEAST_WEIGHT = 0.05


class Regions(NamedTuple):
    """What was drawn: `items`, `workers`, `classes` (n,) and `outlines` (n, 2) or (n, 4); `looked` (m, 2) pairs (item, worker)."""

    items: NDArray[np.int64]
    workers: NDArray[np.int64]
    classes: NDArray[np.int64]
    outlines: Array
    looked: NDArray[np.int64]
    n_items: int
    n_workers: int
    n_classes: int


class Consensus(NamedTuple):
    """One row a group of matched regions, in order of items.

    `items`, `classes` (g,), `outlines` (g, 2 d), `posteriors` (g, n_classes + 1), the last column being 'nothing is there';
    `is_kept` (g,): something is likelier than nothing. `classes` is the likeliest real class. `groups` (n,): the group of each
    drawn region. `overlaps` (n_workers,): mean overlap of a worker's regions with the kept outlines, NaN without one.
    `aggregation` tells of the workers, its items being the groups.
    """

    items: NDArray[np.int64]
    outlines: Array
    classes: NDArray[np.int64]
    posteriors: Array
    is_kept: NDArray[np.bool_]
    groups: NDArray[np.int64]
    overlaps: Array
    aggregation: Aggregation


def crowd_regions(
    items: ArrayLike,
    workers: ArrayLike,
    classes: ArrayLike,
    outlines: ArrayLike,
    *,
    looked: ArrayLike = (),
    n_items: int = 0,
    n_workers: int = 0,
    n_classes: int = 0,
) -> Regions:
    """Return regions checked: spans (n, 2) as (start, end), boxes (n, 4) as (x0, y0, x1, y1), highs exclusive, any unit.

    looked: pairs (item, worker) of those who saw the item; who drew on it is added. Without it, a worker who drew nothing on an
    item counts as not having seen it, so that a region which one of three left out on an empty page is undisputed.

    | bad input | answer |
    |---|---|
    | what `crowd_labels` refuses of indices | InvalidInputError |
    | outlines of another shape, NaN, infinite, or an end not above its start | InvalidInputError naming the row |
    | looked not of shape (m, 2) or out of range | InvalidInputError |
    | nothing drawn | accepted: a consensus without groups |
    """
    pairs = np.asarray(looked, dtype=np.int64).reshape(0, 2) if np.size(looked) == 0 else np.asarray(looked)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise InvalidInputError(f"looked must be pairs (item, worker), (m, 2), got shape {pairs.shape}")
    x = [np.asarray(a) for a in (items, workers, classes)]
    if len({a.shape for a in x}) > 1:
        raise InvalidInputError(f"items, workers and classes have shapes {[a.shape for a in x]}: one each per region")
    seen = crowd_labels(
        np.append(x[0], pairs[:, 0]),
        np.append(x[1], pairs[:, 1]),
        np.append(x[2], np.zeros(len(pairs), dtype=np.int64)),
        n_items=n_items,
        n_workers=n_workers,
        n_classes=n_classes,
    )
    shapes = _checked_outlines(outlines, x[0].size)
    drew = np.stack([x[0], x[1]], axis=1).astype(np.int64) if x[0].size else np.empty((0, 2), dtype=np.int64)
    looks = np.unique(np.concatenate([drew, pairs.astype(np.int64)]), axis=0)
    a, b, c = (part.astype(np.int64) for part in x)
    return Regions(a, b, c, shapes, looks, seen.n_items, seen.n_workers, seen.n_classes)


def _checked_outlines(outlines: ArrayLike, n: int) -> Array:
    shapes = np.asarray(outlines, dtype=np.float64)
    if n == 0 and shapes.size == 0:
        return np.empty((0, shapes.shape[1] if shapes.ndim == 2 and shapes.shape[1] in (2, 4) else 2))
    if shapes.shape not in ((n, 2), (n, 4)):
        raise InvalidInputError(f"outlines must be ({n}, 2) for spans or ({n}, 4) for boxes, got shape {shapes.shape}")
    d = shapes.shape[1] // 2
    wrong = ~(np.isfinite(shapes).all(axis=1) & (shapes[:, d:] > shapes[:, :d]).all(axis=1))
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidInputError(f"outline {row} is {shapes[row].tolist()}: each end must be finite and above its start")
    return shapes


def aggregate_regions(
    method: str, regions: Regions, *, min_overlap: float = 0.5, options: Mapping[str, Any] | None = None
) -> Consensus:
    """Return what the crowd drew: regions matched at `min_overlap` (intersection over union, in (0, 1]), classes by `method`.

    Each worker who looked at an item labels each group of it, with the class drawn or with 'nothing'. Outlines are medians weighted
    by the workers' quality. Raises InvalidInputError on a share outside (0, 1], and what `aggregate` raises.
    """
    if not 0.0 < min_overlap <= 1.0:
        raise InvalidInputError(f"min_overlap must be in (0, 1], got {min_overlap}")
    groups = match_regions(regions.items, regions.workers, regions.outlines, min_overlap)
    n_groups = int(groups.max(initial=-1)) + 1
    group_items = np.zeros(n_groups, dtype=np.int64)
    group_items[groups] = regions.items
    answers = _answers(regions, groups, group_items)
    labels = crowd_labels(*answers, n_items=n_groups, n_workers=regions.n_workers, n_classes=regions.n_classes + 1)
    found = aggregate(method, labels, options=options)
    weights = np.nan_to_num(found.quality[regions.workers]).clip(_LEAST_WEIGHT)
    outlines = consensus_outlines(groups, regions.outlines, weights)
    is_kept = found.labels != regions.n_classes
    return Consensus(
        items=group_items,
        outlines=outlines,
        classes=found.posteriors[:, :-1].argmax(axis=1),
        posteriors=found.posteriors,
        is_kept=is_kept,
        groups=groups,
        overlaps=_overlaps(regions, groups, outlines, is_kept),
        aggregation=found,
    )


def _answers(
    regions: Regions, groups: NDArray[np.int64], group_items: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return (group, worker, class) of everybody who looked: n_classes where nothing was drawn there."""
    begins = np.searchsorted(regions.looked[:, 0], group_items, side="left")
    counts = np.searchsorted(regions.looked[:, 0], group_items, side="right") - begins
    of_group = np.repeat(np.arange(len(group_items)), counts)
    rows = np.repeat(begins - (np.cumsum(counts) - counts), counts) + np.arange(len(of_group))
    lookers = regions.looked[rows, 1]
    classes = np.full(len(of_group), regions.n_classes, dtype=np.int64)
    keys = of_group * regions.n_workers + lookers  # rising: groups in order, lookers of an item in order
    classes[np.searchsorted(keys, groups * regions.n_workers + regions.workers)] = regions.classes
    return of_group, lookers, classes


def _overlaps(regions: Regions, groups: NDArray[np.int64], outlines: Array, is_kept: NDArray[np.bool_]) -> Array:
    kept = is_kept[groups]
    shares = overlap(regions.outlines[kept], outlines[groups[kept]])
    sums = np.bincount(regions.workers[kept], shares, minlength=regions.n_workers)
    counts = np.bincount(regions.workers[kept], minlength=regions.n_workers)
    return np.asarray(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))
