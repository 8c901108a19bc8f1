"""Judges a value for a project: labels that it has, marks in their places, relations of marks that are there, a number, a text.

Owns the limits and the sentences. Must never touch the database or a file. Called by labelling (answers), transfer (rows with
labels or drafts) and the pilot (what a model found). What comes out is in one form, so that equal values are equal bytes: labels in
the project's order, shares rounded to `SHARE_DIGITS`, seconds to `SECOND_DIGITS`, spans whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from labelloop.errors import InvalidInputError
from webapp.kinds.catalogue import Kind
from webapp.kinds.values import Mark, Relation, Shape, Value

MOST_MARKS = 1000
MOST_POINTS = 10_000  # of all polygons of an item
MOST_RELATIONS = 2000
MOST_TEXT_CHARS = 100_000
MOST_ID_CHARS = 64
MOST_SECONDS = 7 * 86400.0
MOST_SPAN_END = 2**24
SHARE_DIGITS, SECOND_DIGITS = 6, 3
_EDGE = 1e-4  # a mark may reach over the picture's edge by what an editor rounds; it is cut there
_NUMBERS: dict[str, str] = {
    "box": "[x, y, width, height] as shares of the picture",
    "polygon": "[x1, y1, x2, y2, x3, y3, ...], at least three points as shares of the picture",
    "point": "[x, y] as shares of the picture",
    "span": "[start, end] in characters (code points), end exclusive",
    "segment": "[start, end] in seconds",
}
FIELDS = ("labels", "marks", "relations", "number", "text", "is_none")


def check_value(
    kind: Kind, labels: Sequence[str], value: Value, *, name: str = "", length: float | None = None, is_draft: bool = False
) -> Value:
    """Return `value` in the form in which it is kept.

    `labels` and `name` are the project's; `length` is that of the item, in code points for spans and in seconds for segments
    (None = unknown). The confidence of marks is kept in drafts only: what a person says is certain. Raises InvalidInputError naming
    the value at fault and the way out.
    """
    _check_fields(kind, value)
    if value.is_none:
        return _none(kind, value)
    if kind.has_number:
        return Value(number=_number(value.number))
    if kind.has_text:
        return Value(text=_text(value.text))
    if kind.shape is None:
        return Value(check_labels(labels, value.labels, kind.is_single, name))
    marks = _marks(kind.shape, labels, value.marks, name, length, is_draft)
    relations = _relations(labels, value.relations, {mark.id for mark in marks}, name)
    return Value(_borne(labels, marks, value.labels), marks, relations)


def check_labels(known: Sequence[str], labels: Sequence[str], is_single: bool, name: str = "") -> tuple[str, ...]:
    """Return the labels in the project's order. Raises InvalidInputError naming the one at fault."""
    for label in labels:
        if label not in known:
            raise InvalidInputError(_unknown(label, known, name))
    if len(set(labels)) != len(labels):
        raise InvalidInputError(f"labels {list(labels)!r} name one label twice: name each once")
    if is_single and len(labels) != 1:
        raise InvalidInputError(f"{len(labels)} labels for an item of project {name!r}, which takes exactly one: send one")
    if is_single:
        return tuple(labels)
    return tuple(label for label in known if label in labels)


def _unknown(label: str, known: Sequence[str], name: str) -> str:
    return f"label {label[:110]!r} is not in project {name!r}: use one of {', '.join(known[:20])}"


def _check_fields(kind: Kind, value: Value) -> None:
    allowed = {
        "marks": kind.shape is not None,
        "relations": kind.has_relations,
        "number": kind.has_number,
        "text": kind.has_text,
        "labels": kind.least_labels > 0,
    }
    for field, is_allowed in allowed.items():
        given = getattr(value, field)
        if not is_allowed and given is not None and given != ():
            raise InvalidInputError(f"{field} {repr(given)[:80]}: a project of kind {kind.name!r} has none, leave {field} out")


def _none(kind: Kind, value: Value) -> Value:
    if not kind.least_labels:
        raise InvalidInputError(f"is_none: a project of kind {kind.name!r} has no labels, so say what it is, or skip the item")
    if value.labels or value.marks or value.relations:
        raise InvalidInputError("is_none with labels or marks beside it: say 'none of the labels' alone, or leave is_none out")
    return Value(is_none=True)


