"""How a model of boxes or spans does on the held-out part of a run.

Owns the figures of its manifests and candidates. Must never train. Called by `evaluation`, which asks it where y is regions.

The score is mAP50 for boxes and exact span F1 for spans. A manifest's `draft_confidence` is the least confidence with which a box
is shown: of a few values the one that left people the fewest corrections on the held-out part. A text's decoder has decided
already which spans there are, so all of them are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import IntegrityError
from learning.algorithms import Model
from learning.metrics_regions import (
    BOX,
    corrections,
    item_corrections,
    least_confidence,
    mean_average_precision,
    region_f1,
    span_f1,
    surer_than,
)
from learning.regions import RegionModel, Regions
from roles.regions import DRAFT_CONFIDENCE

MAP50, SPAN_F1 = "map50", "span_f1"


def find_regions(model: Model, x: NDArray[Any]) -> list[Regions]:
    """Return what `model` finds in each row of x. Raises IntegrityError for a model that finds no regions at all."""
    if not isinstance(model, RegionModel):
        raise IntegrityError(f"{type(model).__name__} answers no regions, its task is of boxes or spans: train it anew")
    return model.predict_regions(x)


def measure_of(truth: Sequence[Regions]) -> str:
    """Return the name of the score of boxes or of spans."""
    return MAP50 if truth[0].where.shape[1] == BOX else SPAN_F1


def score_of(truth: Sequence[Regions], found: Sequence[Regions], n_labels: int) -> float:
    """Return mAP50 of boxes or exact F1 of spans, in [0, 1]."""
    return mean_average_precision(truth, found, n_labels) if measure_of(truth) == MAP50 else span_f1(truth, found)


def candidate_of(truth: list[Regions], found: list[Regions], n_labels: int) -> tuple[float, float]:
    """Return score (high is good) and loss (low is good, 1 - F1 of all that was found) of one checkpoint."""
    return score_of(truth, found, n_labels), 1.0 - region_f1(truth, found)


def metrics_of(truth: list[Regions], found: list[Regions], n_labels: int) -> dict[str, float]:
    """Return what a manifest says of a model of regions; F1 and corrections are those of what is shown as drafts."""
    measure = measure_of(truth)
    least = least_confidence(truth, found) if measure == MAP50 else 0.0
    drafts = surer_than(found, least)
    figures = {
        measure: score_of(truth, found, n_labels),
        "f1": region_f1(truth, drafts),
        "corrections_per_100": corrections(truth, drafts).per_100,
        DRAFT_CONFIDENCE: least,
        "held_out": float(len(truth)),
        "held_out_regions": float(sum(len(one.labels) for one in truth)),
    }
    return {name: round(value, 6) for name, value in figures.items()}


def costs_of(truth: list[Regions], found: list[Regions], least: float) -> NDArray[np.int64]:
    """Return how many corrections the drafts of each held-out item need: (n,)."""
    return item_corrections(truth, surer_than(found, least))


def regions_in_label_order(found: list[Regions], labels: tuple[str, ...], wanted: tuple[str, ...]) -> list[Regions]:
    """Return `found` with its classes numbered as in `wanted`; regions of a label that is gone are left out."""
    if labels == wanted:
        return found
    number = {label: i for i, label in enumerate(wanted)}
    place = np.array([number.get(label, -1) for label in labels], dtype=np.int64)
    out = []
    for one in found:
        new = place[one.labels]
        out.append(Regions(one.where[new >= 0], new[new >= 0], one.scores[new >= 0]))
    return out
