"""The language of conditions: from one line of text to a tree, by a token table and one function a level of the grammar.

Owns syntax and its errors. Must never run, import or look up anything that the text names: a condition is data. Called by
`conditions`.

    condition := both ("or" both)*
    both      := negated ("and" negated)*
    negated   := "not" negated | test
    test      := "(" condition ")" | "has" FIELD
               | operand ("==" | "!=" | "<" | "<=" | ">" | ">=") operand
               | FIELD ["not"] "contains" (TEXT | "(" TEXT ("," TEXT)* ")")
               | FIELD ["not"] "matches" TEXT
               | FIELD ["not"] "in" "(" literal ("," literal)* ")"
    operand   := FIELD | NUMBER | TEXT | ("length" | "words") "(" FIELD ")"

FIELD is a name (letters, digits, _), or anything between back quotes; TEXT stands between ' or ", a quote inside is doubled and a
backslash is a backslash; NUMBER is decimal, with a sign and an exponent where wanted.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from labelloop.errors import InvalidInputError
from learning.weak.tokens import Token, error_at, tokenise
from learning.weak.tree import All, Any, Compare, Contains, Field, Has, In, Literal, Matches, Node, Not, Operand, Size

MAX_LENGTH = 10_000  # characters
MAX_DEPTH = 50  # parentheses and nots inside each other
COMPARISONS = ("==", "!=", "<=", ">=", "<", ">")


def parse(source: str) -> Node:
    """Return the tree of a condition. Raises InvalidInputError naming the column and what belongs there; never anything else."""
    if len(source) > MAX_LENGTH:
        raise InvalidInputError(f"a condition has at most {MAX_LENGTH} characters, got {len(source)}: make several rules of it")
    return _Parser(source, tokenise(source)).whole()


class _Parser:
    """Recursive descent over tokens; each method reads one level of the grammar and leaves `_at` behind it."""

    def __init__(self, source: str, tokens: list[Token]) -> None:
        self._source, self._tokens, self._at, self._depth = source, tokens, 0, 0

    def whole(self) -> Node:
        node = self._any()
        if self._next.kind != "end":
            raise self._expected("'and', 'or' or the end")
        return node

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        self._at += 1
        return self._tokens[self._at - 1]

    def _takes(self, kind: str, *texts: str) -> bool:
        """Step over the next token when it is one of these."""
        is_it = self._next.kind == kind and self._next.text in texts
        self._at += is_it
        return is_it

    def _expected(self, what: str) -> InvalidInputError:
        found = "the end" if self._next.kind == "end" else repr(self._next.text)
        return error_at(self._source, self._next.column, f"expected {what}, found {found}")

    def _any(self) -> Node:
        parts = self._chain("or", self._all)
        return parts[0] if len(parts) == 1 else Any(parts)

    def _all(self) -> Node:
        parts = self._chain("and", self._negated)
        return parts[0] if len(parts) == 1 else All(parts)

    def _chain(self, word: str, read: Callable[[], Node]) -> tuple[Node, ...]:
        parts = [read()]
        while self._takes("word", word):
            parts.append(read())
        return tuple(parts)

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise error_at(self._source, self._next.column, f"nested more than {MAX_DEPTH} deep: make several rules of it")

    def _negated(self) -> Node:
        if not self._takes("word", "not"):
            return self._test()
        self._deeper()
        node = Not(self._negated())
        self._depth -= 1
        return node

    def _test(self) -> Node:
        if self._takes("sign", "("):
            self._deeper()
            node = self._any()
            self._close()
            self._depth -= 1
            return node
        if self._takes("word", "has"):
            return Has(self._field())
        left = self._operand()
        if isinstance(left, Field):
            found = self._membership(left.name)
            if found is not None:
                return found
        return self._comparison(left)

    def _membership(self, field: str) -> Node | None:
        is_negated = self._takes("word", "not")
        node: Node | None = None
        if self._takes("word", "contains"):
            parts = tuple(str(value) for value in self._list(("text",), is_single_allowed=True))
            if "" in parts:
                raise error_at(self._source, self._next.column, "an empty text is in every text: write has instead of contains ''")
            node = Contains(field, parts)
        elif self._takes("word", "matches"):
            node = Matches(field, str(self._literal(("text",))))
        elif self._takes("word", "in"):
            node = In(field, self._values())
        elif is_negated:
            raise self._expected("'contains', 'matches' or 'in' after a field and 'not'")
        return Not(node) if is_negated and node is not None else node

    def _comparison(self, left: Operand) -> Node:
        if self._next.kind != "sign" or self._next.text not in COMPARISONS:
            raise self._expected("a comparison (== != < <= > >=), 'contains', 'matches' or 'in'")
        sign = self._take().text
        node = Compare(left, sign, self._operand())
        if self._next.kind == "sign" and self._next.text in COMPARISONS:
            raise self._expected("'and', 'or' or the end (write 1 < price and price < 5)")
        if isinstance(left, Literal) and isinstance(node.right, Literal):
            column = self._tokens[self._at - 1].column
            raise error_at(self._source, column, "two fixed values are always so or never: put a field on one side")
        return node

    def _operand(self) -> Operand:
        if self._next.kind == "name":
            return Field(self._take().text)
        if self._next.kind == "word" and self._next.text in ("length", "words"):
            unit = self._take().text
            if not self._takes("sign", "("):
                raise self._expected(f"'(' as in {unit}(title)")
            field = self._field()
            self._close()
            return Size(unit, field)
        return Literal(self._literal(("number", "text"), "a field, a number or a text in quotes"))

    def _field(self) -> str:
        if self._next.kind != "name":
            raise self._expected("the name of a field (in back quotes where it is an unusual one)")
        return self._take().text

    def _close(self) -> None:
        if not self._takes("sign", ")"):
            raise self._expected("')'")

    def _values(self) -> tuple[float | str, ...]:
        values = self._list(("number", "text"), is_single_allowed=False)
        if len({type(value) for value in values}) > 1:
            raise error_at(self._source, self._next.column, "a list holds numbers or texts, not both: make two tests of it")
        return values

    def _list(self, kinds: tuple[str, ...], is_single_allowed: bool) -> tuple[float | str, ...]:
        if is_single_allowed and self._next.kind in kinds:
            return (self._literal(kinds),)
        if not self._takes("sign", "("):
            raise self._expected("a list such as ('a', 'b')")
        values = [self._literal(kinds)]
        while self._takes("sign", ","):
            values.append(self._literal(kinds))
        self._close()
        return tuple(values)

    def _literal(self, kinds: tuple[str, ...], what: str = "") -> float | str:
        is_negative = "number" in kinds and self._takes("sign", "-")
        if self._next.kind not in (("number",) if is_negative else kinds):
            names = {"number": "a number", "text": "a text in quotes"}
            raise self._expected("a number after '-'" if is_negative else what or " or ".join(names[kind] for kind in kinds))
        token = self._take()
        if token.kind == "text":
            return token.text
        value = float(token.text)
        if not math.isfinite(value):
            raise error_at(self._source, token.column, f"{token.text} is too large a number: stay below 1e308")
        return -value if is_negative else value
