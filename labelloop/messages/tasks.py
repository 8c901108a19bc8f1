"""Tasks, items and samples: what a project is and what people said of its items. Called through `labelloop.messages`."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from labelloop.messages.base import Category, Message


class TaskExtraInfo(Message, frozen=True, kw_only=True):
    """What a project tells the cluster about itself beyond its category.

    `target`: accuracy on new labels at which training rests, in (0, 1]; `budget`: labels at which labelling stops, 0 = none;
    `epoch`: passes over the data for deep algorithms, 0 = the algorithm's default. `algorithm` and `encoder` may be 'auto':
    a run names them, a project need not. `kind` is 'regions' for the categories of boxes and spans, and only there.
    `is_comparer_on` = False retrains on every `retrain_labels` whatever the comparer says.
    `retrain_labels`: new labels that start a training, 0 = automatic growth. `parameters` are the algorithm's own.
    """

    kind: Literal["multiclass", "multilabel", "regions"] = "multiclass"
    labels: tuple[str, ...]
    target: float = 0.95
    budget: int = 0
    epoch: int = 0
    algorithm: str = "auto"
    encoder: str = "auto"
    is_comparer_on: bool = True
    retrain_labels: int = 0
    parameters: dict[str, Any] = {}


class TaskSpec(Message, frozen=True, kw_only=True):
    """One task as the cluster sees it; `revision` grows by one with each change of settings."""

    task: str
    category: Category
    extra: TaskExtraInfo
    revision: int = 1


class Item(Message, frozen=True, kw_only=True):
    """One thing to label, known by id and link (http, https, file below an allowed folder, or data:)."""

    item_id: str
    link: str


class Region(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """One box in a picture or one span of a text.

    `where`: a box is (x, y, width, height) as shares of the picture's width and height, from its top left corner, each in [0, 1]; a
    span is (start, end) in code points, `end` exclusive. `confidence` in [0, 1]; 1 = a person said so.
    """

    label: str
    where: tuple[float, ...]
    confidence: float = 1.0


class Draft(Message, frozen=True, kw_only=True):
    """A prediction shown to an annotator before the label: its labels or regions, version and confidence in [0, 1]."""

    labels: tuple[str, ...]
    version: str
    confidence: float = 0.0
    regions: tuple[Region, ...] = ()


class Sample(Message, frozen=True, kw_only=True):
    """An item with a label; (item_id, revision) is its identity. `labels` has one entry for multiclass, any number for
    multilabel. `is_deleted` withdraws the item's label (undo). `draft` is what the annotator saw first, if anything.

    `regions`: what is in the item, for tasks of boxes or spans (`labels` is empty then; no region = nothing is there). `proba`: how
    likely each of the task's labels is, in its order, for a label that rules, a crowd or a model gave: for multiclass summing to 1
    (`labels` names the likeliest), for multilabel each on its own (`labels` are those from 0.5 on); empty = certain.
    """

    item_id: str
    link: str
    labels: tuple[str, ...]
    revision: int = 1
    annotator: str = ""
    draft: Draft | None = None
    is_deleted: bool = False
    regions: tuple[Region, ...] = ()
    proba: tuple[float, ...] = ()


class ItemError(Message, frozen=True, kw_only=True):
    """Why one item of a batch failed; `code` is one of `labelloop.errors`."""

    item_id: str
    revision: int = 0
    code: str
    reason: str
