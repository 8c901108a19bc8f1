"""Labels that rules or a crowd gave: probabilities that teach, and that nothing is judged on.

Owns which of them a run may learn from, and the y that they make. Must never touch a file. Called by an attempt around
`samples`, which takes the likeliest label for the label.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from datastore_layout.labels import LabelRow
from datastore_layout.training_sets import TrainingSet
from labelloop.errors import InvalidInputError
from labelloop.messages import TaskSpec
from learning.held_out import is_held_out
from roles.train.samples import Samples
from roles.train.validation import LIKELY

logger = logging.getLogger(__name__)


def learnable(frozen: TrainingSet, held_out_share: float) -> TrainingSet:
    """Return the training set without the probabilities that a run must not see.

    Those of held-out items are left out (a person's label may come later and must then be unseen), and those of another order of
    labels. Raises InvalidInputError when people gave no label to judge on.
    """
    if not any(row.proba for row in frozen.rows):
        return frozen
    rows = tuple(
        row
        for row in frozen.rows
        if not row.proba or (is_current(row, frozen.spec) and not is_held_out(row.item_id, held_out_share))
    )
    if not any(not row.proba and is_held_out(row.item_id, held_out_share) for row in rows):
        raise InvalidInputError(
            f"none of {sum(not row.proba for row in rows)} labels by people is in the held-out part, on which versions are judged: "
            "label a few more items"
        )
    return msgspec.structs.replace(frozen, rows=rows)


def is_current(row: LabelRow, spec: TaskSpec) -> bool:
    """Return whether the probabilities of a row are of the labels that the task has now, or had before the last were added."""
    named = [(label, p) for p, label in zip(row.proba, spec.extra.labels, strict=False)]
    if len(row.proba) > len(spec.extra.labels) or spec.extra.kind == "regions":
        return False
    if spec.extra.kind == "multilabel":
        return {label for label, p in named if p >= LIKELY} == set(row.labels)
    top = max(row.proba)
    return any(p == top and (label,) == row.labels for label, p in named)


def soften(samples: Samples, spec: TaskSpec, has_soft_labels: bool) -> Samples:
    """Return the samples with y of the training part (n, k) float32, rows summing to 1, where some label is uncertain.

    An algorithm without `has_soft_labels`, and any where an item takes several labels, learns the likeliest; the held-out part is
    as it was.
    """
    part = samples.train
    weak = sum(bool(row.proba) for row in part.rows)
    if not weak or isinstance(part.y, list):
        return samples
    if not has_soft_labels or spec.extra.kind == "multilabel":
        logger.info("%d of %d labels are probabilities: this algorithm learns the likeliest of each", weak, len(part.rows))
        return samples
    logger.info("%d of %d labels are probabilities by rules or a crowd", weak, len(part.rows))
    soft = msgspec.structs.replace(part, y=labels_as_probabilities(part.rows, part.y, len(spec.extra.labels)))
    return msgspec.structs.replace(samples, train=soft)


def labels_as_probabilities(rows: Sequence[LabelRow], classes: NDArray[Any], n_labels: int) -> NDArray[np.float32]:
    """Return (n, k) float32 whose rows sum to 1: 1 at the class (n,) of a certain label, the probabilities of the others.

    Probabilities of fewer labels than the task has now are of a time before the last ones were added.
    """
    y = np.eye(n_labels, dtype=np.float32)[classes]
    for i, row in enumerate(rows):
        if row.proba:
            y[i] = 0
            y[i, : len(row.proba)] = np.array(row.proba) / sum(row.proba)
    return y
