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
from labelloop.messages import REGION_CATEGORIES, Item, TaskSpec
from labelloop.settings import IntakeSettings
from learning.held_out import held_out_mask
from learning.regions import Regions
from roles.regions import WIDTH_OF, to_arrays

logger = logging.getLogger(__name__)


class Part(msgspec.Struct, frozen=True):
    """`x` (n, d) and `y` of the items behind `rows`, in one order: (n,) int64, (n, k) uint8, or a list of n `Regions`."""

    rows: tuple[LabelRow, ...]
    x: NDArray[Any]
    y: NDArray[Any] | list[Regions]


class Samples(msgspec.Struct, frozen=True):
    """What a run learns from and what it is judged on. `soft_labels` makes the former's y probabilities, (n, k) float32, where
    some label is uncertain."""

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


def regions_as_arrays(rows: Sequence[LabelRow], spec: TaskSpec) -> list[Regions]:
    """Return y of `rows` for a task of boxes or spans: one `Regions` a row, classes numbered in the label set's order."""
    number = {label: i for i, label in enumerate(spec.extra.labels)}
    return [to_arrays(row.regions, number, WIDTH_OF[spec.category]) for row in rows]


def labels_of(row: LabelRow) -> set[str]:
    """Return every label that a row names, its own or those of its regions."""
    return {*row.labels, *(one.label for one in row.regions)}


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
    usable = [row for row in frozen.rows if known.issuperset(labels_of(row))]
    rows, x = load_features(folder, frozen.spec, encoder, usable, settings)
    mask = held_out_mask([row.item_id for row in rows], held_out_share)
    if not len(rows) or mask.all() or not mask.any():
        raise InvalidInputError(f"{len(rows)} usable labels, {int(mask.sum())} of them held out: both parts need at least one")
    return Samples(_part(rows, x, frozen.spec, ~mask), _part(rows, x, frozen.spec, mask))


def _part(rows: Sequence[LabelRow], x: NDArray[Any], spec: TaskSpec, mask: NDArray[np.bool_]) -> Part:
    mine = tuple(row for row, is_in in zip(rows, mask, strict=True) if is_in)
    has_regions = spec.category in REGION_CATEGORIES
    return Part(mine, x[mask], regions_as_arrays(mine, spec) if has_regions else labels_as_numbers(mine, spec))
