"""What a submitted sample must be: checked before anything is written.

Owns the rules and their sentences. Must never touch a file. Called by the submit handler; a sample that breaks a rule is
answered in `rejected` and never costs its batch.
"""

from __future__ import annotations

import math

from labelloop.errors import InvalidInputError
from labelloop.ids import parse_item
from labelloop.messages import ItemError, Region, Sample, TaskSpec

MAX_LINK_CHARS = 8 * 1024
MAX_DATA_LINK_CHARS = 2 * 2**20
MAX_BATCH_SAMPLES = 10_000
MAX_REGIONS = 1_000
MAX_SPAN_END = 2**24  # code points; float32 counts exactly up to here
_EDGE = 1e-6  # a box may reach over the picture's edge by what rounding does


def why_reject(sample: Sample, spec: TaskSpec, known: frozenset[str]) -> str | None:
    """Return what is wrong with `sample` for the task `spec` whose label set is `known`; None when it is good."""
    try:
        parse_item(sample.item_id)
    except InvalidInputError as exc:
        return str(exc)
    if sample.proba and spec.extra.kind == "regions" and not sample.is_deleted:
        return "probabilities are given, a task of boxes or spans takes none: leave proba empty"
    if sample.revision < 1:
        return f"revision {sample.revision} is not a number from 1 up"
    if not sample.link:
        return "the link is empty: give http, https, file or data"
    longest = MAX_DATA_LINK_CHARS if sample.link.startswith("data:") else MAX_LINK_CHARS
    if len(sample.link) > longest:
        return f"the link has {len(sample.link)} characters, at most {longest} are allowed: serve the item over http or file"
    if sample.is_deleted:
        return None
    if spec.extra.kind == "regions":
        return _why_reject_regions(sample, spec, known)
    if sample.draft and sample.draft.regions:
        return f"{len(sample.draft.regions)} regions given in the draft, the task is {spec.category}: leave them out"
    if sample.regions:
        return f"{len(sample.regions)} regions given, the task is {spec.category}: send `labels` and leave `regions` empty"
    for label in sample.labels:
        if label not in known:
            return f"label {label[:80]!r} is not one of the task's {len(known)} labels: add it to the task first"
    if len(set(sample.labels)) != len(sample.labels):
        return f"label {max(sample.labels, key=sample.labels.count)!r} is given twice"
    if spec.extra.kind == "multiclass" and len(sample.labels) != 1:
        return f"{len(sample.labels)} labels given, a multiclass task takes exactly one"
    return why_reject_proba(sample, spec) if sample.proba else None


def _why_reject_regions(sample: Sample, spec: TaskSpec, known: frozenset[str]) -> str | None:
    if sample.labels:
        return f"labels {list(sample.labels)[:3]} given, the task is {spec.category}: name each label in its region"
    if sample.proba:
        return f"proba of {len(sample.proba)} labels given, the task is {spec.category}: leave proba empty"
    if len(sample.regions) > MAX_REGIONS:
        return f"{len(sample.regions)} regions given, at most {MAX_REGIONS} are taken: cut the item into several"
    for i, region in enumerate(sample.regions):
        if region.label not in known:
            return f"region {i}: label {region.label[:80]!r} is not one of the task's {len(known)} labels: add it to the task first"
    if reason := _why_wrong_places(sample.regions, spec.category):
        return reason
    if sample.draft and (reason := _why_wrong_places(sample.draft.regions, spec.category)):
        return f"draft: {reason}"
    places = [(region.label, region.where) for region in sample.regions]
    if len(set(places)) != len(places):
        label, where = next(place for place in places if places.count(place) > 1)
        return f"region {label!r} at {list(where)} is given twice: send it once"
    return None


def _why_wrong_places(regions: tuple[Region, ...], category: str) -> str | None:
    why_wrong = _why_no_box if category == "object-detection" else _why_no_span
    for i, region in enumerate(regions):
        if reason := why_wrong(region):
            return f"region {i}: {reason}"
        if not 0 <= region.confidence <= 1:
            return f"region {i}: confidence {region.confidence} is outside 0 to 1: leave it out, a person is certain"
    return None


def _why_no_box(region: Region) -> str | None:
    where = region.where
    if len(where) != 4 or not all(map(math.isfinite, where)):
        return f"{list(where)[:8]} is no box: give [x, y, width, height] as shares of the picture from 0 to 1"
    x, y, width, height = where
    if width <= 0 or height <= 0:
        return f"box {list(where)} has no size: width and height must be above 0"
    if x < 0 or y < 0 or x + width > 1 + _EDGE or y + height > 1 + _EDGE:
        return f"box {list(where)} reaches out of the picture: divide pixels by its width and height, and cut at its edges"
    return None


def _why_no_span(region: Region) -> str | None:
    where = region.where
    if len(where) != 2 or not all(math.isfinite(v) and v == int(v) for v in where):
        return f"{list(where)[:8]} is no span: give [start, end] as whole numbers of code points, end exclusive"
    start, end = where
    if not 0 <= start < end:
        return f"span {[int(start), int(end)]} is empty or backwards: start is from 0 up and below end"
    if end > MAX_SPAN_END:
        return f"span {[int(start), int(end)]} ends beyond {MAX_SPAN_END} code points: cut the text into several items"
    return None


def rejection(sample: Sample, reason: str, code: str = "invalid_input") -> ItemError:
    """Return the answer for a refused sample."""
    return ItemError(item_id=sample.item_id[:256], revision=sample.revision, code=code, reason=reason)


_SUM_TOLERANCE = 1e-3  # of probabilities
LIKELY = 0.5  # an item of several labels has those that are at least this likely


def why_reject_proba(sample: Sample, spec: TaskSpec) -> str | None:
    """Return what is wrong with the probabilities of a sample whose label is one of the task's; None when nothing is."""
    names, proba = spec.extra.labels, sample.proba
    if len(proba) != len(names):
        return f"{len(proba)} probabilities given, the task has {len(names)} labels: give one each, in the task's order"
    wrong = next((p for p in proba if not 0 <= p <= 1), None)
    if wrong is not None:
        return f"probability {wrong:g} is not in [0, 1]"
    if spec.extra.kind == "multilabel":
        likely = {name for name, p in zip(names, proba, strict=True) if p >= LIKELY}
        odd = sorted(likely ^ set(sample.labels))
        return f"label {odd[0]!r}: by its probabilities an item has the labels from {LIKELY} on, say those" if odd else None
    if abs(sum(proba) - 1) > _SUM_TOLERANCE:
        return f"the probabilities sum to {sum(proba):.4g}, not to 1: divide them by their sum"
    if proba[names.index(sample.labels[0])] < max(proba):
        likeliest = names[proba.index(max(proba))]
        return f"label {sample.labels[0]!r} is not the likeliest by its probabilities: say {likeliest!r}"
    return None
