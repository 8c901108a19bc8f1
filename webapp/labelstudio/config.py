"""Label Studio's labeling configuration: which control and which data field stand for a project of ours.

Owns the reading of that XML. Must never resolve an entity or fetch anything: a configuration comes from another machine. Called by
`webapp.labelstudio.service`. Format: https://labelstud.io/tags (Choices, RectangleLabels, PolygonLabels, KeyPointLabels, Labels).
"""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, ParseError

import msgspec
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from labelloop.errors import InvalidInputError

MOST_CHARS = 200_000
CONTROLS = {
    "multiclass": "Choices",
    "multilabel": "Choices",
    "boxes": "RectangleLabels",
    "polygons": "PolygonLabels",
    "keypoints": "KeyPointLabels",
    "spans": "Labels",
}
_OBJECTS = {
    "image-classification": "Image",
    "object-detection": "Image",
    "text-classification": "Text",
    "token-classification": "Text",
}
_FIELD = re.compile(r"\$([A-Za-z_][\w-]*)")


class Control(msgspec.Struct, frozen=True):
    """The one control that the project answers: its name, the object it marks, the task's data field, its labels."""

    from_name: str
    to_name: str
    type: str
    field: str
    labels: tuple[str, ...]


def find_control(config: str, category: str, kind: str) -> Control:
    """Return the control of a configuration that a project of this category and kind answers.

    Raises InvalidInputError naming what is missing, or why the text is no configuration.
    """
    if category not in _OBJECTS or kind not in CONTROLS:
        raise InvalidInputError(f"a project of {category} with {kind} has no counterpart in Label Studio that we answer")
    root = _parse(config)
    wanted, objects = CONTROLS[kind], _objects(root, _OBJECTS[category])
    found = [one for one in root.iter(wanted) if one.get("toName") in objects]
    if not found:
        raise InvalidInputError(
            f"the labeling configuration has no <{wanted}> for an <{_OBJECTS[category]}>: this project answers nothing else"
        )
    control = found[0]
    name, to_name = control.get("name", ""), control.get("toName", "")
    return Control(name, to_name, wanted.lower(), objects[to_name], _labels(control))


def check_labels(control: Control, labels: tuple[str, ...], slug: str) -> None:
    """Raise InvalidInputError unless both sides know the same labels, whatever their order."""
    only_there = [label for label in control.labels if label not in labels]
    only_here = [label for label in labels if label not in control.labels]
    if only_there or only_here:
        raise InvalidInputError(
            f"<{control.from_name}> and project {slug!r} have different labels: only in Label Studio {only_there[:10]!r}, "
            f"only in the project {only_here[:10]!r}; give both the same"
        )


def _parse(config: str) -> Element:
    if len(config) > MOST_CHARS:
        raise InvalidInputError(f"the labeling configuration has {len(config)} characters: at most {MOST_CHARS} are read")
    try:
        root: Element = fromstring(config, forbid_dtd=True)
    except DefusedXmlException as exc:
        raise InvalidInputError("the labeling configuration declares a document type: leave that out") from exc
    except (ParseError, ValueError, LookupError) as exc:
        raise InvalidInputError(f"the labeling configuration is no XML: {exc}") from exc
    return root


def _objects(root: Element, tag: str) -> dict[str, str]:
    """Return the data field of each object tag by its name."""
    found = {}
    for one in root.iter(tag):
        field = _FIELD.fullmatch(one.get("value", ""))
        if field is not None and one.get("name"):
            found[one.get("name", "")] = field[1]
    return found


def _labels(control: Element) -> tuple[str, ...]:
    tag = "Choice" if control.tag == "Choices" else "Label"
    return tuple(one.get("alias") or one.get("value") or "" for one in control.iter(tag))
