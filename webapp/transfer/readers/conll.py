"""CoNLL: a word a line with its tag in the last column, sentences parted by empty lines, spans as BIO or BIOES.

Owns how tags become spans. Must never hold the file. Called by `read_rows`.

Tjong Kim Sang and De Meulder, "Introduction to the CoNLL-2003 Shared Task", 2003 (BIO); Ratinov and Roth, "Design Challenges and
Misconceptions in Named Entity Recognition", CoNLL 2009 (BIOES, there BILOU). Lines `# id = ...` and `# text = ...` before a
sentence say its id and its text as it was; without them words are joined by a space.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from labelloop.errors import InvalidInputError
from webapp.kinds.values import Mark, Value
from webapp.transfer import rows, said
from webapp.transfer.readers.base import Found, Lines, Read, Source, attempt

MOST_LINES = 50_000
_BEGIN, _INSIDE, _END, _ALONE = "B", "IM", "EL", "SUW"


class Word(NamedTuple):
    """A word and its tag, with the line it stands in."""

    line: int
    text: str
    tag: str


def read_conll(source: Source) -> Iterator[Read]:
    """Yield a sentence a row; the line is that of its first word."""
    job = source.job
    with Path(job.path).open("rb") as file:
        lines = Lines(file, job.offset_bytes)
        block: list[tuple[int, str]] = []
        line = job.line
        for line, text in enumerate(lines, job.line + 1):
            if text.strip():
                block.append((line, text.rstrip("\r\n")))
            elif block:
                yield _read(source, block, lines.offset, line)
                block = []
        if block:
            yield _read(source, block, lines.offset, line)


def _read(source: Source, block: list[tuple[int, str]], offset: int, last: int) -> Read:
    read = attempt(block[0][0], block[0][1][:80], offset, _item, source, block)
    return read._replace(line=last)  # the next sentence counts on from here


def _item(source: Source, block: list[tuple[int, str]]) -> Found:
    heads = dict(_head(text) for _, text in block if text.startswith("# ") and "=" in text)
    words = [_word(line, text) for line, text in block if not (text.startswith("# ") and "=" in text)]
    words = [word for word in words if word.text != "-DOCSTART-"]
    if not words:
        raise InvalidInputError("no words: nothing is in this block")
    if len(block) > MOST_LINES:
        raise InvalidInputError(f"{len(block)} lines in one sentence: at most {MOST_LINES} are taken")
    text, spots = _placed(words, heads.get("text"))
    item = rows.text_item(text, heads.get("id"), None, None)
    marks = _spans(words, spots)
    if marks:
        value: Value | None = Value(marks=tuple(marks))
    else:
        value = Value(is_none=True) if heads.get("is_none") == "1" or source.job.options.get("empty_is_none") else None
    return Found(said.with_said(source.project, item, value))


def _head(text: str) -> tuple[str, str]:
    key, _, value = text[2:].partition("=")
    value = value.strip()
    if value.startswith('"'):
        try:
            value = msgspec.json.decode(value, type=str)
        except (msgspec.DecodeError, UnicodeEncodeError) as exc:
            raise InvalidInputError(f"'# {key.strip()}' is not the JSON of a text: {exc}") from exc
    return key.strip(), value


def _word(line: int, text: str) -> Word:
    cells = text.split("\t") if "\t" in text else text.split()
    if len(cells) < 2:
        raise InvalidInputError(f"line {line}: one column: a word and its tag are needed")
    tag = cells[-1].strip()
    if tag != "O" and tag != "-X-" and (len(tag) < 3 or tag[1] not in "-_" or tag[0] not in _BEGIN + _INSIDE + _END + _ALONE):
        raise InvalidInputError(f"line {line}: tag {tag[:40]!r}: use O, or B-, I-, E-, S- and a label")
    return Word(line, cells[0], tag)


def _placed(words: list[Word], text: str | None) -> tuple[str, list[tuple[int, int]]]:
    """Return the text and where each word is in it, (start, end). Raises InvalidInputError for a word that the text lacks."""
    if text is None:
        text = " ".join(word.text for word in words)
    spots, at = [], 0
    for word in words:
        start = text.find(word.text, at)
        if start < 0:
            raise InvalidInputError(f"line {word.line}: word {word.text[:40]!r} is not in '# text' behind the word before it")
        at = start + len(word.text)
        spots.append((start, at))
    return text, spots


def _spans(words: list[Word], spots: list[tuple[int, int]]) -> list[Mark]:
    """Return the spans that the tags tell. Raises InvalidInputError for a tag that goes on with what did not begin."""
    found: list[tuple[str, int, int]] = []
    is_open = False
    is_bio = not any(word.tag[0] == "I" and (at == 0 or words[at - 1].tag == "O") for at, word in enumerate(words))
    for word, (start, end) in zip(words, spots, strict=True):
        sign, label = word.tag[0], word.tag[2:]
        if word.tag in ("O", "-X-"):
            is_open = False
        elif sign in _BEGIN + _ALONE:
            found.append((label, start, end))
            is_open = sign in _BEGIN
        elif is_open and found[-1][0] == label:
            found[-1] = (label, found[-1][1], end)
            is_open = sign in _INSIDE
        elif is_bio or sign in _END:
            raise InvalidInputError(f"line {word.line}: tag {word.tag[:40]!r} goes on with what did not begin: begin it with B-")
        else:  # IOB1, as CoNLL-2003 was first given: I- begins, B- only parts two neighbours
            found.append((label, start, end))
            is_open = True
    return [Mark(f"m{at}", label, "span", (float(start), float(end))) for at, (label, start, end) in enumerate(found, 1)]
