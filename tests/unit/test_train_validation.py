"""What submit refuses, item by item."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from labelloop.messages import Sample, TaskExtraInfo, TaskSpec
from roles.train.validation import MAX_DATA_LINK_CHARS, MAX_LINK_CHARS, why_reject

ONE = TaskSpec(task="digits", category="image-classification", extra=TaskExtraInfo(labels=("0", "1")))
MANY = TaskSpec(task="tags", category="text-classification", extra=TaskExtraInfo(kind="multilabel", labels=("0", "1")))
GOOD = Sample(item_id="a", link="file:///a.png", labels=("0",))


def but(**changes: Any) -> Sample:
    return msgspec.structs.replace(GOOD, **changes)


@pytest.mark.parametrize(
    ("sample", "spec"),
    [
        (GOOD, ONE),
        (but(labels=("0", "1")), MANY),
        (but(labels=()), MANY),
        (but(labels=("0", "1"), proba=(0.9, 0.9)), MANY),
        (but(labels=(), proba=(0.1, 0.2)), MANY),
        (but(labels=(), is_deleted=True), ONE),
        (but(link="data:text/plain," + "x" * MAX_LINK_CHARS), ONE),
        (but(proba=(0.7, 0.3004)), ONE),
        (but(proba=(0.5, 0.5)), ONE),
        (but(proba=(1.0, 0.0)), ONE),
    ],
)
def test_a_good_sample_is_taken(sample: Sample, spec: TaskSpec) -> None:
    assert why_reject(sample, spec, frozenset(spec.extra.labels)) is None


@pytest.mark.parametrize(
    ("sample", "spec", "words"),
    [
        (but(item_id=""), ONE, "item id"),
        (but(item_id="x" * 300), ONE, "item id"),
        (but(revision=0), ONE, "revision 0"),
        (but(link=""), ONE, "link is empty"),
        (but(link="http://" + "x" * MAX_LINK_CHARS), ONE, "characters"),
        (but(link="data:" + "x" * MAX_DATA_LINK_CHARS), ONE, "characters"),
        (but(labels=("7",)), ONE, "label '7' is not one of the task's 2 labels"),
        (but(labels=("0", "1")), ONE, "takes exactly one"),
        (but(labels=()), ONE, "takes exactly one"),
        (but(labels=("1", "1")), MANY, "label '1' is given twice"),
        (but(labels=("1",), proba=(0.7, 0.3)), MANY, "label '0': by its probabilities an item has the labels from 0.5 on"),
        (but(labels=(), proba=(0.7, 1.3)), MANY, "probability 1.3 is not in [0, 1]"),
        (but(proba=(0.7, 0.2, 0.1)), ONE, "3 probabilities given, the task has 2 labels"),
        (but(proba=(1.2, -0.2)), ONE, "probability 1.2 is not in [0, 1]"),
        (but(proba=(float("nan"), 1.0)), ONE, "probability nan"),
        (but(proba=(0.7, 0.2)), ONE, "sum to 0.9, not to 1"),
        (but(proba=(0.4, 0.6)), ONE, "label '0' is not the likeliest by its probabilities: say '1'"),
    ],
)
def test_a_bad_sample_is_refused_with_the_value_at_fault(sample: Sample, spec: TaskSpec, words: str) -> None:
    assert words in str(why_reject(sample, spec, frozenset(spec.extra.labels)))
