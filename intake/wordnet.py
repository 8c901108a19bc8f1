"""WordNet from its files (Debian's package wordnet-base) to the plain mappings that rules look words up in.

Owns the format of the files (wndb(5WN), morphy(7WN)). Must never be asked per item: reading takes about two seconds, so a process
reads once and keeps the answer. Called by the data and inference roles where rules name a knowledge base.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from labelloop.errors import IntegrityError, NotFoundError
from learning.weak.knowledge import Knowledge

FOLDER = Path("/usr/share/wordnet")
_PARTS = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
_BASE = {"n": 1, "v": 2, "a": 3, "s": 3, "r": 4}  # a concept is its part's number and its place in the file
_RELATIONS = {
    "@": "hypernym",
    "@i": "instance-hypernym",
    "~": "hyponym",
    "~i": "instance-hyponym",
    "#m": "member-of",
    "#s": "substance-of",
    "#p": "part-of",
    "%m": "has-member",
    "%s": "has-substance",
    "%p": "has-part",
    "!": "antonym",
    "&": "similar",
    "*": "entails",
    ">": "causes",
    "=": "attribute",
    "^": "also",
    "+": "derived",
    "$": "verb-group",
    "<": "participle",
    "\\": "pertains",
    ";c": "in-topic",
    "-c": "topic-of",
    ";r": "in-region",
    "-r": "region-of",
    ";u": "in-usage",
    "-u": "usage-of",
}
_ENDINGS = {
    "n": (
        ("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"),
        ("ies", "y"),
    ),
    "v": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    "a": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "r": (),
}  # fmt: skip


def read_wordnet(folder: Path = FOLDER) -> Knowledge:
    """Return WordNet as senses, relations and base forms; parts of speech are 'n', 'v', 'a' and 'r'.

    Raises NotFoundError where it is not installed and IntegrityError naming the line that is none of WordNet's.
    """
    relations: dict[str, dict[int, tuple[int, ...]]] = {name: {} for name in _RELATIONS.values()}
    senses: dict[str, dict[str, tuple[int, ...]]] = {}
    irregular: dict[str, dict[str, tuple[str, ...]]] = {}
    for part, name in _PARTS.items():
        senses[part] = dict(_senses(part, _lines(folder / f"index.{name}")))
        irregular[part] = dict(_exceptions(_lines(folder / f"{name}.exc")))
        for concept, pointers in _pointers(_lines(folder / f"data.{name}")):
            for relation, there in pointers:
                relations[relation][concept] = (*relations[relation].get(concept, ()), there)
    return Knowledge(senses=senses, relations=relations, irregular=irregular, endings=_ENDINGS)


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (where, fields) of each line; the licence at the top begins with blanks."""
    try:
        text = path.read_text(encoding="latin-1")
    except FileNotFoundError as exc:
        raise NotFoundError(f"{path} is missing: apt-get install wordnet-base, or name the folder it is in") from exc
    for number, line in enumerate(text.splitlines(), start=1):
        if line and not line.startswith(" "):
            yield f"{path}, line {number}", line.split(" | ", 1)[0].split()


def _senses(part: str, lines: Iterator[tuple[str, list[str]]]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for where, fields in lines:
        try:
            count = int(fields[2])
            yield fields[0].replace("_", " "), tuple(_concept(part, place) for place in fields[-count:])
        except (ValueError, IndexError) as exc:
            raise IntegrityError(f"{where} is no entry of WordNet's index: install wordnet-base again") from exc


def _pointers(lines: Iterator[tuple[str, list[str]]]) -> Iterator[tuple[int, list[tuple[str, int]]]]:
    for where, fields in lines:
        try:
            at = 4 + 2 * int(fields[3], 16)
            quads = (fields[at + 1 + 4 * number : at + 5 + 4 * number] for number in range(int(fields[at])))
            yield _concept(fields[2], fields[0]), [(_RELATIONS[sign], _concept(part, place)) for sign, place, part, _ in quads]
        except (ValueError, IndexError, KeyError) as exc:
            raise IntegrityError(f"{where} is no concept of WordNet's data: install wordnet-base again") from exc


def _exceptions(lines: Iterator[tuple[str, list[str]]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for _, fields in lines:
        yield fields[0].replace("_", " "), tuple(form.replace("_", " ") for form in fields[1:])


def _concept(part: str, place: str) -> int:
    return _BASE[part] * 10**8 + int(place)
