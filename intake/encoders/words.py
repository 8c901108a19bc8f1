"""A text cut into words with their places, and hashes of what a word looks like.

Owns the cut. Must never change the text: places are code points of what it was given. Called by `intake.encoders.minilm_tokens`.

A word is a run of letters, digits and marks; a web address; one Chinese or Japanese character; or one other sign. So people's spans
nearly always begin and end at words. A mark or joiner belongs to the character before it. Shapes and affixes after L. Ratinov,
D. Roth, "Design Challenges and Misconceptions in Named Entity Recognition", CoNLL 2009.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

_MARKS = (
    "\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u064b-\u065f"  # of Latin, Cyrillic, Hebrew and Arabic letters
    "\u0900-\u0903\u093a-\u094f\u0981-\u0983\u09bc-\u09cd\u0e31-\u0e3a\u0e47-\u0e4e"  # vowels and tones of Indic and Thai ones
    "\u200c\u200d\ufe0e\ufe0f"  # joiners, and what makes a sign an emoji
)
_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"(?:https?://|www\.)[^\s]+|[{_ALONE}][{_MARKS}]*|(?:[^\W{_ALONE}][{_MARKS}]*)+|[^\s][{_MARKS}]*")
_DIGIT = re.compile(r"\d")
_ADDRESS = re.compile(r"https?://|www\.")


def find_words(text: str, most: int) -> list[tuple[int, int]]:
    """Return (start, end) of the first `most` words of `text` in code points, in order, never overlapping."""
    found: Iterator[re.Match[str]] = _WORD.finditer(text)
    return [match.span() for match, _ in zip(found, range(most), strict=False)]


def hashes_of(word: str, bits: int) -> tuple[int, ...]:
    """Return hashes below 2**bits of the word in lower case (digits as 0), its shape, first three, last three, last two letters.

    All web addresses are one word.
    """
    low = "<address>" if _ADDRESS.match(word) else _DIGIT.sub("0", word.lower())
    parts = (low, _shape(word), low[:3], low[-3:], low[-2:])
    return tuple(zlib.crc32(part.encode("utf-8", "surrogatepass"), n) & ((1 << bits) - 1) for n, part in enumerate(parts))


def _shape(word: str) -> str:
    """Return 'Xxx' for a capitalised word: X, x and 0 for capitals, other letters and digits, at most two of a kind in a row."""
    out = ""
    for char in word[:24]:
        kind = "X" if char.isupper() else "0" if char.isdigit() else "x" if char.isalpha() else char
        if not out.endswith(kind * 2):
            out += kind
    return out[:10]
