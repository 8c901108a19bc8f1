"""CoNLL: a word a line, its tag in the last column.

Owns how spans become tags, BIO or BIOES. Called by `webapp.transfer.exporter`. A span that begins or ends inside a word parts the
word there, so that every span is told exactly; spans that overlap cannot be told, and such an item is refused.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from labelloop.errors import InvalidInputError
from webapp.db.export_rows import Entry
from webapp.kinds.values import Mark
from webapp.transfer.writers.base import Writer, about, has_nothing

BODY = "body"
_WORD = re.compile(r"\w+|[^\w\s]")


class ConllWriter(Writer):
    """Text with a word a line."""

    name = "conll"

    def add(self, entry: Entry) -> None:
        """Write one text."""
        text = entry.content
        if text is None:
            raise InvalidInputError("it is known by its link only, so its text is not here")
        marks = sorted(entry.value.marks if entry.value else (), key=lambda mark: mark.where)
        for one, other in itertools.pairwise(marks):
            if other.where[0] < one.where[1]:
                raise InvalidInputError(f"spans {one.label!r} and {other.label!r} overlap, which CoNLL cannot tell: use JSONL")
        heads = {"id": entry.item_id, "text": text, **{k: v for k, v in about(self.plan, entry).items() if v is not None}}
        if has_nothing(entry):
            heads["is_none"] = "1"
        lines = [f"# {key} = {_shown(value)}" for key, value in heads.items()]
        lines += [
            f"{text[start:end]}\t{tag}" for start, end, tag in _tagged(text, marks, self.plan.options.get("scheme") == "bioes")
        ]
        self.parts.append(BODY, ("\n".join(lines) + "\n\n").encode())

    def finish(self, out: Path) -> None:
        """Move the body to where it is asked for."""
        body = self.parts.path(BODY)
        out.unlink(missing_ok=True)
        out.hardlink_to(body)


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    is_bare = text.isprintable() and text == text.strip() and not text.startswith('"')
    return text if is_bare else msgspec.json.encode(text).decode()


def _tagged(text: str, marks: Sequence[Mark], is_bioes: bool) -> Iterator[tuple[int, int, str]]:
    """Yield words (start, end) with their tags."""
    at = 0
    for mark in marks:
        start, end = int(mark.where[0]), int(mark.where[1])
        yield from ((*word, "O") for word in _words(text, at, start))
        inside = list(_words(text, start, end)) or [(start, end)]
        if text[start:end].strip() == "":
            raise InvalidInputError("a span of nothing but spaces, which CoNLL cannot tell")
        for number, word in enumerate(inside):
            yield (*word, f"{_sign(number, len(inside), is_bioes)}-{mark.label}")
        at = end
    yield from ((*word, "O") for word in _words(text, at, len(text)))


def _words(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    return (found.span() for found in _WORD.finditer(text, start, end))


def _sign(number: int, count: int, is_bioes: bool) -> str:
    if is_bioes and count == 1:
        return "S"
    if number == 0:
        return "B"
    return "E" if is_bioes and number == count - 1 else "I"
