"""Rules as people write them (labels by name) ↔ rules as the cluster reads them (labels by number), and whose an error is.

Owns the shape in which rules are stored. Must never judge a rule: the cluster does, in its own words. Called by `webapp.rules` and
by the pilot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from labelloop.errors import InvalidInputError
from webapp.db.projects import Project

MOST_RULES = 200
MOST_BYTES = 2 * 2**20
METHODS = ("auto", "majority", "dawid-skene", "matrix-completion")
ENABLED = "enabled"  # the page's own field: False = the rule rests
_IN_LIST = re.compile(r"\$\[(\d+)\]")


def check_stored(rules: Any) -> tuple[dict[str, Any], ...]:
    """Return rules that may be stored, half-written ones too. Raises InvalidInputError for no list of objects, or too much."""
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise InvalidInputError("rules: give a list of objects, one a rule")
    if len(rules) > MOST_RULES:
        raise InvalidInputError(f"{len(rules)} rules: at most {MOST_RULES}; one lookup holds many words of many labels")
    try:
        size = len(msgspec.json.encode(rules))
    except (UnicodeEncodeError, RecursionError) as exc:
        raise InvalidInputError(f"rules: {exc}") from exc
    if size > MOST_BYTES:
        raise InvalidInputError(f"rules of {size} bytes: at most {MOST_BYTES}")
    return tuple(rules)


def is_enabled(rule: Mapping[str, Any]) -> bool:
    """Return whether a rule takes part."""
    return rule.get(ENABLED) is not False


def to_cluster(project: Project, rule: Mapping[str, Any]) -> dict[str, Any]:
    """Return a rule with the numbers of its labels. Raises InvalidInputError for a label that the project does not have."""
    out = {key: value for key, value in rule.items() if key != ENABLED}
    if "label" in out:
        out["label"] = _number(project, out["label"])
    if isinstance(out.get("entries"), Mapping):
        out["entries"] = {phrase: _number(project, label) for phrase, label in out["entries"].items()}
    if isinstance(out.get("labels"), list):
        out["labels"] = [-1 if label is None else _number(project, label) for label in out["labels"]]
    return out


def _number(project: Project, label: Any) -> Any:
    if not isinstance(label, str):
        return label  # a number already, or nonsense that the cluster names
    if label not in project.label_set.numbers:
        raise InvalidInputError(f"label {label!r} is not in project {project.slug!r}: use one of {', '.join(project.labels[:20])}")
    return project.label_set.numbers[label]


def encode_rules(project: Project, rules: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the enabled rules as the JSON that the cluster reads. Raises InvalidInputError naming the rule."""
    out = []
    for rule in filter(is_enabled, rules):
        try:
            out.append(to_cluster(project, rule))
        except InvalidInputError as exc:
            raise InvalidInputError(f"rule {str(rule.get('name'))!r}: {exc}") from exc
    return msgspec.json.encode(out)


def names_of(rules: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the names of the enabled rules, in the order of their votes."""
    return tuple(str(rule.get("name")) for rule in rules if is_enabled(rule))


def rule_at_fault(said: str, sent: Sequence[Mapping[str, Any]]) -> int | None:
    """Return which of the rules that were sent an error of the cluster is about, None = none of them alone."""
    for at in reversed(range(len(sent))):
        if said.startswith(f"rule {sent[at].get('name')!r}"):
            return at
    found = _IN_LIST.search(said)
    return int(found[1]) if found and int(found[1]) < len(sent) else None


def without_name(said: str, rule: Mapping[str, Any]) -> str:
    """Return an error without the name of the rule that it stands beside."""
    return said.removeprefix(f"rule {rule.get('name')!r}: ").removeprefix("not a list of rules: ")
