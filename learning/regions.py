"""Boxes and spans as arrays, and what a model and an algorithm of regions are.

Owns the shape of regions in mathematics; `labelloop.messages.Region` is the same between processes. Must never read a picture or a
text. Called by the algorithms of regions, their metrics, and the roles that train and ask them.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.algorithms.base import Model


class Regions(NamedTuple):
    """The regions of one item.

    where: (r, 4) float32 boxes (x, y, width, height) as shares of the picture's width and height, or (r, 2) float32 spans (start,
    end) in code points, end exclusive. labels: (r,) int64 class numbers. scores: (r,) float32 confidences in [0, 1], falling.
    """

    where: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]


class RegionModel(Model, abc.ABC):
    """A trained model that finds regions."""

    @abc.abstractmethod
    def predict_regions(self, x: NDArray[Any]) -> list[Regions]:
        """Return what is found in each item of x, (n, d) features as in training. A row that is NaN throughout has no region."""

    def predict_proba(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Return (n, n_labels) float32: the highest confidence of a region of each label, 0 where none was found."""
        return best_scores(self.predict_regions(x), self.n_labels)


def best_scores(found: Sequence[Regions], n_labels: int) -> NDArray[np.float32]:
    """Return (n, n_labels) float32: the highest score of a region of each label in each item."""
    out = np.zeros((len(found), n_labels), dtype=np.float32)
    for row, regions in enumerate(found):
        np.maximum.at(out[row], regions.labels, regions.scores)
    return out


def check_regions(y: Any, n: int, n_labels: int) -> list[Regions]:
    """Return the labels of `n` items as n `Regions` of one kind, float32 and int64, with scores of 1 where none are given.

    Raises InvalidInputError naming the first item at fault: another number of items, boxes beside spans, a label out of range, a
    region that is not finite or has no size, scores of another length; also when no item has any region.
    """
    items = list(y) if isinstance(y, Sequence) else []
    if not n or n_labels < 1 or len(items) != n:
        raise InvalidInputError(f"{len(items)} items with regions for {n} rows and {n_labels} labels: give one Regions a row")
    checked = [_checked(i, one, n_labels) for i, one in enumerate(items)]
    widths = {one.where.shape[1] for one in checked}
    if len(widths) > 1:
        raise InvalidInputError("y mixes boxes (r, 4) and spans (r, 2): a model learns one of them")
    if not any(len(one.labels) for one in checked):
        raise InvalidInputError(f"none of the {n} items has a region: label at least one that shows something")
    return checked


def _checked(i: int, one: Any, n_labels: int) -> Regions:
    if not isinstance(one, Regions):
        raise InvalidInputError(f"item {i} of y is {type(one).__name__}, expected learning.regions.Regions")
    where, labels = np.asarray(one.where, dtype=np.float32), np.asarray(one.labels)
    if where.ndim != 2 or where.shape[1] not in (2, 4) or labels.shape != (len(where),):
        raise InvalidInputError(
            f"item {i} has regions of shape {where.shape} with labels {labels.shape}: give (r, 4) or (r, 2) and (r,)"
        )
    if len(labels) and (labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= n_labels):
        raise InvalidInputError(f"item {i} has labels {labels[:5].tolist()}: give integers from 0 to {n_labels - 1}")
    sizes = where[:, 2:] if where.shape[1] == 4 else where[:, 1:] - where[:, :1]
    is_wrong = ~(np.isfinite(where).all(axis=1) & (sizes > 0).all(axis=1))
    if is_wrong.any():
        raise InvalidInputError(
            f"item {i} has the region {where[is_wrong.argmax()].tolist()}: it needs finite numbers and a size above 0"
        )
    scores = np.asarray(one.scores, dtype=np.float32)
    if scores.shape not in ((0,), labels.shape):
        raise InvalidInputError(f"item {i} has {len(labels)} regions and {len(scores)} scores: give as many, or none")
    return Regions(where, labels.astype(np.int64), scores if len(scores) else np.ones(len(labels), dtype=np.float32))
