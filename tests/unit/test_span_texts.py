"""Texts with spans out of tagged lines and marked words: what a span names is what the file marks."""

from __future__ import annotations

import pytest

from labelloop.messages import Region
from scripts.span_texts import read_marked_words, read_tagged_lines

TAGGED: list[tuple[str, list[tuple[str, list[tuple[str, str]]]]]] = [
    ("", []),
    ("It\tO\n's\tO\n\t\n", [("It 's", [])]),
    (
        "At\tO\nEmpire\tB-place\nState\tI-place\n=\tO\nESB\tB-place\n",
        [("At Empire State = ESB", [("Empire State", "place"), ("ESB", "place")])],
    ),
    ("A\tB-x\nB\tB-x\n\t\nC\tI-y\nD\tI-x\n", [("A B", [("A", "x"), ("B", "x")]), ("C D", [("C", "y"), ("D", "x")])]),
    ("🙂\tO\nZürich\tB-x\n", [("🙂 Zürich", [("Zürich", "x")])]),
]
MARKED = [
    ("<c><a><N>12</N> <S>Main</S> <S>St.,</S> <P>Oak</P>, <X>#</X> <P>Park,</P></a></c>", "12 Main St., Oak, # Park,"),
]


def cut(text: str, regions: tuple[Region, ...]) -> list[tuple[str, str]]:
    return [(text[int(one.where[0]) : int(one.where[1])], one.label) for one in regions]


@pytest.mark.parametrize(("data", "wanted"), TAGGED)
def test_tagged_words_become_a_text_with_spans(data: str, wanted: list[tuple[str, list[tuple[str, str]]]]) -> None:
    assert [(text, cut(text, regions)) for text, regions in read_tagged_lines(data)] == wanted


@pytest.mark.parametrize(("data", "text"), MARKED)
def test_marked_words_become_a_text_with_spans_of_neighbours(data: str, text: str) -> None:
    ((found, regions),) = read_marked_words(data, {"N": "number", "S": "street", "P": "city"})
    assert found == text
    assert cut(found, regions) == [("12", "number"), ("Main St.", "street"), ("Oak", "city"), ("Park", "city")]
