"""Kinds of projects: what data each category holds, which kinds of labels it may have, and what the cluster learns of them.

Must never call anything. Called by whoever must know what a project's value looks like: projects, labelling, transfer, the pilot,
the pages and their editors. A kind that the cluster learns has drafts from models; all kinds take drafts with an import.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from labelloop.errors import InvalidInputError
from webapp.kinds.values import Shape

Data = Literal["image", "text", "row", "audio", "pair"]


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of project. `editor` is the browser module that shows and changes its value (webapp/frontend/editors).

    `shape` of its marks; None = it has none. `least_labels` that a project of this kind needs. `is_learned`: the cluster trains
    on it.
    """

    name: str
    editor: str
    least_labels: int = 1
    shape: Shape | None = None
    has_relations: bool = False
    has_number: bool = False
    has_text: bool = False
    is_single: bool = False
    is_learned: bool = False


KINDS = {
    kind.name: kind
    for kind in (
        Kind(name="multiclass", editor="choices", least_labels=2, is_single=True, is_learned=True),
        Kind(name="multilabel", editor="choices", least_labels=2, is_learned=True),
        Kind(name="boxes", editor="shapes", shape="box", is_learned=True),
        Kind(name="polygons", editor="shapes", shape="polygon", is_learned=True),
        Kind(name="keypoints", editor="shapes", shape="point", is_learned=True),
        Kind(name="spans", editor="spans", shape="span", is_learned=True),
        Kind(name="relations", editor="spans", shape="span", has_relations=True, is_learned=True),
        Kind(name="segments", editor="sound", shape="segment"),
        Kind(name="number", editor="number", least_labels=0, has_number=True),
        Kind(name="free-text", editor="words", least_labels=0, has_text=True),
    )
}
CATEGORIES: dict[str, tuple[Data, tuple[str, ...]]] = {
    "image-classification": ("image", ("multiclass", "multilabel")),
    "object-detection": ("image", ("boxes", "polygons", "keypoints")),
    "text-classification": ("text", ("multiclass", "multilabel")),
    "token-classification": ("text", ("spans", "relations")),
    "tables": ("row", ("multiclass", "multilabel")),
    "regression": ("row", ("number",)),
    "writing": ("text", ("free-text",)),
    "audio": ("audio", ("multiclass", "multilabel", "segments")),
    "pairs": ("pair", ("multiclass",)),
}
NOT_LEARNED = frozenset({"regression", "writing", "audio", "pairs"})  # categories that the cluster has no task for


def kind_of(name: str) -> Kind:
    """Return a kind by its name. Raises InvalidInputError."""
    if name not in KINDS:
        raise InvalidInputError(f"kind {name!r}: use one of {', '.join(KINDS)}")
    return KINDS[name]


def data_of(category: str) -> Data:
    """Return what an item of a category is. Raises InvalidInputError."""
    if category not in CATEGORIES:
        raise InvalidInputError(f"category {category!r}: use one of {', '.join(CATEGORIES)}")
    return CATEGORIES[category][0]


def kinds_of(category: str) -> tuple[str, ...]:
    """Return the kinds that a category may have, the usual one first. Raises InvalidInputError."""
    data_of(category)
    return CATEGORIES[category][1]


def is_learned(category: str, kind: str) -> bool:
    """Return whether the cluster trains on a project: its labels go out, its drafts come from models."""
    return category not in NOT_LEARNED and kind_of(kind).is_learned


def check_pair(category: str, kind: str) -> None:
    """Raise InvalidInputError naming the category or kind at fault."""
    data_of(category)
    kind_of(kind)
    allowed = CATEGORIES[category][1]
    if kind not in allowed:
        raise InvalidInputError(f"kind {kind!r} of category {category!r}: use one of {', '.join(allowed)}")
