"""What a project asks of its values beyond their kind: unit, range and step of its number, which labels a relation may bear.

Owns the struct that is kept as JSON in `projects.limits`, its checks, and the check of a value against it. Must never touch the
database. Called by `webapp.projects.service` (settings), labelling and transfer (values), and the pages (editors).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from labelloop.errors import InvalidInputError
from webapp.kinds.catalogue import Kind
from webapp.kinds.values import Value

MOST_UNIT_CHARS = 20


class NumberLimits(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`unit` is shown behind the number, which lies within `least` to `most`; `step` is what one key counts up. None = any."""

    unit: str = ""
    least: float | None = None
    most: float | None = None
    step: float | None = None


class Limits(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`number` is for projects of one number an item; `relation_labels` () = a relation may bear any of the project's labels."""

    number: NumberLimits = NumberLimits()
    relation_labels: tuple[str, ...] = ()


def read_limits(kind: Kind, labels: Sequence[str], given: Limits | Mapping[str, Any]) -> Limits:
    """Return limits checked for a project of this kind with these labels. Raises InvalidInputError naming the one at fault."""
    try:
        limits = given if isinstance(given, Limits) else msgspec.convert(dict(given), Limits)
    except (msgspec.ValidationError, TypeError) as exc:
        raise InvalidInputError(f"limits: {exc}; they know number (unit, least, most, step) and relation_labels") from exc
    if limits.number != NumberLimits() and not kind.has_number:
        raise InvalidInputError(f"limits: a project of kind {kind.name!r} has no number, leave number out")
    if limits.relation_labels and not kind.has_relations:
        raise InvalidInputError(f"limits: a project of kind {kind.name!r} has no relations, leave relation_labels out")
    _check_number(limits.number)
    for label in limits.relation_labels:
        if label not in labels:
            raise InvalidInputError(f"relation label {label[:110]!r} is not among the project's labels: add it to them first")
    return msgspec.structs.replace(limits, relation_labels=tuple(x for x in labels if x in limits.relation_labels))


def _check_number(number: NumberLimits) -> None:
    if len(number.unit) > MOST_UNIT_CHARS or any(ord(c) < 32 or "\ud800" <= c <= "\udfff" for c in number.unit):
        raise InvalidInputError(f"unit {number.unit[:40]!r}: use up to {MOST_UNIT_CHARS} characters")
    for name in ("least", "most", "step"):
        value = getattr(number, name)
        if value is not None and not math.isfinite(value):
            raise InvalidInputError(f"{name} {value!r}: use a finite number, or leave it out")
    if number.least is not None and number.most is not None and number.least >= number.most:
        raise InvalidInputError(f"least {number.least:g} is not below most {number.most:g}: swap them")
    if number.step is not None and number.step <= 0:
        raise InvalidInputError(f"step {number.step:g}: use a number above 0")


def check_within(limits: Limits, value: Value) -> Value:
    """Return `value` where it lies within the limits. Raises InvalidInputError naming the number or relation that does not."""
    least, most = limits.number.least, limits.number.most
    if value.number is not None and not (-math.inf if least is None else least) <= value.number <= (
        math.inf if most is None else most
    ):
        bounds = f"{'any' if least is None else format(least, 'g')} to {'any' if most is None else format(most, 'g')}"
        raise InvalidInputError(f"number {value.number:g} is outside {bounds}: check it, or skip the item")
    for one in value.relations if limits.relation_labels else ():
        if one.label not in limits.relation_labels:
            known = ", ".join(limits.relation_labels[:20])
            raise InvalidInputError(f"label {one.label[:110]!r} is not for relations here: use one of {known}")
    return value
