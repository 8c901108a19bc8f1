"""The tree of a condition: what `grammar` reads and `conditions` evaluates.

Owns the nodes. Must never hold behaviour.
"""

from __future__ import annotations

from typing import NamedTuple


class Field(NamedTuple):
    """A column of the items."""

    name: str


class Size(NamedTuple):
    """`length(field)` in characters or `words(field)` in words."""

    unit: str
    field: str


class Literal(NamedTuple):
    """A number or a text."""

    value: float | str


Operand = Field | Size | Literal


class Compare(NamedTuple):
    left: Operand
    sign: str
    right: Operand


class Contains(NamedTuple):
    """The field's text holds one of `parts`, whatever the case."""

    field: str
    parts: tuple[str, ...]


class Matches(NamedTuple):
    """The regular expression is found somewhere in the field's text."""

    field: str
    pattern: str


class In(NamedTuple):
    """The field equals one of `values`, all numbers or all texts."""

    field: str
    values: tuple[float | str, ...]


class Has(NamedTuple):
    """The field is not missing."""

    field: str


class Not(NamedTuple):
    part: Node


class All(NamedTuple):
    parts: tuple[Node, ...]


class Any(NamedTuple):
    parts: tuple[Node, ...]


Node = Compare | Contains | Matches | In | Has | Not | All | Any
