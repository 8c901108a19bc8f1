"""Spans as tags of words and back: B-label, I-label, O, after L. Ramshaw, M. Marcus, "Text Chunking using Transformation-Based
Learning", WVLC 1995, with B at each span's first word (IOB2).

Owns which tag may follow which, and what becomes of spans that words cannot hold. Tag 0 is O, 1 + 2k is B and 2 + 2k is I of label
k. Must never train. Called by `token_head` and its chains.

| a person's span | what is learned of it |
| --- | --- |
| that begins or ends inside a word | the whole word belongs to it |
| between two words, or beyond the words of the row | nothing: it is left out, the others of the text stay |
| that overlaps another | the longer is kept, of equal ones the earlier; the other is left out |
| with an end not above its start, below 0, NaN, or a label out of range | the training is refused, naming text and span |
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.regions import Regions

OUTSIDE = 0


class Tagging(NamedTuple):
    """Which tags exist: is_used, may_start (t,) and may_follow (t, t) bool; row = tag, column = the next one's."""

    is_used: NDArray[np.bool_]
    may_start: NDArray[np.bool_]
    may_follow: NDArray[np.bool_]


def tagging_of(is_seen: NDArray[np.bool_]) -> Tagging:
    """Return the tagging of labels is_seen (k,): a label without a span in training has no tags; I follows B or I of its label."""
    n_tags = 1 + 2 * len(is_seen)
    is_used = np.ones(n_tags, dtype=np.bool_)
    is_used[1:] = np.repeat(is_seen, 2)
    may_start = is_used.copy()
    may_start[2::2] = False
    may_follow = np.outer(is_used, is_used)
    for inside in range(2, n_tags, 2):
        may_follow[:, inside] = False
        may_follow[[inside - 1, inside], inside] = is_used[inside]
    return Tagging(is_used, may_start, may_follow)


def check_spans(regions: Regions, item: int) -> None:
    """Raise InvalidInputError naming text `item` when it has boxes or a span below 0; the rest `learning.regions` has checked."""
    if regions.where.shape[1] != 2:
        raise InvalidInputError(f"item {item} has boxes: this algorithm learns spans (start, end); box-head learns boxes")
    if len(regions.where) and regions.where.min() < 0:
        raise InvalidInputError(f"item {item} has a span that begins at {regions.where.min():g}: the first code point is 0")


def tags_of(regions: Regions, words: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the tags (w,) of a text whose words lie at `words` (w, 2), as the module's table says."""
    tags = np.zeros(len(words), dtype=np.int64)
    is_free = np.ones(len(words), dtype=np.bool_)
    where = np.asarray(regions.where, dtype=np.float64).reshape(-1, 2)
    order = np.lexsort((where[:, 0], where[:, 0] - where[:, 1]))
    for start, end, label in zip(where[order, 0], where[order, 1], np.asarray(regions.labels)[order], strict=True):
        covered = np.flatnonzero((words[:, 0] < end) & (words[:, 1] > start))
        if len(covered) and is_free[covered].all():
            is_free[covered] = False
            tags[covered] = 2 + 2 * label
            tags[covered[0]] = 1 + 2 * label
    return tags


def runs_of(tags: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Return (first word, last word, label) of each span in well-formed tags (w,)."""
    found: list[tuple[int, int, int]] = []
    for at, tag in enumerate(tags.tolist()):
        if tag % 2:
            found.append((at, at, (tag - 1) // 2))
        elif tag:
            found[-1] = (found[-1][0], at, found[-1][2])
    return found
