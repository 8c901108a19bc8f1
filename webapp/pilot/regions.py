"""Values with marks on their way to the cluster and back: its boxes and spans, our boxes, polygons, keypoints, spans and relations.

Owns the translation. The cluster learns boxes in pictures and spans in texts: a polygon goes as the box around it, a keypoint as a
small box around its place, the spans of relations as they are; what it finds comes back as a mark of the project's shape. Must
never touch what the app keeps: what the cluster cannot learn from does not go. Called by the relay and the pilot's scoring.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from labelloop import messages as m
from labelloop.errors import InvalidInputError
from webapp.db.items import NewDraft
from webapp.db.projects import Project
from webapp.kinds.checks import MOST_MARKS, SHARE_DIGITS, check_value, place_of
from webapp.kinds.values import Mark, Shape, Value

POINT_SHARE = 0.04  # side of the box that stands for a keypoint
MOST_REGIONS = 1000  # of one item, as the cluster takes them


def regions_of(value: Value) -> tuple[m.Region, ...]:
    """Return what the cluster learns of a value, each place once, in the order of the marks."""
    found = dict.fromkeys((mark.label, _outline(mark)) for mark in value.marks)
    return tuple(m.Region(label, where) for label, where in list(found)[:MOST_REGIONS])


def draft_regions_of(value: Value) -> tuple[m.Region, ...]:
    """Return a draft as the cluster knows it, with its confidence."""
    return tuple(m.Region(mark.label, _outline(mark), mark.confidence) for mark in value.marks[:MOST_REGIONS])


def _outline(mark: Mark) -> tuple[float, ...]:
    if mark.shape == "polygon":
        xs, ys = mark.where[::2], mark.where[1::2]
        return _box(min(xs), min(ys), max(xs), max(ys))
    if mark.shape == "point":
        x, y = mark.where
        half = POINT_SHARE / 2
        return _box(max(x - half, 0.0), max(y - half, 0.0), min(x + half, 1.0), min(y + half, 1.0))
    return mark.where


def _box(left: float, top: float, right: float, bottom: float) -> tuple[float, ...]:
    return (left, top, round(right - left, SHARE_DIGITS), round(bottom - top, SHARE_DIGITS))


def draft_of(project: Project, regions: Sequence[m.Region], proba: np.ndarray, version: str) -> NewDraft:
    """Return what a version found in an item as a draft.

    `proba` (n_labels,) is the highest confidence of each label. The draft is as sure as its least sure mark; one that says
    "nothing is there" is as sure as it is that no label is. A region of a label that the project does not have any more, or out of
    its place, is left out.
    """
    shape = project.kind_rules.shape or "box"
    marks: list[Mark] = []
    for region in regions[:MOST_MARKS]:
        mark = _mark(shape, msgspec.structs.replace(region, label=project.label_set.name_now(region.label)), len(marks) + 1)
        if mark is not None and mark.label in project.labels:
            marks.append(mark)
    value = check_value(project.kind_rules, project.labels, Value(marks=tuple(marks)), name=project.slug, is_draft=True)
    highest = float(proba.max()) if proba.size else 0.0
    confidence = min((mark.confidence for mark in marks), default=1.0 - highest)
    return NewDraft(value, version, min(max(confidence, 0.0), 1.0))


def _mark(shape: Shape, region: m.Region, number: int) -> Mark | None:
    """Return a region as a mark of the project's shape: of a box the four corners for a polygon, the centre for a point."""
    found: Shape = "span" if shape == "span" else "box"
    mark = Mark(f"m{number}", region.label, found, region.where, min(max(region.confidence, 0.0), 1.0))
    try:
        where = place_of(found, mark, None)
    except InvalidInputError:
        return None
    if shape == "polygon":
        x, y, width, height = where
        where = (x, y, x + width, y, x + width, y + height, x, y + height)
    elif shape == "point":
        where = (where[0] + where[2] / 2, where[1] + where[3] / 2)
    return msgspec.structs.replace(mark, shape=shape, where=where)


def drafts_of(
    project: Project, numbers: Sequence[int], found: Sequence[Sequence[m.Region]], proba: np.ndarray, version: str
) -> list[tuple[int, NewDraft]]:
    """Return a draft for each of the items called `numbers`; `found` and the rows of `proba` are in their order."""
    rows = zip(numbers, found, proba, strict=True)
    return [(int(number), draft_of(project, regions, row, version)) for number, regions, row in rows]
