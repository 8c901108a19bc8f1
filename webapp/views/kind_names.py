"""Categories and kinds of projects in the reader's words, and what of them a form offers.

Owns the words; `webapp.kinds.catalogue` says what there is. Called by the pages.
"""

from __future__ import annotations

from typing import Any

from flask_babel import gettext as _

from webapp.kinds import catalogue


def category_names() -> dict[str, str]:
    """Return the categories by name with the words for people, those of whole items first."""
    names = {
        "image-classification": _("Images"),
        "text-classification": _("Texts"),
        "tables": _("Table rows"),
        "object-detection": _("Things in images"),
        "token-classification": _("Places in texts"),
        "regression": _("A number for each table row"),
        "writing": _("A text for each text"),
        "audio": _("Sounds"),
        "pairs": _("Pairs to compare"),
    }
    return {name: words for name, words in names.items() if name in catalogue.CATEGORIES}


def kind_names() -> dict[str, str]:
    """Return the kinds of labels by name with the words for people."""
    names = {
        "multiclass": _("Exactly one"),
        "multilabel": _("Any number"),
        "boxes": _("Boxes"),
        "polygons": _("Outlines"),
        "keypoints": _("Points"),
        "spans": _("Spans of text"),
        "relations": _("Spans and relations between them"),
        "segments": _("Stretches of time"),
        "number": _("A number"),
        "free-text": _("A written text"),
    }
    return {name: names.get(name, name) for name in catalogue.KINDS}


def kind_choices() -> list[dict[str, Any]]:
    """Return the kinds as a form shows them: name, words, the categories that have it, and how many labels it needs."""
    words = kind_names()
    return [
        {
            "name": kind.name,
            "text": words[kind.name],
            "categories": " ".join(name for name, (_data, kinds) in catalogue.CATEGORIES.items() if kind.name in kinds),
            "least_labels": kind.least_labels,
        }
        for kind in catalogue.KINDS.values()
    ]


def example_of(category: str, kind: str) -> dict[str, str]:
    """Return what the stage of a preview shows: the data of the category, and how a person says something of it."""
    stages = {
        "image": _("Here stands the picture."),
        "text": _("Here stands the text."),
        "row": _("Here stand the columns of the row and their values."),
        "audio": _("Here stands the sound, with its waves."),
        "pair": _("Here stand the two sides, one beside the other."),
    }
    ways = {
        "choices": _("A key or a click chooses; Enter accepts the draft."),
        "shapes": _("Drawn with the mouse or by number fields; a key chooses the label of the next one."),
        "spans": _("Marked with the mouse or the arrow keys; a key chooses the label of the next one."),
        "sound": _("Marked on the waves or by number fields; a key chooses the label of the next one."),
        "number": _("Written into a field; Enter saves."),
        "words": _("Written into a field; Ctrl+Enter saves."),
    }
    if category not in catalogue.CATEGORIES or kind not in catalogue.KINDS:
        return {"stage": "", "way": ""}
    return {"stage": stages[catalogue.data_of(category)], "way": ways[catalogue.kind_of(kind).editor]}
