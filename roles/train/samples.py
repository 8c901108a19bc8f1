"""From the frozen training set of a run to arrays.

Owns the split into training and held-out part and the lookup of features. Must never read the label log. Called by the training
child. Items whose features cannot be had are left out with one line in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from datastore_layout.labels import LabelRow
from datastore_layout.root import TaskFolder
from datastore_layout.shards import ShardSet
from datastore_layout.training_sets import TrainingSet
from intake.pipeline import Pipeline
from labelloop.errors import InvalidInputError, NotFoundError
from labelloop.messages import Item, TaskSpec
from labelloop.settings import IntakeSettings
from learning.held_out import held_out_mask

logger = logging.getLogger(__name__)


class Part(msgspec.Struct, frozen=True):
    """`x` (n, d) and `y`, (n,) int64 or (n, k) uint8, of the items behind `rows`, in one order."""

    rows: tuple[LabelRow, ...]
    x: NDArray[Any]
    y: NDArray[Any]


class Samples(msgspec.Struct, frozen=True):
    """What a run learns from and what it is judged on."""

    train: Part
    held_out: Part


def labels_as_numbers(rows: Sequence[LabelRow], spec: TaskSpec) -> NDArray[Any]:
    """Return y of `rows`: (n,) int64 for multiclass, (n, k) uint8 for multilabel, in the label set's order."""
    number = {label: i for i, label in enumerate(spec.extra.labels)}
    if spec.extra.kind == "multiclass":
        return np.array([number[row.labels[0]] for row in rows], dtype=np.int64)
    y = np.zeros((len(rows), len(number)), dtype=np.uint8)
    for i, row in enumerate(rows):
        y[i, [number[label] for label in row.labels]] = 1
    return y


def load_features(
    folder: TaskFolder, spec: TaskSpec, encoder: str, rows: Sequence[LabelRow], settings: IntakeSettings
) -> tuple[tuple[LabelRow, ...], NDArray[Any]]:
    """Return the rows that have features under `encoder`, and these, (n, d).

    Rows that name their place in a shard of this encoder cost no lookup; others go through the intake pipeline, which finds or
    makes them.
    """
    if all(row.shard for row in rows):
        try:
            return tuple(rows), ShardSet(folder, encoder).rows([(row.shard, row.row) for row in rows])
        except NotFoundError:
            logger.info("the labels' features are not of encoder %s: they are looked up or made", encoder)
    batch = Pipeline(folder, spec, encoder, settings).features([Item(item_id=row.item_id, link=row.link) for row in rows])
    if batch.failed:
        logger.warning("%d items have no features and are left out, first %s", len(batch.failed), batch.failed[0].reason)
    return tuple(rows[i] for i in batch.indices), batch.features


def load_samples(folder: TaskFolder, frozen: TrainingSet, encoder: str, held_out_share: float, settings: IntakeSettings) -> Samples:
    """Return both parts of a run's training set. Raises InvalidInputError when one of them is empty."""
    known = set(frozen.spec.extra.labels)
    usable = [row for row in frozen.rows if known.issuperset(row.labels)]
    rows, x = load_features(folder, frozen.spec, encoder, usable, settings)
    mask = held_out_mask([row.item_id for row in rows], held_out_share)
    if not len(rows) or mask.all() or not mask.any():
        raise InvalidInputError(f"{len(rows)} usable labels, {int(mask.sum())} of them held out: both parts need at least one")
    y = labels_as_numbers(rows, frozen.spec)
    inside = tuple(row for row, is_out in zip(rows, mask, strict=True) if not is_out)
    outside = tuple(row for row, is_out in zip(rows, mask, strict=True) if is_out)
    return Samples(Part(inside, x[~mask], y[~mask]), Part(outside, x[mask], y[mask]))
