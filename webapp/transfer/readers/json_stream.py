"""A large JSON document, element by element: the elements of a top-level array, or of each array of a top-level object.

Owns the rolling buffer: never more than a piece of the file and one element are in memory. Must never know what an element means.
Called by the readers of COCO and Label Studio.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from labelloop.errors import InvalidInputError

PIECE_CHARS = 2**20
MOST_ELEMENT_CHARS = 64 * 2**20
_SPACE = " \t\r\n"


class Element(NamedTuple):
    """One element: the key of its array ('' = the document is an array), its number from 0, the line where it begins.

    `number` -1: the value of a key that is no array.
    """

    key: str
    number: int
    line: int
    value: Any


def read_elements(file: IO[str]) -> Iterator[Element]:
    """Yield the elements of a text stream. Raises InvalidInputError with line and column where the JSON is broken."""
    yield from _Scanner(file).document()


def open_text(path: Path) -> IO[str]:
    """Open a file for `read_elements`; bytes that are no UTF-8 become surrogates, which the row's checks refuse."""
    return path.open(encoding="utf-8-sig", errors="surrogateescape")


class _Scanner:
    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._line = 1
        self._is_ended = False
        self._decode = json.JSONDecoder().raw_decode

    def document(self) -> Iterator[Element]:
        first = self._next_sign()
        if first == "[":
            yield from self._array("")
        elif first == "{":
            yield from self._object()
        else:
            raise self._broken("it begins neither with '[' nor with '{'")
        if self._next_sign():
            raise self._broken("something stands behind its end")

    def _object(self) -> Iterator[Element]:
        self._expect("{")
        while self._next_sign() != "}":
            line, key = self._line, self._value()
            if not isinstance(key, str):
                raise self._broken("a key is no text")
            self._expect(":")
            if self._next_sign() == "[":
                yield from self._array(key)
            else:
                yield Element(key, -1, line, self._value())
            if not self._comma("}"):
                break
        self._expect("}")

    def _array(self, key: str) -> Iterator[Element]:
        self._expect("[")
        number = 0
        while self._next_sign() != "]":
            line = self._line
            yield Element(key, number, line, self._value())
            number += 1
            if not self._comma("]"):
                break
        self._expect("]")

    def _comma(self, end: str) -> bool:
        if self._next_sign() != ",":
            return False
        self._expect(",")
        if self._next_sign() == end:
            raise self._broken(f"a comma before {end!r}")
        return True

    def _next_sign(self) -> str:
        """Return the next character that is no space, '' at the end."""
        while True:
            text, at = self._text, self._at
            while at < len(text) and text[at] in _SPACE:
                at += 1
            self._pass(at)
            if at < len(text):
                return text[at]
            if not self._fill():
                return ""

    def _expect(self, sign: str) -> None:
        if self._next_sign() != sign:
            raise self._broken(f"{sign!r} is missing")
        self._at += 1

    def _value(self) -> Any:
        self._next_sign()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except (ValueError, RecursionError) as exc:
                if isinstance(exc, RecursionError) or not self._fill():
                    raise self._broken(str(exc) if isinstance(exc, ValueError) else "nested too deep") from exc
                continue
            if end == len(self._text) and self._fill():
                continue  # a number may go on in the next piece
            self._pass(end)
            return value

    def _pass(self, end: int) -> None:
        self._line += self._text.count("\n", self._at, end)
        self._at = end

    def _fill(self) -> bool:
        """Read on; False = the file has ended. What was used up is let go."""
        if self._is_ended:
            return False
        rest = self._text[self._at :]
        if len(rest) > MOST_ELEMENT_CHARS:
            raise self._broken(f"one element has more than {MOST_ELEMENT_CHARS} characters")
        piece = self._file.read(max(PIECE_CHARS, len(rest)))
        self._is_ended = not piece
        self._text, self._at = rest + piece, 0
        return bool(piece)

    def _broken(self, reason: str) -> InvalidInputError:
        return InvalidInputError(f"the JSON is broken at line {self._line}: {reason}")
