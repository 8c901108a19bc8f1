"""The rows that flow: tiny table rows with a label that a linear model learns from twenty of them.

Owns names, links and true labels, so that any process can say what an id must hold. Must never do I/O. Called by
`flow` and `trial`.
"""

from __future__ import annotations

import random
import urllib.parse

import msgspec

from labelloop.messages import Item, Sample, TaskExtraInfo, TaskSpec

LABELS = ("left", "right")


def table_spec(task: str) -> TaskSpec:
    """Return a task of two number columns and two labels; its comparer is off, so that it trains while labels come."""
    extra = TaskExtraInfo(labels=LABELS, algorithm="logistic-regression", encoder="table-columns", is_comparer_on=False)
    return TaskSpec(task=task, category="tables", extra=extra)


def item_of(item_id: str) -> Item:
    """Return the row of an id; the same id is always the same row."""
    a, b = _cells(item_id)
    return Item(item_id=item_id, link="data:application/json," + urllib.parse.quote(msgspec.json.encode({"a": a, "b": b})))


def label_of(item_id: str) -> str:
    """Return the true label of an id."""
    a, b = _cells(item_id)
    return LABELS[a < b]


def sample_of(item_id: str) -> Sample:
    """Return the row of an id with its true label, in its first revision."""
    item = item_of(item_id)
    return Sample(item_id=item.item_id, link=item.link, labels=(label_of(item_id),), annotator="chaos")


def ids(kind: str, n: int) -> tuple[str, ...]:
    """Return `n` ids of one kind of client."""
    return tuple(f"{kind}-{number}" for number in range(n))


def _cells(item_id: str) -> tuple[int, int]:
    chosen = random.Random(item_id)
    return chosen.randrange(1000), chosen.randrange(1000)
