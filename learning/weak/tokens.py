"""The token table of conditions, and how an error points into one.

Owns what a number, a name, a text and a sign look like. Must never know the grammar. Called by `grammar`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from labelloop.errors import InvalidInputError

WORDS = frozenset({"and", "or", "not", "in", "contains", "matches", "has", "length", "words"})
_HINTS = {"=": "==", "&&": "and", "||": "or", "!": "not", "&": "and", "|": "or", "<>": "!=", "=~": "matches", "=>": ">="}
_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
      | (?P<name>[^\W\d]\w*)
      | (?P<quoted>`[^`]+`)
      | (?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
      | (?P<sign>==|!=|<=|>=|&&|\|\||<>|=~|=>|[<>(),=!&|+-])""",
    re.VERBOSE,
)


class Token(NamedTuple):
    kind: str  # number, name, word (of the grammar), text, sign, end
    text: str
    column: int


def tokenise(source: str) -> list[Token]:
    """Return the tokens of a condition with an end mark. Raises InvalidInputError at a character that begins none."""
    tokens: list[Token] = []
    at = 0
    while at < len(source):
        found = _TOKEN.match(source, at)
        if found is None:
            raise _unreadable(source, at)
        if found.lastgroup != "space":
            tokens.append(_token(str(found.lastgroup), found.group(), at + 1, source))
        at = found.end()
    tokens.append(Token("end", "", len(source) + 1))
    return tokens


def _token(kind: str, text: str, column: int, source: str) -> Token:
    if kind == "quoted":
        return Token("name", text[1:-1], column)
    if kind == "text":
        return Token("text", text[1:-1].replace(text[0] * 2, text[0]), column)
    if kind == "name" and text in WORDS:
        return Token("word", text, column)
    if kind == "sign" and text in _HINTS:
        raise error_at(source, column, f"{text!r} is not of this language: write {_HINTS[text]!r}")
    return Token(kind, text, column)


def _unreadable(source: str, at: int) -> InvalidInputError:
    if source[at] in "'\"`":
        return error_at(source, at + 1, f"the quote {source[at]} is never closed: close it, and double a quote inside a text")
    return error_at(source, at + 1, f"{source[at]!r} begins nothing: put texts into quotes and odd field names into back quotes")


def error_at(source: str, column: int, problem: str) -> InvalidInputError:
    """Return the error that names a column, from 1, and what stands around it."""
    begin = max(0, column - 16)
    return InvalidInputError(f"condition, column {column} (near {source[begin : column + 15]!r}): {problem}")
