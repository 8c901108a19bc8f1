"""The language of conditions: against a slow reading of the same tree, and never another error than its own."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labelloop.errors import InvalidInputError
from learning.weak import Items
from learning.weak.conditions import holds, parse_condition, truth_of
from learning.weak.grammar import MAX_DEPTH, MAX_LENGTH, parse
from learning.weak.patterns import compile_pattern
from learning.weak.tree import All, Any, Compare, Contains, Has, In, Matches, Node, Not

TITLES = ("Free money NOW", "a quiet walk", None, "it's free", "", "100 % natürlich", "FREE")
PRICES = (1.0, 250.0, 3.5, None, -2.0, 100.0, 0.0)
ITEMS = Items({"title": TITLES, "price": PRICES, "two words": PRICES, "nothing": [None] * 7})


def fired(source: str) -> list[int]:
    return np.flatnonzero(holds(parse_condition(source), ITEMS)).tolist()


@pytest.mark.parametrize(
    ("source", "rows"),
    [
        ("price > 100", [1]),
        ("price >= 100", [1, 5]),
        ("100 <= price", [1, 5]),
        ("price == -2 or price == 3.5e0", [2, 4]),
        ("price != 1", [1, 2, 4, 5, 6]),
        ("title contains 'free'", [0, 3, 6]),
        ("title contains ('walk', 'NATÜRLICH')", [1, 5]),
        ("not title contains 'free'", [1, 4, 5]),
        ("title not contains 'free'", [1, 4, 5]),
        ("title == 'it''s free'", [3]),
        ('title == "it\'s free"', [3]),
        ("title != 'FREE'", [0, 1, 3, 4, 5]),
        ("title in ('FREE', 'a quiet walk')", [1, 6]),
        ("price in (1, 0, 7)", [0, 6]),
        ("price not in (1, 0, 7)", [1, 2, 4, 5]),
        (r"title matches '^\d+ %'", [5]),
        ("title matches '(?i)^free'", [0, 6]),
        ("has price and has title", [0, 1, 4, 5, 6]),
        ("not has title", [2]),
        ("length(title) > 12", [0, 5]),
        ("words(title) == 3", [0, 1, 5]),
        ("`two words` < 0", [4]),
        ("price > 1 and title contains 'e' or price == 0", [1, 6]),
        ("price == 0 or price > 1 and title contains 'a'", [1, 5, 6]),
        ("(price == 0 or price > 1) and title contains 'a'", [1, 5]),
        ("nothing == 'a' or nothing > 3 or has nothing", []),
        ("not nothing > 3", []),
        ("not (price > 3 and title contains 'free')", [0, 1, 4, 5, 6]),
        ("title == title", [0, 1, 3, 4, 5, 6]),
    ],
)
def test_a_condition_means_what_it_says(source: str, rows: list[int]) -> None:
    assert fired(source) == rows


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("price > > 3", r"column 9 .*expected a field, a number or a text in quotes, found '>'"),
        ("price = 3", r"column 7 .*write '=='"),
        ("price > 3 && price < 5", r"column 11 .*write 'and'"),
        ("price >", r"column 8 .*found the end"),
        ("1 < price < 5", r"column 11 .*1 < price and price < 5"),
        ("title contains 'a", r"column 16 .*never closed"),
        ("title contains ''", r"empty text"),
        ("title contains 3", r"column 16 .*a list such as"),
        ("title not > 3", r"column 11 .*'contains', 'matches' or 'in'"),
        ("(price > 3", r"column 11 .*expected '\)', found the end"),
        ("price > 3 title", r"column 11 .*'and', 'or' or the end"),
        ("price in (1, 'a')", r"numbers or texts, not both"),
        ("price in 1", r"column 10 .*a list such as"),
        ("price", r"column 6 .*expected a comparison"),
        ("", r"column 1 .*found the end"),
        ("1 == 2", r"two fixed values"),
        ("price > 1e999", r"column 9 .*too large"),
        ("price > -title", r"a number after '-'"),
        ("$price > 1", r"column 1 .*back quotes"),
        ("length title > 3", r"column 8 .*length\(title\)"),
        ("has 3", r"column 5 .*the name of a field"),
        (r"title matches '(?=a)'", r"look-around"),
        ("title matches 'a{1001}'", r"refused"),
        ("title matches ''", r"1 to \d+ characters"),
        ("(" * (MAX_DEPTH + 1) + "price > 1" + ")" * (MAX_DEPTH + 1), r"nested more than 50"),
        ("not " * (MAX_DEPTH + 1) + "price > 1", r"nested more than 50"),
        ("price > 1 or " * MAX_LENGTH, r"at most 10000 characters"),
        ("__import__('os').system('true') == 0", r"column 17 .*'\.' begins nothing"),
    ],
)
def test_what_is_no_condition_is_refused_with_its_column_and_the_way_out(source: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        parse_condition(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("colour == 'red'", r"no column 'colour': use one of 'title', 'price'"),
        ("price == 'red'", r"compared with|'price' holds numbers"),
        ("title > 3", r"texts have no order"),
        ("title == 3", r"a text is compared with the number 3"),
        ("title < 'b'", r"texts have no order"),
        ("title in (1, 2)", r"'title' holds texts"),
        ("price contains 'a'", r"'price' holds numbers"),
        ("price matches 'a'", r"'price' holds numbers"),
        ("words(price) > 1", r"'price' holds numbers"),
    ],
)
def test_a_condition_that_does_not_fit_the_columns_says_which_and_why(source: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        fired(source)


SIGNS = ["(", ")", ",", "==", "!=", "<", "=", "'a'", '"', "`", "3", "-", "1e5", ".5", "1e999", "'(a+'", "'[[:x:]]'"]
ODD = ["\\", "٣", "é", "'\\'", "'''", "`x_y`", "\x00", "\ud800", "\n"]
WORDS = ["price", "title", "and", "or", "not", "in", "contains", "matches", "has", "length", "words"]
FRAGMENTS = st.sampled_from([*WORDS, *SIGNS, *ODD])


@settings(max_examples=250, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(FRAGMENTS, max_size=14).map(" ".join)))
@example("title matches '\ud800'")
@example("title matches '\x00'")
def test_the_parser_raises_nothing_but_its_own_error_and_what_it_reads_can_be_applied(source: str) -> None:
    try:
        node = parse_condition(source)
        found = truth_of(node, ITEMS)
    except InvalidInputError as exc:
        assert str(exc)
        return
    assert found.is_true.shape == found.is_false.shape == (7,)
    assert not (found.is_true & found.is_false).any()


NAMES = st.sampled_from(["title", "price"])
TESTS: st.SearchStrategy[str] = st.one_of(
    st.tuples(st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), st.sampled_from(["0", "1", "3.5", "-2", "100"])).map(
        lambda p: f"price {p[0]} {p[1]}"
    ),
    st.sampled_from(["title contains 'free'", "title contains ('a', 'now')", "title == 'FREE'", "has title", "has price"]),
    st.sampled_from(["title in ('', 'FREE')", "price in (1, 250)", "title matches 'e{2}'", "length(title) > 4"]),
)
CONDITIONS = st.recursive(
    TESTS,
    lambda inner: st.one_of(
        inner.map(lambda c: f"not ({c})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: "(" + " and ".join(parts) + ")"),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: "(" + " or ".join(parts) + ")"),
    ),
    max_leaves=8,
)


def by_hand(node: Node, row: int) -> bool | None:
    """True, False or None (unknown), one item at a time."""
    cells: dict[str, float | str | None] = {"title": TITLES[row], "price": PRICES[row]}
    if isinstance(node, Not):
        inner = by_hand(node.part, row)
        return None if inner is None else not inner
    if isinstance(node, (All, Any)):
        found = [by_hand(part, row) for part in node.parts]
        decisive = isinstance(node, Any)
        if decisive in found:
            return decisive
        return None if None in found else not decisive
    if isinstance(node, Has):
        return cells[node.field] is not None
    if isinstance(node, Compare):
        return compare_by_hand(node, cells)
    cell = cells[node.field]
    if cell is None:
        return None
    if isinstance(node, Contains):
        return any(part.lower() in str(cell).lower() for part in node.parts)
    if isinstance(node, Matches):
        return re.search(node.pattern, str(cell)) is not None
    assert isinstance(node, In)
    return cell in node.values


def compare_by_hand(node: Compare, cells: dict[str, float | str | None]) -> bool | None:
    def value(side: object) -> float | str | None:
        if hasattr(side, "unit"):
            text = cells[side.field]
            return None if text is None else len(str(text))
        return cells[side.name] if hasattr(side, "name") else side.value  # type: ignore[attr-defined]

    left, right = value(node.left), value(node.right)
    if left is None or right is None:
        return None
    signs = {"==": left == right, "!=": left != right}
    if isinstance(left, str) or isinstance(right, str):
        return signs[node.sign]
    return {**signs, "<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[node.sign]


@settings(max_examples=60, deadline=None)
@given(CONDITIONS)
def test_columns_at_once_give_what_one_item_at_a_time_gives(source: str) -> None:
    node = parse(source)
    found = truth_of(node, ITEMS)
    wanted = [by_hand(node, row) for row in range(7)]
    assert found.is_true.tolist() == [answer is True for answer in wanted]
    assert found.is_false.tolist() == [answer is False for answer in wanted]


def test_a_pattern_that_ruins_back_tracking_engines_is_answered_at_once() -> None:
    items = Items({"text": ["a" * 20_000]})  # (a+)+$ takes 2 ** 20000 steps by back-tracking
    assert not holds(parse_condition("text matches '^(a+)+$' and text matches '(a|a)*b'"), items).any()


@pytest.mark.parametrize("pattern", ["(", "a{5000}", r"(a)\1", "(?<=a)b", "\ud800", "((((a{99}){99}){99}){99})", "a" * 3000])
def test_a_pattern_that_the_linear_engine_lacks_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInputError, match=r"refused|1 to \d+ characters"):
        compile_pattern(pattern)
