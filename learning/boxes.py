"""Boxes of many pictures at once: the checks on those to learn from, and which of several found boxes mean the same thing.

Owns the arithmetic of boxes. Must never import torch. Called by box-head. A box is (x, y, width, height) as shares of its picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.regions import Regions

_SLACK = 1e-3  # rounding of outlines drawn in pixels


def check_boxes(y: Sequence[Regions]) -> list[Regions]:
    """Return checked regions (`learning.regions.check_regions`) as boxes, cut to the picture where rounding made them stand out.

    Raises InvalidInputError naming the picture and the box: spans instead of boxes, a box outside the picture.
    """
    return [_checked(row, regions) for row, regions in enumerate(y)]


def _checked(row: int, regions: Regions) -> Regions:
    where = regions.where
    if where.shape[1] != 4:
        raise InvalidInputError(f"item {row} has regions of {where.shape[1]} numbers: box-head learns boxes (x, y, width, height)")
    start, end = where[:, :2], where[:, :2] + where[:, 2:]
    is_wrong = (start < -_SLACK).any(axis=1) | (end > 1 + _SLACK).any(axis=1)
    if is_wrong.any():
        raise InvalidInputError(
            f"item {row} has the box {where[is_wrong][0].tolist()} outside the picture: "
            f"give (x, y, width, height) as shares of the picture, in [0, 1]"
        )
    start = np.clip(start, 0, 1)
    return regions._replace(where=np.concatenate([start, np.clip(end, 0, 1) - start], axis=1))


def overlap_among(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return intersection over union of the boxes of each picture among themselves: (n, t, 4) -> (n, t, t)."""
    start, size = boxes[..., :2], boxes[..., 2:]
    end = start + size
    shared = np.minimum(end[:, :, None], end[:, None]) - np.maximum(start[:, :, None], start[:, None])
    inner = np.maximum(shared, 0).prod(axis=-1)
    area = size.prod(axis=-1)
    union = area[:, :, None] + area[:, None] - inner
    out: NDArray[np.float32] = np.divide(inner, union, out=np.zeros_like(inner), where=union > 0)
    return out


def suppress(boxes: NDArray[np.float32], most_overlap: float) -> NDArray[np.bool_]:
    """Return which boxes stay when each takes away the later ones that it overlaps by more than `most_overlap`.

    Greedy non-maximum suppression (P. F. Felzenszwalb et al., "Object Detection with Discriminatively Trained Part-Based Models",
    PAMI 2010), one turn for each place in the order, over all pictures at once. boxes: (n, t, 4), each picture's best first.
    Returns (n, t) bool.
    """
    is_close = overlap_among(boxes) > most_overlap
    kept = np.ones(boxes.shape[:2], dtype=np.bool_)
    for place in range(boxes.shape[1] - 1):
        kept[:, place + 1 :] &= ~(is_close[:, place, place + 1 :] & kept[:, place, None])
    return kept
