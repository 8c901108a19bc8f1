"""A knowledge base as plain mappings: words, the concepts they stand for, and how concepts relate.

Owns how a term becomes the words that stand in a relation to it, and base forms of inflected words (G. A. Miller, "WordNet: A
Lexical Database for English", CACM 1995; its `morphy` rules). Must never read a file: `intake.wordnet` does. Called by
`application`.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from typing import Literal, NamedTuple

from labelloop.errors import InvalidInputError

_CONCEPT = re.compile(r"(?P<word>.+)\.(?P<part>[a-z]+)\.(?P<sense>[0-9]{1,4})")

Senses = Literal["first", "any"]


class Knowledge(NamedTuple):
    """`senses`: by part of speech, by word (lower case, blanks between words), the concepts it stands for, most usual first.

    `relations`: by name, the concepts that each concept leads to. `irregular`: by part of speech, base forms of inflected words.
    `endings`: by part of speech, (ending, what replaces it) for the regular ones.
    """

    senses: Mapping[str, Mapping[str, tuple[int, ...]]]
    relations: Mapping[str, Mapping[int, tuple[int, ...]]]
    irregular: Mapping[str, Mapping[str, tuple[str, ...]]]
    endings: Mapping[str, tuple[tuple[str, str], ...]]


def find_concept(base: Knowledge, term: str) -> int:
    """Return the concept of `term`: 'dog.n.01' by word, part of speech and number, or 'dog', the most usual sense there is.

    Raises InvalidInputError when the base has no such word or sense.
    """
    named = _CONCEPT.fullmatch(term)
    if named is not None:
        concepts = base.senses.get(named["part"], {}).get(_plain(named["word"]), ())
        if 1 <= int(named["sense"]) <= len(concepts):
            return concepts[int(named["sense"]) - 1]
        raise InvalidInputError(f"the knowledge base has no {term!r}: {_plain(named['word'])!r} has {len(concepts)} senses there")
    for words in base.senses.values():
        concepts = words.get(_plain(term), ())
        if concepts:
            return concepts[0]
    raise InvalidInputError(f"the knowledge base has no word {term!r}: use another one, or a sense such as 'dog.n.01'")


def follow(base: Knowledge, start: Iterable[int], relations: tuple[str, ...], max_steps: int) -> frozenset[int]:
    """Return the concepts reached from `start` in 1 to `max_steps` steps of `relations`, `start` itself only where a path returns.

    Raises InvalidInputError naming a relation that the base lacks.
    """
    for relation in relations:
        if relation not in base.relations:
            known = ", ".join(sorted(base.relations))
            raise InvalidInputError(f"the knowledge base has no relation {relation!r}: use one of {known}")
    reached: set[int] = set()
    border = set(start)
    for _ in range(max_steps):
        border = {there for here in border for name in relations for there in base.relations[name].get(here, ())} - reached
        if not border:
            break
        reached |= border
    return frozenset(reached)


def words_for(base: Knowledge, concepts: frozenset[int], senses: Senses) -> dict[str, frozenset[str]]:
    """Return the words that stand for one of `concepts`, by part of speech; 'first': in their most usual sense of that part."""
    last = 1 if senses == "first" else None
    return {
        part: frozenset(word for word, found in words.items() if not concepts.isdisjoint(found[:last]))
        for part, words in base.senses.items()
    }


def is_form_of(base: Knowledge, part: str, word: str, words: Container[str]) -> bool:
    """Return whether `word` may be a form of one of `words`, itself included: 'mice' of {'mouse'}.

    `words` are of the base and of this part of speech, so that a guess at the base form that is no word is not among them.
    """
    if word in words or any(form in words for form in base.irregular.get(part, {}).get(word, ())):
        return True
    endings = base.endings.get(part, ())
    return any(word.endswith(end) and len(word) > len(end) and word[: -len(end)] + new in words for end, new in endings)


def _plain(word: str) -> str:
    return word.replace("_", " ").casefold()
