"""What is judged right of a value, and the sentence for what is not."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from labelloop.errors import InvalidInputError
from webapp.kinds.catalogue import CATEGORIES, KINDS, check_pair, data_of, is_learned, kind_of
from webapp.kinds.checks import MOST_MARKS, MOST_POINTS, MOST_TEXT_CHARS, check_ends, check_value, read_value
from webapp.kinds.values import Mark, Relation, Value, decode_more, encode_more, is_same

LABELS = ("owl", "tit", "jay")


def mark(shape: Any, *where: float, label: str = "owl", id: str = "a", confidence: float = 1.0) -> Mark:
    return Mark(id, label, shape, tuple(where), confidence)


def box(*where: float, **more: Any) -> Value:
    return Value(marks=(mark("box", *where, **more),))


def judge(kind: str, value: Value, length: float | None = None, **more: Any) -> Value:
    labels = LABELS if kind_of(kind).least_labels else ()
    return check_value(kind_of(kind), labels, value, name="birds", length=length, **more)


SPANS = (mark("span", 0, 3), mark("span", 4, 7, id="b", label="tit"))
GOOD = {
    "one label": ("multiclass", Value(("tit",)), Value(("tit",))),
    "labels in the project's order": ("multilabel", Value(("jay", "owl")), Value(("owl", "jay"))),
    "no label of several": ("multilabel", Value(), Value()),
    "none of the labels, of one": ("multiclass", Value(is_none=True), Value(is_none=True)),
    "none of the labels, of marks": ("boxes", Value(is_none=True), Value(is_none=True)),
    "nothing is there": ("boxes", Value(), Value()),
    "a box, and its label": ("boxes", box(0.1, 0.2, 0.3, 0.4), Value(("owl",), box(0.1, 0.2, 0.3, 0.4).marks)),
    "a box that rounding put over the edge": (
        "boxes",
        box(0.5, 0.5, 0.5000001, 0.50001),
        Value(("owl",), box(0.5, 0.5, 0.5, 0.5).marks),
    ),
    "a box with more digits than count": (
        "boxes",
        box(0.123456789, 0.1, 0.1, 0.1),
        Value(("owl",), box(0.123457, 0.1, 0.1, 0.1).marks),
    ),
    "what a person says is certain": ("boxes", box(0, 0, 1, 1, confidence=0.4), Value(("owl",), box(0, 0, 1, 1).marks)),
    "a triangle": (
        "polygons",
        Value(marks=(mark("polygon", 0, 0, 1, 0, 0.5, 1),)),
        Value(("owl",), (mark("polygon", 0, 0, 1, 0, 0.5, 1),)),
    ),
    "a point at the edge": ("keypoints", Value(marks=(mark("point", 1, 0),)), Value(("owl",), (mark("point", 1, 0),))),
    "spans that overlap": (
        "spans",
        Value(marks=(mark("span", 0, 5), mark("span", 2, 7, id="b"))),
        Value(("owl",), (mark("span", 0, 5), mark("span", 2, 7, id="b"))),
    ),
    "a relation": (
        "relations",
        Value(marks=SPANS, relations=(Relation("jay", "a", "b"),)),
        Value(("owl", "tit"), SPANS, (Relation("jay", "a", "b"),)),
    ),
    "a segment in milliseconds": (
        "segments",
        Value(marks=(mark("segment", 0.12345, 2),)),
        Value(("owl",), (mark("segment", 0.123, 2),)),
    ),
    "a number": ("number", Value(number=-3.5), Value(number=-3.5)),
    "a text": ("free-text", Value(text="so it is"), Value(text="so it is")),
}


@pytest.mark.parametrize("case", GOOD, ids=str)
def test_a_good_value_comes_out_in_one_form(case: str) -> None:
    kind, given, kept = GOOD[case]
    assert judge(kind, given) == kept
    assert judge(kind, kept) == kept


many = tuple(mark("box", 0, 0, 1, 1, id=f"m{n}") for n in range(MOST_MARKS + 1))
long = mark("polygon", *(0.0, 1.0, 1.0, 0.0) * (MOST_POINTS // 2 + 1))
BAD = {
    "an unknown label": ("multiclass", Value(("hen",)), "label 'hen' is not in project 'birds': use one of owl, tit, jay"),
    "two labels of one": ("multiclass", Value(("owl", "tit")), "2 labels for an item of project 'birds', which takes exactly one"),
    "no label of one": ("multiclass", Value(), "0 labels for an item"),
    "a label twice": ("multilabel", Value(("owl", "owl")), "name one label twice"),
    "none and a label": ("multilabel", Value(("owl",), is_none=True), "'none of the labels' alone"),
    "none and a mark": ("boxes", msgspec.structs.replace(box(0, 0, 1, 1), is_none=True), "'none of the labels' alone"),
    "none without labels": ("number", Value(is_none=True), "has no labels, so say what it is, or skip"),
    "marks for a class": ("multiclass", box(0, 0, 1, 1), "marks .*: a project of kind 'multiclass' has none"),
    "a number for a class": ("multiclass", Value(("owl",), number=0.0), "number 0.0: a project of kind 'multiclass' has none"),
    "a text for boxes": ("boxes", Value(text="hm"), "text 'hm': a project of kind 'boxes' has none"),
    "labels for a number": ("number", Value(("owl",), number=1.0), "labels .*: a project of kind 'number' has none"),
    "a relation of boxes": (
        "boxes",
        Value(relations=(Relation("owl", "a", "b"),)),
        "relations .*: a project of kind 'boxes' has none",
    ),
    "another shape": ("boxes", Value(marks=(mark("point", 0, 0),)), "mark 'a' is a point: this project takes marks of shape 'box'"),
    "a mark of an unknown label": ("boxes", box(0, 0, 1, 1, label="hen"), "mark 'a': label 'hen' is not in project 'birds'"),
    "a mark without an id": ("boxes", box(0, 0, 1, 1, id=""), "mark id ''"),
    "two marks of one id": ("boxes", Value(marks=(mark("box", 0, 0, 1, 1), mark("box", 0, 0, 0.5, 1))), "an id of its own"),
    "an id with a NUL": ("boxes", box(0, 0, 1, 1, id="a\0"), "has a NUL"),
    "too many marks": ("boxes", Value(marks=many), f"{MOST_MARKS + 1} marks in one item: at most {MOST_MARKS}"),
    "three numbers": ("boxes", box(0, 0, 1), r"mark 'a': where \[0, 0, 1\] is no box: give \[x, y, width, height\]"),
    "not finite": ("boxes", box(0, 0, math.nan, 1), "is no box"),
    "no width": ("boxes", box(0.5, 0.5, 0, 0.1), "has no size: width and height must be above 0"),
    "a width that rounds to nothing": ("boxes", box(0.5, 0.5, 1e-9, 0.1), "has no size"),
    "out of the picture": ("boxes", box(0.8, 0, 0.3, 1), "reaches out of the picture"),
    "in pixels": ("boxes", box(10, 20, 100, 100), "divide pixels by its width and height"),
    "a polygon of two points": ("polygons", Value(marks=(mark("polygon", 0, 0, 1, 1),)), "at least three points"),
    "a polygon of half a point": ("polygons", Value(marks=(mark("polygon", 0, 0, 1, 0, 1, 1, 0),)), "is no polygon"),
    "a polygon in one line": ("polygons", Value(marks=(mark("polygon", 0, 0.5, 1, 0.5, 0.2, 0.5),)), "lie in one line"),
    "too many points": ("polygons", Value(marks=(long,)), f"more than {MOST_POINTS} points"),
    "half a character": ("spans", Value(marks=(mark("span", 0.5, 2),)), "is not whole"),
    "a span backwards": ("spans", Value(marks=(mark("span", 3, 3),)), "is empty or backwards"),
    "a span before the text": ("spans", Value(marks=(mark("span", -1, 3),)), "is empty or backwards"),
    "a span behind the text": (
        "spans",
        Value(marks=(mark("span", 0, 11),)),
        "ends behind the item, which ends at 10: cut it there",
    ),
    "a segment of no length": ("segments", Value(marks=(mark("segment", 1, 1.0001),)), "is empty or backwards"),
    "a relation to nothing": ("relations", Value(marks=SPANS, relations=(Relation("jay", "a", "c"),)), "no mark has the id 'c'"),
    "a relation to itself": (
        "relations",
        Value(marks=SPANS, relations=(Relation("jay", "a", "a"),)),
        "to itself: choose two marks",
    ),
    "a relation twice": ("relations", Value(marks=SPANS, relations=(Relation("jay", "a", "b"),) * 2), "is given twice"),
    "a relation of an unknown label": ("relations", Value(marks=SPANS, relations=(Relation("hen", "a", "b"),)), "label 'hen'"),
    "labels that no mark bears": ("boxes", Value(("tit",), box(0, 0, 1, 1).marks), "are not those of the marks"),
    "confidence above 1": ("boxes", box(0, 0, 1, 1, confidence=1.1), "outside 0 to 1"),
    "no number": ("number", Value(), "number None: give a finite number, or skip"),
    "an endless number": ("number", Value(number=math.inf), "number inf: give a finite number"),
    "no text": ("free-text", Value(text=" \n"), "the text is empty: write something, or skip"),
    "too long a text": ("free-text", Value(text="x" * (MOST_TEXT_CHARS + 1)), f"at most {MOST_TEXT_CHARS} are taken"),
    "a text with half a character": ("free-text", Value(text="so\ud800"), "half a character"),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_a_bad_value_is_refused_by_name_with_the_way_out(case: str) -> None:
    kind, given, sentence = BAD[case]
    with pytest.raises(InvalidInputError, match=sentence):
        judge(kind, given, length=10.0 if "span" in case else None)


def test_a_draft_keeps_how_sure_its_marks_are() -> None:
    kept = judge("boxes", box(0, 0, 1, 1, confidence=0.61239), is_draft=True)
    assert kept.marks[0].confidence == 0.6124


def test_a_span_is_held_against_the_text_that_is_known_later() -> None:
    value = judge("spans", Value(marks=SPANS))
    check_ends(value, None)
    check_ends(value, 7)
    with pytest.raises(InvalidInputError, match="ends behind the item, which ends at 6"):
        check_ends(value, 6)


def test_a_value_is_the_same_whatever_its_marks_are_called() -> None:
    one = judge("relations", Value(marks=SPANS, relations=(Relation("jay", "a", "b"),)))
    again = tuple(msgspec.structs.replace(one, id=f"x{one.id}", confidence=0.5) for one in reversed(SPANS))
    assert is_same(one, judge("relations", Value(marks=again, relations=(Relation("jay", "xa", "xb"),)), is_draft=True))
    assert not is_same(one, judge("relations", Value(marks=again, relations=(Relation("jay", "xb", "xa"),))))
    assert is_same(box(0.10001, 0.1, 0.2, 0.2), box(0.10003, 0.1, 0.2, 0.2))
    assert not is_same(box(0.1, 0.1, 0.2, 0.2), box(0.11, 0.1, 0.2, 0.2))
    assert not is_same(Value(number=1.0), Value(number=1.5)) and is_same(Value(text="a "), Value(text="a"))


def test_what_is_kept_beside_the_labels_comes_back() -> None:
    value = judge("relations", Value(marks=SPANS, relations=(Relation("jay", "a", "b"),)))
    assert decode_more(value.labels, encode_more(value)) == value
    assert encode_more(Value(("owl",))) is None


def test_a_mark_out_of_json_may_leave_out_what_the_kind_says() -> None:
    read = read_value(kind_of("boxes"), {"marks": [{"label": "owl", "where": [0, 0, 1, 1]}], "lease": "x", "number": None})
    assert read == Value(marks=(mark("box", 0, 0, 1, 1, id="m1"),))
    for bad in ({"marks": [3]}, {"marks": "owl"}, {"number": "three"}, {"marks": [{"label": "owl"}]}, {"is_none": 1}):
        with pytest.raises(InvalidInputError, match="not a value of kind"):
            read_value(kind_of("boxes"), bad)


def test_every_category_has_its_kinds_and_says_what_the_cluster_learns() -> None:
    for category, (_, kinds) in CATEGORIES.items():
        for kind in kinds:
            check_pair(category, kind)
    assert {kind for _, kinds in CATEGORIES.values() for kind in kinds} == KINDS.keys()
    assert is_learned("object-detection", "polygons") and not is_learned("audio", "multiclass")
    for category, kind, sentence in (("sound", "multiclass", "category 'sound'"), ("tables", "boxes", "of category 'tables'")):
        with pytest.raises(InvalidInputError, match=sentence):
            check_pair(category, kind)
    with pytest.raises(InvalidInputError, match="kind 'class'"):
        kind_of("class")
    assert data_of("pairs") == "pair"
