"""Rules as data: what each kind fires on, against one text at a time, and their documented answers to bad input."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelloop.errors import InvalidInputError
from learning.weak import Items, Knowledge, Rule, apply_rules, check_rules, read_rules, write_rules
from learning.weak.knowledge import find_concept, follow, is_form_of
from learning.weak.rules import (
    Condition,
    CrowdOpinion,
    Hypernym,
    Keywords,
    Lookup,
    ModelOpinion,
    NumberRange,
    Pattern,
    Relation,
)
from learning.weak.words import find_phrases, index_words, split

TEXTS = (
    "Two dogs ran in New York",
    "A POLAR BEAR slept",
    None,
    "the car's bumper",
    "new  yorkers",
    "他在北京工作",
    "It costs $100 (US)",
    "tell us",
    "mice and a dog",
    "Cafe\u0301 new\nyork",
)
# entity 1 > animal 2 > dog 3, bear 4 > polar bear 5, mouse 6 (also a device 7); car 8 has a bumper 9; dog 10 as a fellow
BASE = Knowledge(
    senses={
        "n": {
            "entity": (1,),
            "animal": (2,),
            "dog": (3, 10),
            "bear": (4,),
            "polar bear": (5,),
            "mouse": (7, 6),
            "car": (8,),
            "bumper": (9,),
        },
        "v": {"bear": (11,)},
    },
    relations={
        "hyponym": {1: (2, 8), 2: (3, 4, 6), 4: (5,)},
        "hypernym": {2: (1,), 3: (2,), 4: (2,), 6: (2,), 5: (4,), 8: (1,)},
        "has-part": {8: (9,)},
    },
    irregular={"n": {"mice": ("mouse",)}},
    endings={"n": (("s", ""), ("ies", "y")), "v": (("s", ""),)},
)
N = len(TEXTS)
SURE = np.full((N, 2), [0.9, 0.1], dtype=np.float32)
SURE[1], SURE[2], SURE[3] = [0.4, 0.6], np.nan, [0.5, 0.5]
ITEMS = Items(
    {"text": TEXTS, "price": [1, 5.5, None, 10, -3, True, float("nan"), 7, 100, 0]},
    models={"old": SURE},
    crowds={"people": SURE[:, ::-1]},
    knowledge={"wordnet": BASE},
)


def fired(rule: Rule, n_labels: int = 4) -> list[int]:
    votes = apply_rules([rule], ITEMS, n_labels)[:, 0]
    label = getattr(rule, "label", None)
    assert label is None or set(votes.tolist()) <= {label, -1}
    return np.flatnonzero(votes >= 0).tolist()


def keywords(*words: str, **more: Any) -> Keywords:
    return Keywords(name="k", label=2, field="text", words=words, **more)


def hypernym(*terms: str, **more: Any) -> Hypernym:
    return Hypernym(name="h", label=3, field="text", base="wordnet", terms=terms, **more)


def related(relation: str, *terms: str, **more: Any) -> Relation:
    return Relation(name="r", label=0, field="text", base="wordnet", relation=relation, terms=terms, **more)


CASES: list[tuple[Rule, list[int]]] = [
    (keywords("dog", "dogs"), [0, 8]),
    (keywords("new york"), [0, 9]),
    (keywords("York"), [0, 9]),
    (keywords("york", is_case_sensitive=True), [9]),
    (keywords("US", is_case_sensitive=True), [6]),
    (keywords("us"), [6, 7]),
    (keywords("北京"), [5]),
    (keywords("京北"), []),
    (keywords("$100"), [6]),
    (keywords("CAFÉ"), [9]),
    (keywords("dogs", "York", need="all"), [0]),
    (keywords("dogs", "york", "absent", need="all"), []),
    (Pattern(name="p", label=0, field="text", pattern=r"\$\d+"), [6]),
    (Pattern(name="p", label=0, field="text", pattern="^a polar"), [1]),
    (Pattern(name="p", label=0, field="text", pattern="^a polar", is_case_sensitive=True), []),
    (Pattern(name="p", label=0, field="text", pattern="^$"), []),
    (NumberRange(name="n", label=1, field="price", at_least=5.5, at_most=10), [1, 3, 7]),
    (NumberRange(name="n", label=1, field="price", at_most=0), [4, 9]),
    (NumberRange(name="n", label=1, field="price", at_least=7), [3, 7, 8]),
    (Condition(name="c", label=1, when="price > 5 and text contains 'dog'"), [8]),
    (hypernym("animal.n.01"), [0, 1, 8]),
    (hypernym("animal"), [0, 1, 8]),
    (hypernym("bear.n.01"), [1]),
    (hypernym("bear.n.01", with_terms=False), [1]),
    (hypernym("dog", with_terms=False), []),
    (hypernym("animal", max_steps=1), [0, 1, 8]),
    (hypernym("entity", max_steps=1), [3]),
    (related("has-part", "car.n.01"), [3]),
    (related("hypernym", "polar_bear.n.01"), [1]),
    (related("hyponym", "animal", senses="first"), [0, 1, 8]),
]


@pytest.mark.parametrize(("rule", "rows"), CASES)
def test_a_rule_fires_where_its_docstring_says(rule: Rule, rows: list[int]) -> None:
    assert fired(rule) == rows


def test_a_word_counts_by_its_usual_sense_or_by_any() -> None:
    items = Items({"text": ["mice", "a mouse"]}, knowledge={"wordnet": BASE})
    first, every = hypernym("animal"), msgspec.structs.replace(hypernym("animal"), name="any", senses="any")
    assert apply_rules([first, every], items, 4).tolist() == [[-1, 3], [-1, 3]]


def test_a_gazetteer_says_the_label_of_what_it_finds_and_abstains_between_two() -> None:
    rule = Lookup(name="l", field="text", entries={"New York": 1, "dog": 0, "mice": 2, "北京": 3, "cars": 0})
    assert apply_rules([rule], ITEMS, 4)[:, 0].tolist() == [1, -1, -1, -1, -1, 3, -1, -1, -1, 1]


def test_a_dictionary_looks_up_the_whole_field() -> None:
    rule = Lookup(name="l", field="text", entries={"TELL US ": 1, "new york": 0}, whole=True)
    assert apply_rules([rule], ITEMS, 2)[:, 0].tolist() == [-1, -1, -1, -1, -1, -1, -1, 1, -1, -1]
    exact = msgspec.structs.replace(rule, is_case_sensitive=True)
    assert (apply_rules([exact], ITEMS, 2) == -1).all()


def test_a_model_and_a_crowd_vote_where_they_are_sure_and_have_an_opinion() -> None:
    model = ModelOpinion(name="m", source="old", at_least=0.5)
    crowd = CrowdOpinion(name="c", source="people", at_least=0.8, labels=(2, -1))
    votes = apply_rules([model, crowd], ITEMS, 4)
    assert votes[:4].tolist() == [[0, -1], [1, -1], [-1, -1], [-1, -1]]
    assert apply_rules([CrowdOpinion(name="c", source="people", at_least=0.6, labels=(2, 3))], ITEMS, 4)[:2, 0].tolist() == [3, 2]


def test_rules_are_kept_as_json_and_come_back_the_same() -> None:
    rules = tuple(msgspec.structs.replace(rule, name=f"{place}") for place, (rule, _) in enumerate(CASES))
    assert read_rules(write_rules(rules), 4) == rules
    assert b'"kind":"keywords"' in write_rules(rules)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.text(alphabet="aAbB .-'é\u0301北京1\nßİ", max_size=14)), min_size=1, max_size=6),
    st.lists(st.text(alphabet="aAbB -é北京1ßİ", min_size=1, max_size=4), min_size=1, max_size=4),
    st.booleans(),
)
def test_numbered_words_find_the_phrases_that_one_text_at_a_time_finds(
    texts: list[str | None], phrases: list[str], is_case_sensitive: bool
) -> None:
    wanted = {phrase: place for place, phrase in enumerate(sorted({split(text, is_case_sensitive) for text in phrases} - {()}))}
    found = find_phrases(index_words(texts), wanted, len(wanted), is_case_sensitive)
    for row, text in enumerate(texts):
        words = split(text or "", is_case_sensitive)
        for phrase, place in wanted.items():
            is_there = any(words[at : at + len(phrase)] == phrase for at in range(len(words)))
            assert found[row, place] == is_there


def test_a_phrase_does_not_reach_from_one_item_into_the_next() -> None:
    index = index_words(["a new", "york", "", "new", None, "york new york"])
    assert find_phrases(index, {("new", "york"): 0}, 1)[:, 0].tolist() == [False, False, False, False, False, True]


@given(st.text(max_size=40))
def test_every_sign_of_a_text_is_in_one_word(text: str) -> None:
    assert "".join(split(text, True)) == re.sub(r"\s", "", unicodedata.normalize("NFC", text))


def test_base_forms_undo_endings_and_know_the_irregular_ones() -> None:
    assert is_form_of(BASE, "n", "dog", {"dog"})
    assert is_form_of(BASE, "n", "dogs", {"cat", "dog"})
    assert is_form_of(BASE, "n", "mice", {"mouse"})
    assert is_form_of(BASE, "v", "bears", {"bear"})
    assert not is_form_of(BASE, "n", "mice", {"dog"})
    assert not is_form_of(BASE, "n", "s", {""})
    assert find_concept(BASE, "Polar_Bear.n.01") == 5
    assert follow(BASE, [2], ("hyponym",), 1) == {3, 4, 6}
    assert follow(BASE, [2], ("hyponym",), 9) == {3, 4, 5, 6}


def rule_json(**fields: Any) -> bytes:
    return msgspec.json.encode([{"kind": "keywords", "name": "k", "label": 0, "field": "text", "words": ["a"], **fields}])


K = keywords("a")
BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: read_rules(b"[", 2), "not a list of rules"),
    (lambda: read_rules(b"\xff", 2), "not a list of rules"),
    (lambda: read_rules(b"[]", 2), "1 to 1000 rules, got 0"),
    (lambda: read_rules(rule_json(kind="python"), 2), r"Invalid value 'python' - at `\$\[0\].kind`"),
    (lambda: read_rules(rule_json(code="x"), 2), r"unknown field `code`"),
    (lambda: read_rules(rule_json(label=-1), 2), r"`\$\[0\].label`"),
    (lambda: read_rules(rule_json(label="1"), 2), r"Expected `int`, got `str` - at `\$\[0\].label`"),
    (lambda: read_rules(rule_json(words=[]), 2), r"`\$\[0\].words`"),
    (lambda: read_rules(rule_json(words=[""]), 2), r"`\$\[0\].words\[0\]`"),
    (lambda: read_rules(rule_json(name=""), 2), r"`\$\[0\].name`"),
    (lambda: check_rules([K, K], 3), "rule 'k': there are two rules called 'k'"),
    (lambda: check_rules([K], 2), "rule 'k': label 2 is none of this task's, which are 0 to 1"),
    (lambda: check_rules([keywords(" \n")], 3), "holds no word"),
    (lambda: check_rules([keywords(3)], 3), "not a list of rules"),  # type: ignore[arg-type]
    (lambda: check_rules([NumberRange(name="n", label=0, field="x")], 2), "rule 'n': a range needs at_least"),
    (lambda: check_rules([NumberRange(name="n", label=0, field="x", at_least=2, at_most=1)], 2), "turn the ends around"),
    (lambda: check_rules([Condition(name="c", label=0, when="x >")], 2), "rule 'c': condition, column 4 .*found the end"),
    (lambda: check_rules([Pattern(name="p", label=0, field="x", pattern="(")], 2), r"rule 'p': regular expression '\('"),
    (lambda: check_rules([Lookup(name="l", field="x", entries={"Us": 0, "US": 1})], 2), "'US' has the labels 0 and 1"),
    (lambda: check_rules([Lookup(name="l", field="x", entries={"a": 7})], 2), "label 7 is none"),
    (
        lambda: apply_rules([Keywords(name="k", label=0, field="no", words=("a",))], ITEMS, 2),
        "rule 'k': there is no column 'no'",
    ),
    (lambda: apply_rules([Keywords(name="k", label=0, field="price", words=("a",))], ITEMS, 2), "'price' holds numbers"),
    (lambda: apply_rules([NumberRange(name="n", label=0, field="text", at_least=1)], ITEMS, 2), "'text' holds texts"),
    (lambda: apply_rules([hypernym("unicorn")], ITEMS, 4), "rule 'h': the knowledge base has no word 'unicorn'"),
    (lambda: apply_rules([hypernym("dog.n.03")], ITEMS, 4), "no 'dog.n.03': 'dog' has 2 senses"),
    (lambda: apply_rules([related("eats", "dog")], ITEMS, 4), "no relation 'eats': use one of has-part, hypernym"),
    (lambda: apply_rules([msgspec.structs.replace(hypernym("dog"), base="b")], ITEMS, 4), "no knowledge base 'b'.*'wordnet'"),
    (lambda: apply_rules([ModelOpinion(name="m", source="new")], ITEMS, 2), "no model 'new' with these items: there is 'old'"),
    (lambda: apply_rules([CrowdOpinion(name="m", source="old")], ITEMS, 2), "no crowd 'old'"),
    (lambda: apply_rules([ModelOpinion(name="m", source="old", labels=(0,))], ITEMS, 2), "2 columns and the task 2 labels"),
    (lambda: apply_rules([ModelOpinion(name="m", source="old")], ITEMS, 1), "2 columns and the task 1 labels"),
    (lambda: Items({}), "at least one column"),
    (lambda: Items({"a": [1], "b": [1, 2]}), "all of one length"),
    (lambda: Items({"a": ["x", 1]}), "'a' holds a text in row 0 and a number in row 1"),
    (lambda: Items({"a": [b"x"]}), "row 0 of column 'a' is bytes"),
    (lambda: Items({"a": np.zeros((2, 2))}), "one value an item"),
    (lambda: Items({"a": [1]}, models={"m": np.array([[0.5, 0.4]])}), r"row 0 of model 'm' is no distribution \(sum 0.9\)"),
    (lambda: Items({"a": [1]}, models={"m": np.array([[1.5, -0.5]])}), "row 0 of model 'm'"),
    (lambda: Items({"a": [1]}, crowds={"m": np.array([[np.nan, 1.0]])}), "row 0 of crowd 'm'"),
    (lambda: Items({"a": [1]}, crowds={"m": np.array([0.5])}), r"must give \(1, k\) probabilities"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_rules_and_items_are_refused_by_name(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call()


def test_no_items_give_no_votes() -> None:
    items = Items({"text": [], "price": []}, knowledge={"wordnet": BASE})
    rules = [keywords("a b"), NumberRange(name="n", label=0, field="price", at_least=1), hypernym("animal")]
    assert apply_rules(rules, items, 4).shape == (0, 3)