def _number(number: float | None) -> float:
    if number is None or not math.isfinite(number):
        raise InvalidInputError(f"number {number!r}: give a finite number, or skip the item")
    return float(number)


def _text(text: str | None) -> str:
    if text is None or not text.strip():
        raise InvalidInputError("the text is empty: write something, or skip the item")
    if len(text) > MOST_TEXT_CHARS:
        raise InvalidInputError(f"the text has {len(text)} characters: at most {MOST_TEXT_CHARS} are taken")
    _check_storable("the text", text)
    return text


def _check_storable(what: str, text: str) -> None:
    if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise InvalidInputError(f"{what} {text[:40]!r} has a NUL or half a character in it: remove it")


# ---------------------------------------------------------------- marks


def _marks(
    shape: Shape, labels: Sequence[str], marks: Sequence[Mark], name: str, length: float | None, is_draft: bool
) -> tuple[Mark, ...]:
    if len(marks) > MOST_MARKS:
        raise InvalidInputError(f"{len(marks)} marks in one item: at most {MOST_MARKS} are taken, cut the item into several")
    if shape == "polygon" and sum(len(mark.where) for mark in marks) > 2 * MOST_POINTS:
        raise InvalidInputError(f"the polygons have more than {MOST_POINTS} points together: simplify them")
    known = frozenset(labels)
    seen: set[str] = set()
    out = []
    for mark in marks:
        _check_mark(mark, shape, known, seen, labels, name)
        seen.add(mark.id)
        where = place_of(shape, mark, length)
        certain = Mark(mark.id, mark.label, shape, where)  # msgspec leaves a default out by identity: 1.0 given is written
        sure = round(mark.confidence, 4) if is_draft else 1.0
        out.append(certain if sure == 1.0 else msgspec.structs.replace(certain, confidence=sure))
    return tuple(out)


def _check_mark(mark: Mark, shape: Shape, known: frozenset[str], seen: set[str], labels: Sequence[str], name: str) -> None:
    if not 0 < len(mark.id) <= MOST_ID_CHARS or mark.id in seen:
        raise InvalidInputError(f"mark id {mark.id[:80]!r}: give each mark an id of its own, 1 to {MOST_ID_CHARS} characters")
    _check_storable("mark id", mark.id)
    if mark.shape != shape:
        raise InvalidInputError(f"mark {mark.id!r} is a {mark.shape}: this project takes marks of shape {shape!r}")
    if mark.label not in known:
        raise InvalidInputError(f"mark {mark.id!r}: {_unknown(mark.label, labels, name)}")
    if not 0 <= mark.confidence <= 1:
        raise InvalidInputError(f"mark {mark.id!r}: confidence {mark.confidence!r} is outside 0 to 1: leave it out")


def place_of(shape: Shape, mark: Mark, length: float | None) -> tuple[float, ...]:
    """Return where a mark is, rounded and cut at the edges. Raises InvalidInputError naming the mark and its numbers."""
    where = mark.where
    wanted = {"box": len(where) == 4, "polygon": len(where) >= 6 and len(where) % 2 == 0}.get(shape, len(where) == 2)
    if not wanted or not all(map(math.isfinite, where)):
        raise InvalidInputError(f"mark {mark.id!r}: where {list(where)[:8]} is no {shape}: give {_NUMBERS[shape]}")
    if shape in ("span", "segment"):
        return _range(shape, mark, length)
    return _box(mark) if shape == "box" else _points(mark)


def _range(shape: Shape, mark: Mark, length: float | None) -> tuple[float, ...]:
    start, end = mark.where
    if shape == "span":
        if start != int(start) or end != int(end):
            raise InvalidInputError(f"mark {mark.id!r}: span {[start, end]} is not whole: give {_NUMBERS[shape]}")
    else:
        start, end = round(start, SECOND_DIGITS), round(end, SECOND_DIGITS)
    last = MOST_SPAN_END if shape == "span" else MOST_SECONDS
    last = last if length is None else min(last, length)
    if not 0 <= start < end:
        raise InvalidInputError(f"mark {mark.id!r}: {shape} {[start, end]} is empty or backwards: start is from 0 up and below end")
    if end > last:
        raise InvalidInputError(
            f"mark {mark.id!r}: {shape} {[start, end]} ends behind the item, which ends at {last:g}: cut it there"
        )
    return (start, end)


