"""Label Studio's results and our values: one in terms of the other.

Owns the geometry (their percents of the picture, our shares of it) and the shape of a result. Pure. Called by
`webapp.labelstudio.service`. Format: https://labelstud.io/guide/export#Label-Studio-JSON-format-of-annotated-tasks
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labelloop.errors import InvalidInputError
from webapp.kinds.values import Mark, Value
from webapp.labelstudio.config import Control

_KEY = {
    "choices": "choices",
    "rectanglelabels": "rectanglelabels",
    "polygonlabels": "polygonlabels",
    "keypointlabels": "keypointlabels",
    "labels": "labels",
}


def result_of(control: Control, value: Value, text: str = "") -> list[dict[str, Any]]:
    """Return a value as the `result` of a prediction; `text` is the item's own, which a span's entry repeats."""
    head = {"from_name": control.from_name, "to_name": control.to_name, "type": control.type}
    if control.type == "choices":
        return [{**head, "value": {"choices": list(value.labels)}}] if value.labels else []
    return [{**head, "id": mark.id, "score": mark.confidence, "value": _their_mark(control, mark, text)} for mark in value.marks]


def _their_mark(control: Control, mark: Mark, text: str) -> dict[str, Any]:
    named = {_KEY[control.type]: [mark.label]}
    if mark.shape == "span":
        start, end = int(mark.where[0]), int(mark.where[1])
        return {"start": _units(text, start), "end": _units(text, end), "text": text[start:end], **named}
    percents = [100.0 * share for share in mark.where]
    if mark.shape == "box":
        x, y, width, height = percents
        return {"x": x, "y": y, "width": width, "height": height, "rotation": 0, **named}
    if mark.shape == "point":
        return {"x": percents[0], "y": percents[1], "width": 0.5, **named}
    return {"points": [list(pair) for pair in zip(percents[::2], percents[1::2], strict=True)], **named}


def _units(text: str, at: int) -> int:
    """Return a place counted in UTF-16 units, as a browser counts, of one counted in code points."""
    return len(text[:at].encode("utf-16-le")) // 2


def _points(text: str, units: int) -> int:
    """Return a place counted in code points of one counted in UTF-16 units."""
    return len(text.encode("utf-16-le")[: 2 * units].decode("utf-16-le", "ignore"))


def value_of(control: Control, result: Sequence[Mapping[str, Any]], text: str = "") -> Value:
    """Return what a result says by this control. Raises InvalidInputError naming an entry that is not as the format says."""
    own = [one for one in result if one.get("from_name") == control.from_name and one.get("type", control.type) == control.type]
    try:
        if control.type == "choices":
            return Value(labels=tuple(dict.fromkeys(str(label) for one in own for label in one["value"]["choices"])))
        marks = tuple(_our_mark(control, number, one, text) for number, one in enumerate(own, 1))
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as exc:
        raise InvalidInputError(f"a result of control {control.from_name!r} is not as its type says: {exc!r}") from exc
    return Value(labels=tuple(dict.fromkeys(mark.label for mark in marks)), marks=marks)


def _our_mark(control: Control, number: int, one: Mapping[str, Any], text: str) -> Mark:
    given = one["value"]
    name, label = str(one.get("id") or f"m{number}"), str(given[_KEY[control.type]][0])
    if control.type == "labels":
        start, end = (_points(text, int(given[side])) for side in ("start", "end"))
        return Mark(name, label, "span", (start, end))
    if control.type == "polygonlabels":
        return Mark(name, label, "polygon", tuple(_share(number) for pair in given["points"] for number in pair))
    if control.type == "keypointlabels":
        return Mark(name, label, "point", (_share(given["x"]), _share(given["y"])))
    if given.get("rotation"):
        raise InvalidInputError(f"box {name!r} is rotated by {given['rotation']}: boxes here stand upright; draw it without")
    x, y = _share(given["x"]), _share(given["y"])
    return Mark(name, label, "box", (x, y, min(_share(given["width"]), 1 - x), min(_share(given["height"]), 1 - y)))


def _share(percent: Any) -> float:
    return min(max(float(percent) / 100.0, 0.0), 1.0)
