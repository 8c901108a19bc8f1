"""The value of an annotation or a draft: labels, marks in the item, relations between marks, a number, a text.

Owns the JSON that is kept in the database, sent to the browser and written into exports. Must never know a project: `catalogue`
says which fields a kind of project has, `checks` judges a value. Called by labelling, transfer, the pilot and the views.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Shape = Literal["box", "polygon", "point", "span", "segment"]


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing marked in an item.

    `where` by `shape`: box (x, y, width, height) from the top left corner, polygon (x1, y1, x2, y2, ...) and point (x, y), all as
    shares of the picture's width and height in [0, 1]; span (start, end) in code points, `end` exclusive; segment (start, end) in
    seconds. `id` names the mark within its value, for relations and for the browser. `confidence` in [0, 1]; 1 = a person said so.
    """

    id: str
    label: str
    shape: Shape
    where: tuple[float, ...]
    confidence: float = 1.0


class Relation(msgspec.Struct, frozen=True, omit_defaults=True):
    """A directed relation of one mark to another, both named by their ids."""

    label: str
    source: str
    target: str


class Value(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is said of one item. `labels` are of the whole item, or those that its marks bear, in the project's order.

    `is_none`: none of the project's labels fits (no label, no mark). `number` is finite; `text` is what was written.
    """

    labels: tuple[str, ...] = ()
    marks: tuple[Mark, ...] = ()
    relations: tuple[Relation, ...] = ()
    number: float | None = None
    text: str | None = None
    is_none: bool = False

    @property
    def is_plain(self) -> bool:
        """Return whether the labels are all that is said."""
        return not (self.marks or self.relations or self.number is not None or self.text is not None or self.is_none)


def encode_more(value: Value | None) -> str | None:
    """Return what is said beside the labels as JSON, None where it is nothing: labels have a column of their own."""
    if value is None or value.is_plain:
        return None
    return msgspec.json.encode(msgspec.structs.replace(value, labels=())).decode()


def decode_more(labels: tuple[str, ...], stored: str | None) -> Value:
    """Return the value whose labels and stored rest these are. Raises msgspec.ValidationError for JSON of another form."""
    if stored is None:
        return Value(labels)
    return msgspec.structs.replace(msgspec.json.decode(stored, type=Value), labels=labels)


def more_fields(stored: str | None) -> dict[str, object]:
    """Return what is kept beside labels as flat JSON fields, `marks`, `relations`, `number`, `text`, `is_none`; {} = nothing."""
    return msgspec.json.decode(stored, type=dict[str, object]) if stored else {}


def is_same(one: Value, other: Value) -> bool:
    """Return whether two values say the same: ids, order and confidence of marks say nothing, nor do places that differ by less
    than what a hand can draw."""
    return _content(one) == _content(other)


def _content(value: Value) -> tuple[object, ...]:
    marks = {mark.id: (mark.label, mark.shape, tuple(round(v, _digits(mark.shape)) for v in mark.where)) for mark in value.marks}
    relations = sorted((one.label, marks.get(one.source, ()), marks.get(one.target, ())) for one in value.relations)
    text = None if value.text is None else value.text.strip()
    return (sorted(value.labels), sorted(marks.values()), relations, value.number, text, value.is_none)


def _digits(shape: Shape) -> int:
    return 2 if shape == "segment" else 4
