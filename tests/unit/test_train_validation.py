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
        (but(labels=(), is_deleted=True), ONE),
        (but(link="data:text/plain," + "x" * MAX_LINK_CHARS), ONE),
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
    ],
)
def test_a_bad_sample_is_refused_with_the_value_at_fault(sample: Sample, spec: TaskSpec, words: str) -> None:
    assert words in str(why_reject(sample, spec, frozenset(spec.extra.labels)))
