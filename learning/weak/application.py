"""Rules over items: the matrix of votes.

Owns how each kind of rule fires, over whole columns at once: words are numbered once a column, whatever the number of rules.
Must never weigh votes: that is the label model. Called by roles and pages that label by rules, and by the bench.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.weak.columns import Items
from learning.weak.conditions import holds, parse_condition
from learning.weak.knowledge import Knowledge, find_concept, follow, is_form_of, words_for
from learning.weak.patterns import compile_pattern, found_in
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
    Rule,
    check_rules,
    phrases_of,
)
from learning.weak.votes import ABSTAIN
from learning.weak.words import Phrase, find_phrases, forms_of, split

KINDS_OF = ("hyponym", "instance-hyponym")  # the relations that lead from a concept to its kinds


def apply_rules(rules: Sequence[Rule], items: Items, n_labels: int) -> NDArray[np.int16]:
    """Return what each rule says of each item: (n, m) int16, -1 = it abstains. Rules are checked first.

    Raises InvalidInputError naming the rule that asks for a column, base, model or crowd the items do not have.
    """
    checked = check_rules(rules, n_labels)
    votes = np.empty((items.n_items, len(checked)), dtype=np.int16, order="F")
    for place, rule in enumerate(checked):
        try:
            votes[:, place] = _votes(rule, items, n_labels)
        except InvalidInputError as exc:
            raise InvalidInputError(f"rule {rule.name!r}: {exc}") from exc
    return votes


def _votes(rule: Rule, items: Items, n_labels: int) -> NDArray[np.int16]:
    match rule:
        case Lookup():
            return _look_up(rule, items)
        case ModelOpinion():
            return _opinion(rule, items.models, "model", n_labels)
        case CrowdOpinion():
            return _opinion(rule, items.crowds, "crowd", n_labels)
        case _:
            return np.where(_fires(rule, items), np.int16(rule.label), np.int16(ABSTAIN))


def _fires(rule: Keywords | Pattern | NumberRange | Condition | Hypernym | Relation, items: Items) -> NDArray[np.bool_]:
    match rule:
        case Keywords():
            return _keywords(rule, items)
        case Pattern():
            compiled = compile_pattern(rule.pattern, rule.is_case_sensitive)
            return items.is_known(rule.field) & found_in(compiled, items.encoded(rule.field))
        case NumberRange():
            return _in_range(rule, items)
        case Condition():
            return holds(parse_condition(rule.when), items)
        case _:
            return _related(rule, items)


def _keywords(rule: Keywords, items: Items) -> NDArray[np.bool_]:
    phrases = phrases_of(rule)
    if rule.need == "any":
        return find_phrases(items.words(rule.field), dict.fromkeys(phrases, 0), 1, rule.is_case_sensitive)[:, 0]
    numbered = {phrase: place for place, phrase in enumerate(phrases)}
    found = find_phrases(items.words(rule.field), numbered, len(numbered), rule.is_case_sensitive)
    return np.asarray(found.all(axis=1))


def _in_range(rule: NumberRange, items: Items) -> NDArray[np.bool_]:
    numbers = items.numbers(rule.field)
    low = -np.inf if rule.at_least is None else rule.at_least
    high = np.inf if rule.at_most is None else rule.at_most
    return (numbers >= low) & (numbers <= high)  # false for NaN


def _look_up(rule: Lookup, items: Items) -> NDArray[np.int16]:
    """Return the label of the entries found, or abstention where there is none or more than one label."""
    phrases = phrases_of(rule)
    if rule.whole:
        return _look_up_whole(rule, items)
    labels = sorted(set(phrases.values()))
    place = {label: number for number, label in enumerate(labels)}
    groups = {phrase: place[label] for phrase, label in phrases.items()}
    found = find_phrases(items.words(rule.field), groups, len(labels), rule.is_case_sensitive)
    said = np.array(labels, dtype=np.int16)[found.argmax(axis=1)]
    return np.where(found.sum(axis=1) == 1, said, np.int16(ABSTAIN))


def _look_up_whole(rule: Lookup, items: Items) -> NDArray[np.int16]:
    def plain(text: str) -> str:
        return text.strip() if rule.is_case_sensitive else text.strip().casefold()

    entries = {plain(text): label for text, label in rule.entries.items()}
    texts = items.texts(rule.field)
    return np.fromiter((entries.get(plain(text or ""), ABSTAIN) for text in texts), dtype=np.int16, count=len(texts))


def _related(rule: Hypernym | Relation, items: Items) -> NDArray[np.bool_]:
    """Return where the field holds a word for a concept that the rule's terms lead to."""
    base = _known(items.knowledge, rule.base, "knowledge base")
    start = {find_concept(base, term) for term in rule.terms}
    relations = tuple(name for name in KINDS_OF if name in base.relations) if isinstance(rule, Hypernym) else (rule.relation,)
    reached = follow(base, start, relations or KINDS_OF, rule.max_steps)
    concepts = reached | start if rule.with_terms else reached - start
    index = items.words(rule.field)
    phrases = _forms(base, words_for(base, frozenset(concepts), rule.senses), forms_of(index))
    return find_phrases(index, dict.fromkeys(phrases, 0), 1)[:, 0]


def _forms(base: Knowledge, wanted: dict[str, frozenset[str]], forms: Sequence[str]) -> set[Phrase]:
    """Return the phrases to look for: single words in every form that the texts hold, phrases as the base has them."""
    phrases: set[Phrase] = {
        (form,) for form in set(forms) if any(is_form_of(base, part, form, words) for part, words in wanted.items() if words)
    }
    for words in wanted.values():
        phrases |= {phrase for phrase in map(split, words) if len(phrase) > 1}
    return phrases


def _opinion(
    rule: ModelOpinion | CrowdOpinion, sources: dict[str, NDArray[np.float32]], what: str, n_labels: int
) -> NDArray[np.int16]:
    """Return the likeliest label where its probability is high enough and no other's is as high."""
    proba = _known(sources, rule.source, what)
    labels = rule.labels if rule.labels is not None else tuple(range(proba.shape[1]))
    if len(labels) != proba.shape[1] or max(labels, default=0) >= n_labels:
        raise InvalidInputError(
            f"{what} {rule.source!r} has {proba.shape[1]} columns and the task {n_labels} labels: give `labels`, one a column"
        )
    top = proba.max(axis=1)
    is_sure = (top >= rule.at_least) & ((proba == top[:, None]).sum(axis=1) == 1)
    return np.where(is_sure, np.array(labels, dtype=np.int16)[proba.argmax(axis=1)], np.int16(ABSTAIN))


def _known(sources: dict[str, Any], name: str, what: str) -> Any:
    try:
        return sources[name]
    except KeyError:
        known = ", ".join(repr(source) for source in sources) or "none"
        raise InvalidInputError(f"there is no {what} {name!r} with these items: there is {known}") from None
