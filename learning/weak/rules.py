"""Labelling functions as data: one struct a kind of rule, told apart by `kind`, checked before any is applied.

Owns what a rule may say; no rule holds code. A vote is a label number, -1 = abstain (A. Ratner et al., "Data Programming: Creating
Large Training Sets, Quickly", NIPS 2016). Must never look at items: that is `application`. Called by pages and roles that keep
rules as JSON, and by `application`.

| bad input | answer |
|---|---|
| an unknown kind or field of a rule, a value of the wrong type, an empty word | InvalidInputError naming the place in the JSON |
| two rules of one name, a label that the task does not have | InvalidInputError naming the rule |
| a range without an end, or whose ends are the wrong way round | InvalidInputError naming the rule |
| an expression or a regular expression with an error | InvalidInputError naming the rule, the column and the way out |
| a lookup with one entry for two labels once case is ignored | InvalidInputError naming the rule and the entry |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from labelloop.errors import InvalidInputError
from learning.weak.conditions import parse_condition
from learning.weak.knowledge import Senses
from learning.weak.patterns import compile_pattern
from learning.weak.words import Phrase, split

MAX_RULES = 1000
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Words = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
Label = Annotated[int, msgspec.Meta(ge=0, description="What the rule says where it fires.")]
Share = Annotated[float, msgspec.Meta(gt=0, le=1, description="Least probability at which the rule votes.")]
Many = msgspec.Meta(min_length=1, max_length=200_000)


class _Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind"):
    name: Name


class Keywords(_Rule, frozen=True, kw_only=True, tag="keywords"):
    """Fires where the field holds one (`need` any) or all of the words or phrases, as whole words."""

    label: Label
    field: Name
    words: Annotated[tuple[Words, ...], Many]
    need: Literal["any", "all"] = "any"
    is_case_sensitive: bool = False


class Pattern(_Rule, frozen=True, kw_only=True, tag="pattern"):
    """Fires where the regular expression (RE2) is found in the field."""

    label: Label
    field: Name
    pattern: str
    is_case_sensitive: bool = False


class NumberRange(_Rule, frozen=True, kw_only=True, tag="number"):
    """Fires where at_least <= field <= at_most; None = open on that side."""

    label: Label
    field: Name
    at_least: float | None = None
    at_most: float | None = None


class Condition(_Rule, frozen=True, kw_only=True, tag="condition"):
    """Fires where the expression is true: `price > 100 and not title contains 'sale'` (see `learning.weak.grammar`)."""

    label: Label
    when: str


class Lookup(_Rule, frozen=True, kw_only=True, tag="lookup"):
    """A dictionary (`whole`: the field is an entry) or gazetteer (the field holds an entry as whole words), each entry with its
    label.

    Where entries of more than one label are found the rule abstains.
    """

    field: Name
    entries: Annotated[dict[Words, Label], Many]
    whole: bool = False
    is_case_sensitive: bool = False


class Hypernym(_Rule, frozen=True, kw_only=True, tag="hypernym"):
    """Fires where the field holds a word for a kind of one of `terms`: of 'animal.n.01', 'dogs' and 'polar bear'.

    `senses` first: a word counts by its most usual sense only. `with_terms`: words for the terms themselves count as well.
    """

    label: Label
    field: Name
    base: Name
    terms: Annotated[tuple[Words, ...], msgspec.Meta(min_length=1, max_length=1000)]
    senses: Senses = "first"
    max_steps: Annotated[int, msgspec.Meta(ge=1, le=50)] = 50
    with_terms: bool = True


class Relation(_Rule, frozen=True, kw_only=True, tag="relation"):
    """Fires where the field holds a word that stands in `relation` to one of `terms`: with has-part, of 'car.n.01', 'bumper'."""

    label: Label
    field: Name
    base: Name
    relation: Name
    terms: Annotated[tuple[Words, ...], msgspec.Meta(min_length=1, max_length=1000)]
    senses: Senses = "any"
    max_steps: Annotated[int, msgspec.Meta(ge=1, le=50)] = 1
    with_terms: bool = False


class ModelOpinion(_Rule, frozen=True, kw_only=True, tag="model"):
    """Says what a model finds likeliest where it is sure enough; `labels` is the label of each of its columns, -1 = abstain."""

    source: Name
    at_least: Share = 0.8
    labels: tuple[Annotated[int, msgspec.Meta(ge=-1)], ...] | None = None


class CrowdOpinion(_Rule, frozen=True, kw_only=True, tag="crowd"):
    """Says what a crowd's posterior finds likeliest where it is sure enough; items without people's labels abstain."""

    source: Name
    at_least: Share = 0.8
    labels: tuple[Annotated[int, msgspec.Meta(ge=-1)], ...] | None = None


Rule = Keywords | Pattern | NumberRange | Condition | Lookup | Hypernym | Relation | ModelOpinion | CrowdOpinion
Rules = tuple[Rule, ...]


def read_rules(data: bytes | str, n_labels: int) -> Rules:
    """Return the rules in a JSON array, checked. Raises InvalidInputError: see the module's table."""
    try:
        return check_rules(msgspec.json.decode(data, type=Rules), n_labels)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidInputError(f"not a list of rules: {exc}") from exc


