"""Texts with spans out of the files in which real sets keep them: one word a line with its tag, or words as elements of XML.

Owns the parsing. Must never fetch. Called by `scripts.samples`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from xml.etree import ElementTree

from labelloop.messages import Region

_STRIPPED = " ,;"

ADDRESS_PARTS = {
    **dict.fromkeys(("AddressNumber", "AddressNumberPrefix", "AddressNumberSuffix"), "number"),
    **dict.fromkeys(("StreetName", "StreetNamePostType", "StreetNamePreType", "StreetNamePreModifier"), "street"),
    **dict.fromkeys(("StreetNamePreDirectional", "StreetNamePostDirectional", "StreetNamePostModifier"), "street"),
    **dict.fromkeys(("OccupancyType", "OccupancyIdentifier", "SubaddressType", "SubaddressIdentifier"), "unit"),
    **dict.fromkeys(("USPSBoxType", "USPSBoxID", "USPSBoxGroupType", "USPSBoxGroupID"), "box"),
    **dict.fromkeys(("BuildingName", "LandmarkName"), "building"),
    **dict.fromkeys(("ZipCode", "ZipPlus4"), "zip"),
    "Recipient": "recipient",
    "PlaceName": "city",
    "StateName": "state",
    "CountryName": "country",
}  # what DataMade calls a part, and what an annotator would


def read_tagged_lines(data: str) -> list[tuple[str, tuple[Region, ...]]]:
    """Return (text, spans) of each sentence in lines of 'word TAB tag', where a line without a word ends a sentence.

    Words are joined by one blank; tags are O, B-label and I-label, and an I that follows no word of its label begins a span.
    """
    found: list[tuple[str, tuple[Region, ...]]] = []
    words: list[tuple[str, str]] = []
    for line in [*data.splitlines(), ""]:
        word, _, tag = line.partition("\t")
        if word.strip():
            words.append((word, tag.strip()))
        elif words:
            found.append(_joined(words))
            words = []
    return found


def _joined(words: Iterable[tuple[str, str]]) -> tuple[str, tuple[Region, ...]]:
    spans: list[Region] = []
    text, before = "", "O"
    for word, tag in words:
        text += " " if text else ""
        start, label = len(text), tag[2:]
        text += word
        if tag.startswith("I-") and before == label:
            spans[-1] = Region(label, (spans[-1].where[0], len(text)))
        elif tag != "O":
            spans.append(Region(label, (start, len(text))))
        before = label
    return text, tuple(spans)


def read_marked_words(data: str, label_of: Mapping[str, str]) -> list[tuple[str, tuple[Region, ...]]]:
    """Return (text, spans) of each child of an XML collection whose own children are words named by their part.

    `label_of` gives the label of an element's name; words of other names are no part. Neighbours of one label are one span; commas
    and semicolons at its end belong to the text alone.
    """
    return [_marked(one, label_of) for one in ElementTree.fromstring(data)]


def _marked(one: ElementTree.Element, label_of: Mapping[str, str]) -> tuple[str, tuple[Region, ...]]:
    spans: list[Region] = []
    text, before = (one.text or "").lstrip(), ""
    for word in one:
        start, label = len(text), label_of.get(word.tag, "")
        text += word.text or ""
        end = len(text.rstrip(_STRIPPED))
        if label and end > start:
            if label == before:
                spans[-1] = Region(label, (spans[-1].where[0], end))
            else:
                spans.append(Region(label, (start, end)))
        before = label
        text += word.tail or ""
    return text.rstrip(), tuple(spans)
