"""What a submitted sample must be: checked before anything is written.

Owns the rules and their sentences. Must never touch a file. Called by the submit handler; a sample that breaks a rule is
answered in `rejected` and never costs its batch.
"""

from __future__ import annotations

from labelloop.errors import InvalidInputError
from labelloop.ids import parse_item
from labelloop.messages import ItemError, Sample, TaskSpec

MAX_LINK_CHARS = 8 * 1024
MAX_DATA_LINK_CHARS = 2 * 2**20
MAX_BATCH_SAMPLES = 10_000


def why_reject(sample: Sample, spec: TaskSpec, known: frozenset[str]) -> str | None:
    """Return what is wrong with `sample` for the task `spec` whose label set is `known`; None when it is good."""
    try:
        parse_item(sample.item_id)
    except InvalidInputError as exc:
        return str(exc)
    if sample.revision < 1:
        return f"revision {sample.revision} is not a number from 1 up"
    if not sample.link:
        return "the link is empty: give http, https, file or data"
    longest = MAX_DATA_LINK_CHARS if sample.link.startswith("data:") else MAX_LINK_CHARS
    if len(sample.link) > longest:
        return f"the link has {len(sample.link)} characters, at most {longest} are allowed: serve the item over http or file"
    if sample.is_deleted:
        return None
    for label in sample.labels:
        if label not in known:
            return f"label {label[:80]!r} is not one of the task's {len(known)} labels: add it to the task first"
    if len(set(sample.labels)) != len(sample.labels):
        return f"label {max(sample.labels, key=sample.labels.count)!r} is given twice"
    if spec.extra.kind == "multiclass" and len(sample.labels) != 1:
        return f"{len(sample.labels)} labels given, a multiclass task takes exactly one"
    return None


def rejection(sample: Sample, reason: str, code: str = "invalid_input") -> ItemError:
    """Return the answer for a refused sample."""
    return ItemError(item_id=sample.item_id[:256], revision=sample.revision, code=code, reason=reason)
