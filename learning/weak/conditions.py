"""Conditions on items: `price > 100 and not title contains 'sale'`, over whole columns at once.

Owns what a condition means. A test on a missing value is neither true nor false, and `not` leaves it so (S. C. Kleene, "On
Notation for Ordinal Numbers", 1938: three truth values); a rule fires where its condition is true. Must never loop over items
where numpy can. Called by `rules` (check) and `application` (fire). The grammar: `learning.weak.grammar`.

| bad input | answer |
|---|---|
| anything that is no condition | InvalidInputError naming the column of the text and what belongs there |
| a field that is no column | InvalidInputError naming the columns there are |
| a number compared with a text, `<` between texts | InvalidInputError naming the column and the way out |
| a regular expression that RE2 refuses | InvalidInputError with its reason |
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.weak import grammar, tree
from learning.weak.columns import Items
from learning.weak.patterns import compile_pattern, found_in
from learning.weak.tree import Compare, Contains, Field, Has, In, Literal, Matches, Node, Not, Operand, Size

_SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Truth(NamedTuple):
    """Where a condition is true and where it is false, both (n,); neither where a value is missing."""

    is_true: NDArray[np.bool_]
    is_false: NDArray[np.bool_]


def parse_condition(source: str) -> Node:
    """Return the tree of a condition, its regular expressions tried. Raises InvalidInputError and nothing else."""
    node = grammar.parse(source)
    _try_patterns(node)
    return node


def holds(node: Node, items: Items) -> NDArray[np.bool_]:
    """Return where the condition is true, (n,). Raises InvalidInputError: see the module's table."""
    return truth_of(node, items).is_true


def truth_of(node: Node, items: Items) -> Truth:
    """Return where the condition is true and where it is false."""
    match node:
        case tree.All(parts):
            found = [truth_of(part, items) for part in parts]
            return Truth(
                np.logical_and.reduce([part.is_true for part in found]), np.logical_or.reduce([part.is_false for part in found])
            )
        case tree.Any(parts):
            found = [truth_of(part, items) for part in parts]
            return Truth(
                np.logical_or.reduce([part.is_true for part in found]), np.logical_and.reduce([part.is_false for part in found])
            )
        case Not(part):
            inner = truth_of(part, items)
            return Truth(inner.is_false, inner.is_true)
        case Has(field):
            is_known = items.is_known(field)
            return Truth(is_known, ~is_known)
        case Compare():
            return _compare(node, items)
        case _:
            return _test(node, items)


def _test(node: Contains | Matches | In, items: Items) -> Truth:
    if isinstance(node, Contains):
        texts = items.folded(node.field)
        found = np.zeros(items.n_items, dtype=np.bool_)
        for part in map(str.casefold, node.parts):
            found |= np.fromiter((part in text for text in texts), dtype=np.bool_, count=len(texts))
    elif isinstance(node, Matches):
        found = found_in(compile_pattern(node.pattern), items.encoded(node.field))
    elif isinstance(node.values[0], str):
        wanted = frozenset(node.values)
        found = np.fromiter((text in wanted for text in items.texts(node.field)), dtype=np.bool_, count=items.n_items)
    else:
        found = np.isin(items.numbers(node.field), np.array(node.values, dtype=np.float64))
    return _known(found, items.is_known(node.field))


def _known(found: NDArray[np.bool_], is_known: NDArray[np.bool_]) -> Truth:
    return Truth(found & is_known, ~found & is_known)


def _compare(node: Compare, items: Items) -> Truth:
    if any(_is_text(side, items) for side in (node.left, node.right)):
        return _compare_texts(node, items)
    left, right = _numbers(node.left, items), _numbers(node.right, items)
    found = np.broadcast_to(_SIGNS[node.sign](left, right), (items.n_items,))
    return _known(found, np.broadcast_to(~(np.isnan(left) | np.isnan(right)), (items.n_items,)))


def _compare_texts(node: Compare, items: Items) -> Truth:
    if node.sign not in ("==", "!="):
        raise InvalidInputError(f"texts have no order here: {node.sign} needs numbers; use ==, !=, in, contains or matches")
    left, right = _texts(node.left, items), _texts(node.right, items)
    found = np.asarray(_SIGNS[node.sign](left, right), dtype=np.bool_)
    is_known = np.ones(items.n_items, dtype=np.bool_)
    for side in (node.left, node.right):
        if isinstance(side, Field):
            is_known &= items.is_known(side.name)
    return _known(np.broadcast_to(found, (items.n_items,)), is_known)


def _is_text(side: Operand, items: Items) -> bool:
    if isinstance(side, Literal):
        return isinstance(side.value, str)
    return isinstance(side, Field) and items.kind(side.name) == "text"


def _texts(side: Operand, items: Items) -> Any:
    if isinstance(side, Field):
        return items.texts(side.name)
    if isinstance(side, Size) or not isinstance(side.value, str):
        what = f"{side.unit}({side.field})" if isinstance(side, Size) else f"{side.value:g}"
        raise InvalidInputError(f"a text is compared with the number {what}: put it into quotes, or compare two numbers")
    return np.array(side.value, dtype=object)


def _numbers(side: Operand, items: Items) -> Any:
    """Return numbers (n,) or a single one."""
    if isinstance(side, Field):
        return items.numbers(side.name)
    if isinstance(side, Literal):
        return np.float64(side.value)
    is_known = items.is_known(side.field)
    if side.unit == "words":
        sizes = items.words(side.field).counts()
    else:
        sizes = np.fromiter((len(text or "") for text in items.texts(side.field)), dtype=np.int64, count=items.n_items)
    return np.where(is_known, sizes, np.nan)


def _try_patterns(node: Node) -> None:
    if isinstance(node, Matches):
        compile_pattern(node.pattern)
    elif isinstance(node, Not):
        _try_patterns(node.part)
    elif isinstance(node, (tree.All, tree.Any)):
        for part in node.parts:
            _try_patterns(part)
