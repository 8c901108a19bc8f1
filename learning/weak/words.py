"""Words of a column, numbered once, and phrases found among them without looking at a text again.

Owns what a word is: a run of letters and digits, each Chinese or Japanese character and each other sign by itself; "U.S." is U . S
. and a phrase is the same row of words. Case is ignored unless asked for, and composed and decomposed accents are the same. Must
never know labels. Called by `columns` and `rules`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"  # scripts without spaces between words
_WORD = re.compile(rf"[{_ALONE}]|[^\W{_ALONE}]+|[^\w\s]")

Phrase = tuple[str, ...]


class WordIndex(NamedTuple):
    """`words` (t,) int32 numbers of `vocabulary`, text after text; `item` (t,) int32 the text each belongs to."""

    vocabulary: tuple[str, ...]
    words: NDArray[np.int32]
    item: NDArray[np.int32]
    n_items: int

    def counts(self) -> NDArray[np.int64]:
        """Return the number of words of each text, (n,)."""
        return np.bincount(self.item, minlength=self.n_items).astype(np.int64)


def split(text: str, is_case_sensitive: bool = False) -> Phrase:
    """Return the words of one text."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    words = _WORD.findall(text)
    return tuple(words) if is_case_sensitive else tuple(word.casefold() for word in words)


def index_words(texts: Sequence[str | None]) -> WordIndex:
    """Return the words of `texts`, None counting as empty; one pass."""
    number: dict[str, int] = {}
    words: list[int] = []
    ends = np.zeros(len(texts), dtype=np.int64)
    for place, text in enumerate(texts):
        if text:
            words += [number.setdefault(word, len(number)) for word in split(text, is_case_sensitive=True)]
        ends[place] = len(words)
    item = np.repeat(np.arange(len(texts), dtype=np.int32), np.diff(ends, prepend=0))
    return WordIndex(tuple(number), np.array(words, dtype=np.int32), item, len(texts))


def forms_of(index: WordIndex) -> tuple[str, ...]:
    """Return each word of the vocabulary without its case."""
    return tuple(word.casefold() for word in index.vocabulary)


def find_phrases(
    index: WordIndex, groups: Mapping[Phrase, int], n_groups: int, is_case_sensitive: bool = False
) -> NDArray[np.bool_]:
    """Return which groups each text holds a phrase of, (n, n_groups).

    groups: the group of each phrase; phrases are split as `split` does, with the same sense of case.
    """
    found = np.zeros((index.n_items, n_groups), dtype=np.bool_)
    forms = index.vocabulary if is_case_sensitive else forms_of(index)
    for length in sorted({len(phrase) for phrase in groups} - {0}):
        wanted = {phrase: group for phrase, group in groups.items() if len(phrase) == length}
        places, hits = _find(index, forms, wanted, length)
        found[index.item[places], hits] = True
    return found


def _find(
    index: WordIndex, forms: Sequence[str], wanted: Mapping[Phrase, int], length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (places where a phrase of this length begins, its groups)."""
    if length == 1:
        group_of_word = np.array([wanted.get((form,), -1) for form in forms], dtype=np.int64)
        hits = group_of_word[index.words] if len(forms) else np.empty(0, dtype=np.int64)
        places = np.flatnonzero(hits >= 0)
        return places, hits[places]
    places = _candidates(index, forms, wanted, length)
    rows = np.stack([index.words[places + step] for step in range(length)], axis=1) if len(places) else np.empty((0, length), int)
    hits = np.fromiter((wanted.get(tuple(forms[word] for word in row), -1) for row in rows.tolist()), np.int64, len(rows))
    return places[hits >= 0], hits[hits >= 0]


def _candidates(index: WordIndex, forms: Sequence[str], wanted: Iterable[Phrase], length: int) -> NDArray[np.int64]:
    """Return the places where each word of some phrase stands at its step: few, in any text that people wrote."""
    if len(index.words) < length:
        return np.empty(0, dtype=np.int64)
    last = len(index.words) - length + 1
    fits = index.item[:last] == index.item[length - 1 :]
    for step, allowed in enumerate(zip(*wanted, strict=True)):
        is_allowed = set(allowed)
        mask = np.fromiter((form in is_allowed for form in forms), dtype=np.bool_, count=len(forms))
        fits &= mask[index.words[step : step + last]]
    return np.flatnonzero(fits)