def check_ends(value: Value, n_chars: int | None) -> None:
    """Raise InvalidInputError naming the span that ends behind a text of `n_chars` code points (None = unknown)."""
    for mark in value.marks if n_chars is not None else ():
        if mark.shape == "span":
            _range("span", mark, n_chars)


def _box(mark: Mark) -> tuple[float, ...]:
    x, y, width, height = mark.where
    left, top, right, bottom = (_share(mark, v) for v in (x, y, x + width, y + height))
    if width <= 0 or height <= 0 or right <= left or bottom <= top:
        raise InvalidInputError(f"mark {mark.id!r}: box {list(mark.where)} has no size: width and height must be above 0")
    return (left, top, round(right - left, SHARE_DIGITS), round(bottom - top, SHARE_DIGITS))


def _points(mark: Mark) -> tuple[float, ...]:
    where = tuple(_share(mark, v) for v in mark.where)
    if mark.shape == "polygon" and (len(set(where[::2])) < 2 or len(set(where[1::2])) < 2):
        raise InvalidInputError(f"mark {mark.id!r}: polygon {list(where)[:8]} has no size: its points lie in one line")
    return where


def _share(mark: Mark, value: float) -> float:
    if not -_EDGE <= value <= 1 + _EDGE:
        raise InvalidInputError(
            f"mark {mark.id!r}: {mark.shape} {list(mark.where)[:8]} reaches out of the picture: "
            "divide pixels by its width and height, and cut at its edges"
        )
    return round(min(max(value, 0.0), 1.0), SHARE_DIGITS)


def _borne(known: Sequence[str], marks: Sequence[Mark], given: Sequence[str]) -> tuple[str, ...]:
    """Return the labels that the marks bear, in the project's order; `given` may repeat them, and nothing else."""
    borne = {mark.label for mark in marks}
    if given and set(given) != borne:
        raise InvalidInputError(f"labels {list(given)[:5]!r} are not those of the marks: leave labels out, each mark names its own")
    return tuple(label for label in known if label in borne)


def _relations(known: Sequence[str], relations: Sequence[Relation], marks: set[str], name: str) -> tuple[Relation, ...]:
    if len(relations) > MOST_RELATIONS:
        raise InvalidInputError(f"{len(relations)} relations in one item: at most {MOST_RELATIONS} are taken")
    for relation in relations:
        if relation.label not in known:
            raise InvalidInputError(f"relation of {relation.source[:80]!r}: {_unknown(relation.label, known, name)}")
        for end in (relation.source, relation.target):
            if end not in marks:
                raise InvalidInputError(
                    f"relation {relation.label!r}: no mark has the id {end[:80]!r}: use ids of this item's marks"
                )
        if relation.source == relation.target:
            raise InvalidInputError(f"relation {relation.label!r} of mark {relation.source!r} to itself: choose two marks")
    if len(set(relations)) != len(relations):
        twice = next(one for one in relations if list(relations).count(one) > 1)
        raise InvalidInputError(f"relation {twice.label!r} from {twice.source!r} to {twice.target!r} is given twice: send it once")
    return tuple(relations)


# ---------------------------------------------------------------- values out of JSON


def read_value(kind: Kind, given: Mapping[str, Any]) -> Value:
    """Return the value in the flat fields of a JSON object; other fields are no matter of ours.

    A mark needs `label` and `where`; without `id` it is numbered, without `shape` it is that of the kind. Raises InvalidInputError
    for fields of a wrong type; whether the value is right is for `check_value` to say.
    """
    fields = {name: given[name] for name in FIELDS if given.get(name) is not None}
    if isinstance(fields.get("marks"), list | tuple):
        fields["marks"] = [_whole_mark(kind, mark, at) for at, mark in enumerate(fields["marks"], 1)]
    try:
        return msgspec.convert(fields, Value)
    except (msgspec.ValidationError, UnicodeEncodeError) as exc:
        raise InvalidInputError(f"not a value of kind {kind.name!r}: {exc}") from exc


def _whole_mark(kind: Kind, mark: Any, at: int) -> Any:
    if not isinstance(mark, Mapping):
        return mark
    return {"id": f"m{at}", "shape": kind.shape or "box"} | {name: given for name, given in mark.items() if given is not None}