def write_rules(rules: Sequence[Rule]) -> bytes:
    """Return rules as the JSON array that `read_rules` reads."""
    return msgspec.json.encode(list(rules))


def check_rules(rules: Sequence[Rule], n_labels: int) -> Rules:
    """Return the rules when all may be applied to a task of `n_labels`. Raises InvalidInputError: see the module's table."""
    if not 1 <= len(rules) <= MAX_RULES:
        raise InvalidInputError(f"a label model takes 1 to {MAX_RULES} rules, got {len(rules)}")
    try:
        checked = msgspec.convert(msgspec.to_builtins(list(rules)), Rules)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"not a list of rules: {exc}") from exc
    seen: set[str] = set()
    for rule in checked:
        problem = f"there are two rules called {rule.name!r}" if rule.name in seen else why_not(rule, n_labels)
        if problem is not None:
            raise InvalidInputError(f"rule {rule.name!r}: {problem}")
        seen.add(rule.name)
    return checked


def why_not(rule: Rule, n_labels: int) -> str | None:
    """Return why a rule cannot be applied to a task of `n_labels`, or None when it can."""
    wrong = [label for label in labels_of(rule) if label >= n_labels]
    if wrong:
        return f"label {wrong[0]} is none of this task's, which are 0 to {n_labels - 1}"
    try:
        return _why_not(rule)
    except InvalidInputError as exc:
        return str(exc)


def labels_of(rule: Rule) -> tuple[int, ...]:
    """Return the labels that a rule can say as far as it names them."""
    match rule:
        case Lookup():
            return tuple(sorted(set(rule.entries.values())))
        case ModelOpinion() | CrowdOpinion():
            return rule.labels or ()
        case _:
            return (rule.label,)


def phrases_of(rule: Keywords | Lookup) -> dict[Phrase, Any]:
    """Return a rule's phrases, split into words: with the number of each keyword, or with the label of each entry.

    Raises InvalidInputError when a phrase holds no word, or one entry has two labels once case is ignored.
    """
    found: dict[Phrase, Any] = {}
    entries = rule.entries.items() if isinstance(rule, Lookup) else [(word, place) for place, word in enumerate(rule.words)]
    for text, value in entries:
        phrase = split(text, rule.is_case_sensitive)
        if not phrase:
            raise InvalidInputError(f"{text!r} holds no word: take it out")
        if isinstance(rule, Lookup) and found.get(phrase, value) != value:
            raise InvalidInputError(f"{text!r} has the labels {found[phrase]} and {value}: keep one, or ask for the case")
        found[phrase] = value
    return found


def _why_not(rule: Rule) -> str | None:
    match rule:
        case Keywords() | Lookup():
            phrases_of(rule)
        case Pattern():
            compile_pattern(rule.pattern, rule.is_case_sensitive)
        case Condition():
            parse_condition(rule.when)
        case NumberRange(at_least=None, at_most=None):
            return "a range needs at_least, at_most or both"
        case NumberRange(at_least=float() as low, at_most=float() as high) if low > high:
            return f"no number is at least {low:g} and at most {high:g}: turn the ends around"
        case _:
            pass
    return None
