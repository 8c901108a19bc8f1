"""Decisions about people at work: what several say as one value, whose share is whose, how sure a measured error is."""

from __future__ import annotations

import pytest

from webapp.kinds.values import Mark, Relation, Value
from webapp.people.bulk import interval
from webapp.people.consensus import decide, same
from webapp.people.shares import deal
from webapp.people.work import SLOTS, Work, is_chosen

LABELS = ("owl", "tit", "jay")
OWL, TIT = Value(("owl",)), Value(("tit",))


def box(name: str, label: str, *where: float) -> Mark:
    return Mark(name, label, "box", where)


@pytest.mark.parametrize(
    ("kind", "said", "value", "agreement", "is_clear"),
    [
        ("multiclass", [OWL, OWL, TIT], OWL, 2 / 3, True),
        ("multiclass", [OWL, TIT], OWL, 0.5, False),
        ("multiclass", [Value(is_none=True), Value(is_none=True), TIT], Value(is_none=True), 2 / 3, True),
        ("multilabel", [Value(("owl", "tit")), Value(("owl",)), Value(("owl", "jay"))], OWL, 2 / 3, True),
        ("multilabel", [Value(("owl",)), Value(("owl", "jay"))], OWL, 0.5, False),
        ("number", [Value(number=10.0), Value(number=10.2), Value(number=14.0)], Value(number=10.2), 2 / 3, True),
        ("free-text", [Value(text="a bird"), Value(text="a bird "), Value(text="no")], Value(text="a bird"), 2 / 3, True),
    ],
)
def test_most_people_make_the_label_and_a_tie_is_seen(
    kind: str, said: list[Value], value: Value, agreement: float, is_clear: bool
) -> None:
    found = decide(kind, LABELS, said)
    assert (found.value, found.is_clear) == (value, is_clear)
    assert found.agreement == pytest.approx(agreement)


def test_boxes_of_several_people_become_those_that_most_have_drawn() -> None:
    one = Value(("owl", "jay"), (box("a", "owl", 0.1, 0.1, 0.2, 0.2), box("b", "jay", 0.6, 0.6, 0.2, 0.2)))
    two = Value(("owl",), (box("x", "owl", 0.1, 0.1, 0.22, 0.2),))
    three = Value(("owl",), (box("y", "owl", 0.11, 0.1, 0.2, 0.2),))
    found = decide("boxes", LABELS, [one, two, three])
    assert [mark.label for mark in found.value.marks] == ["owl"] and found.value.labels == ("owl",)
    assert found.value.marks[0].where == pytest.approx((0.1, 0.1, 0.21, 0.2), abs=0.011)
    assert found.is_clear and found.agreement == pytest.approx((1 + 2 / 3) / 2)


def test_relations_of_most_people_are_kept_between_the_marks_they_mean() -> None:
    def say(first: str, second: str, label: str) -> Value:
        marks = (Mark(first, "owl", "span", (0.0, 4.0)), Mark(second, "tit", "span", (8.0, 12.0)))
        return Value(("owl", "tit"), marks, (Relation(label, first, second),))

    found = decide("relations", LABELS, [say("a", "b", "jay"), say("x", "y", "jay"), say("p", "q", "owl")])
    by_id = {mark.id: mark.label for mark in found.value.marks}
    assert [(by_id[r.source], r.label, by_id[r.target]) for r in found.value.relations] == [("owl", "jay", "tit")]


def test_two_values_are_the_same_where_their_marks_match_with_their_labels() -> None:
    drawn = Value(("owl",), (box("a", "owl", 0.1, 0.1, 0.2, 0.2),))
    near = Value(("owl",), (box("z", "owl", 0.11, 0.1, 0.2, 0.2),))
    other = Value(("jay",), (box("z", "jay", 0.1, 0.1, 0.2, 0.2),))
    assert same(drawn, near) and not same(drawn, other) and not same(drawn, Value())
    assert same(Value(number=10.0), Value(number=10.4)) and not same(Value(number=10.0), Value(number=11.0))


def test_shares_are_even_and_who_stays_keeps_their_places() -> None:
    three = deal((), [7, 8, 9])
    assert sorted(three.count(one) for one in (7, 8, 9)) == [SLOTS // 3] * 3
    two = deal(three, [7, 9])
    assert {two.count(one) for one in (7, 9)} == {SLOTS // 2}
    assert all(now == before for now, before in zip(two, three, strict=True) if before != 8)
    four = deal(two, [7, 9, 10, 11])
    assert {four.count(one) for one in (7, 9, 10, 11)} == {SLOTS // 4}
    assert deal(three, []) == ()


def test_a_share_of_items_is_the_same_for_everybody_and_about_as_large_as_asked() -> None:
    chosen = [is_chosen(f"i{n}", 0.2, "blind") for n in range(2000)]
    assert 340 < sum(chosen) < 460 and chosen == [is_chosen(f"i{n}", 0.2, "blind") for n in range(2000)]
    assert not any(is_chosen(f"i{n}", 0.0, "blind") for n in range(9)) and all(is_chosen(f"i{n}", 1.0, "x") for n in range(9))


def test_the_interval_of_a_measured_error_is_wilsons() -> None:
    assert interval(0, 0) == (0.0, 1.0)
    assert interval(5, 100) == pytest.approx((0.0215, 0.1118), abs=1e-3)  # Newcombe, Statistics in Medicine 1998, method 3
    low, high = interval(0, 50)
    assert low == 0.0 and high == pytest.approx(0.0714, abs=1e-3)


def test_only_a_project_that_shares_nothing_takes_the_shortest_path() -> None:
    assert Work().is_plain and not Work().is_blind
    for changed in (Work(overlap=2), Work(blind_share=0.1), Work(gold_share=0.1), Work(review="all"), Work(assignment="shares")):
        assert not changed.is_plain
