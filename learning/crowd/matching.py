"""Which regions of several annotators mean the same thing: spans and boxes of one item, matched by their overlap.

Owns overlap, groups and the consensus outline. Must never decide a class. Called by `learning.crowd.regions`.

A region is an axis-parallel interval in d dimensions: (start, end) of a span, (x0, y0, x1, y1) of a box; highs are exclusive.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_PAIRS_AT_ONCE = 1_000_000


def overlap(first: Array, second: Array) -> Array:
    """Return intersection over union of regions row by row: (m, 2 d), (m, 2 d) -> (m,) in [0, 1]."""
    d = first.shape[1] // 2
    shared = np.minimum(first[:, d:], second[:, d:]) - np.maximum(first[:, :d], second[:, :d])
    inner = np.maximum(shared, 0).prod(axis=1)
    union = (first[:, d:] - first[:, :d]).prod(axis=1) + (second[:, d:] - second[:, :d]).prod(axis=1) - inner
    return np.asarray(inner / union)


def match_regions(items: NDArray[np.int64], workers: NDArray[np.int64], outlines: Array, min_overlap: float) -> NDArray[np.int64]:
    """Return the group of each region: (n,), numbered in order of items.

    Greedy from the best overlap down, with complete linkage: in a group no worker is twice and every two regions overlap by
    `min_overlap` or more, so that a chain of neighbours never becomes one thing. Deterministic; work and memory grow with the pairs
    of regions within single items.
    """
    order = np.argsort(items, kind="stable")
    groups = [[i] for i in range(len(items))]
    place = np.arange(len(items))
    for a, b in _pairs(items[order]):
        first, second = order[a], order[b]
        other = workers[first] != workers[second]
        first, second = first[other], second[other]
        shares = overlap(outlines[first], outlines[second])
        near = np.flatnonzero(shares >= min_overlap)
        near = near[np.argsort(-shares[near], kind="stable")]
        _merge(list(zip(first[near].tolist(), second[near].tolist(), strict=True)), workers, groups, place)
    _, first_member = np.unique(place[order], return_index=True)
    names = place[order][np.sort(first_member)]
    number = np.empty(len(items), dtype=np.int64)
    number[names] = np.arange(len(names))
    return number[place]


def _pairs(sorted_items: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield all pairs of places with equal items, whole items at a time, about a million pairs a turn."""
    ends = np.searchsorted(sorted_items, sorted_items, side="right")
    partners = ends - np.arange(len(sorted_items)) - 1
    total = np.cumsum(partners)
    begin = 0
    while begin < len(sorted_items):
        done = total[begin - 1] if begin else 0
        end = int(ends[min(int(np.searchsorted(total, done + _PAIRS_AT_ONCE)), len(sorted_items) - 1)])
        first = np.repeat(np.arange(begin, end), partners[begin:end])
        offset = np.arange(len(first)) - np.repeat(np.cumsum(partners[begin:end]) - partners[begin:end], partners[begin:end])
        yield first, first + 1 + offset
        begin = end


def _merge(pairs: list[tuple[int, int]], workers: NDArray[np.int64], groups: list[list[int]], place: NDArray[np.int64]) -> None:
    close = {*pairs, *((b, a) for a, b in pairs)}
    for a, b in pairs:
        keep, gone = int(place[a]), int(place[b])
        if keep == gone or not all((x, y) in close for x in groups[keep] for y in groups[gone]):
            continue
        if {int(workers[x]) for x in groups[keep]} & {int(workers[y]) for y in groups[gone]}:
            continue
        for member in groups[gone]:
            place[member] = keep
        groups[keep] += groups[gone]
        groups[gone] = []


def consensus_outlines(groups: NDArray[np.int64], outlines: Array, weights: Array) -> Array:
    """Return the weighted median of each coordinate of each group: (n_groups, 2 d), each a coordinate that somebody drew.

    A median ignores one careless outline where a mean would follow it. weights (n,) above 0; of an exact half the lower is taken.
    """
    n_groups = int(groups.max(initial=-1)) + 1
    half = np.bincount(groups, weights, minlength=n_groups) / 2
    out = np.empty((n_groups, outlines.shape[1]))
    for column in range(outlines.shape[1]):
        order = np.lexsort((outlines[:, column], groups))
        member = groups[order]
        begins = np.searchsorted(member, np.arange(n_groups))
        running = np.cumsum(weights[order])
        before = np.where(begins > 0, running[begins - 1], 0.0)
        reached = running - before[member] >= half[member] * (1 - 1e-9)
        first = np.minimum.reduceat(np.where(reached, np.arange(len(order)), len(order)), begins)
        out[:, column] = outlines[order[first], column]
    return out
