"""Label Studio's JSON: tasks with data, annotations (labels) and predictions (drafts).

Owns how each of its results becomes labels, marks, relations, a number or a text. Must never hold the document. Called by
`read_rows`.

Form: https://labelstud.io/guide/export.html#Label-Studio-JSON-format-of-annotated-tasks. Places in pictures are percent. Places in
texts are code points or UTF-16 units, as the version of its editor was; the `text` of a span says which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from labelloop.errors import InvalidInputError
from webapp.db.items import IMPORTED, NewDraft, NewItem
from webapp.kinds.catalogue import data_of
from webapp.kinds.values import Mark, Relation, Shape, Value
from webapp.transfer import places, rows, said
from webapp.transfer.pictures import Size, checked_size
from webapp.transfer.readers.base import Found, Read, Source, attempt
from webapp.transfer.readers.json_stream import open_text, read_elements

_LINK_KEYS = ("image", "audio", "url", "link", "img", "ocr")
_TEXT_KEYS = ("text", "content", "question", "message")
_OWN = ("id", "item_id", "name")


def read_label_studio(source: Source) -> Iterator[Read]:
    """Yield a task a row; the offset counts tasks, the line is where the task begins."""
    done = source.job.offset_bytes
    with open_text(Path(source.job.path)) as file:
        for key, index, line, task in read_elements(file):
            if key or index < 0:
                raise InvalidInputError("not Label Studio's JSON: it is a list of tasks")
            if index >= done:
                name = f"task {task.get('id', index + 1)}" if isinstance(task, dict) else f"task {index + 1}"
                yield attempt(line, name, index + 1, _item, source, task)


def _item(source: Source, task: Any) -> Found:
    if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
        raise InvalidInputError("no task: an object with 'data' is needed (Label Studio's JSON, not JSON-MIN)")
    item = _bare(source, task)
    size, value = _said(source, item, _newest(task))
    guesses = task.get("predictions") or []
    if not isinstance(guesses, list):
        raise InvalidInputError("'predictions' is no list of objects")
    told = [one for one in guesses if isinstance(one, dict)]
    draft = None
    if told:
        guess = _said(source, item, told[-1])
        size, draft = size or guess[0], _draft(told[-1], guess[1])
    return Found(said.with_said(source.project, item, value, draft), size)


def _bare(source: Source, task: dict[str, Any]) -> NewItem:
    data, project = task["data"], source.project
    item_id = data.get("item_id") or (f"task-{task['id']}" if task.get("id") is not None else None)
    kind, name = data_of(project.category), data.get("name") if isinstance(data.get("name"), str) else None
    if kind == "text" and (text := _first(data, _TEXT_KEYS)) is not None:
        return rows.text_item(text, item_id, name, None)
    if kind == "row":
        given = data["row"] if isinstance(data.get("row"), Mapping) else {k: v for k, v in data.items() if k not in _OWN}
        return rows.row_item(given, item_id, name, None)
    if kind == "pair":
        return rows.pair_item(data.get("pair", data), item_id, name, None)
    link = _first(data, _LINK_KEYS) or next((v for v in data.values() if isinstance(v, str) and "://" in v), None)
    base = str(source.job.options.get("base_link") or "")
    if isinstance(link, str) and link.startswith("/") and base:
        link = f"{base.rstrip('/')}{link}"
    if isinstance(link, str) and link.startswith("/"):
        raise InvalidInputError(f"link {link[:80]!r} is one inside Label Studio: give a base link, as http://label-studio:8080")
    return rows.link_item(link, item_id, name, None)


def _first(data: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((data[key] for key in keys if isinstance(data.get(key), str)), None)


def _newest(task: dict[str, Any]) -> dict[str, Any] | None:
    """Return the annotation that holds: the last one that was not cancelled."""
    given = task.get("annotations", task.get("completions")) or []
    if not isinstance(given, list) or any(not isinstance(one, dict) for one in given):
        raise InvalidInputError("'annotations' is no list of objects")
    return next((one for one in reversed(given) if not one.get("was_cancelled")), None)


def _draft(told: Mapping[str, Any], value: Value | None) -> NewDraft | None:
    if value is None:
        return None
    score, version = told.get("score"), told.get("model_version")
    sure = float(score) if isinstance(score, int | float) and 0 <= score <= 1 else 0.0
    return NewDraft(value, str(version)[:128] if version else IMPORTED, sure)


def _said(source: Source, item: NewItem, told: Mapping[str, Any] | None) -> tuple[Size | None, Value | None]:
    """Return the picture's size and the value in an annotation or prediction; (None, None) where there is none."""
    if told is None:
        return None, None
    results = told.get("result")
    if not isinstance(results, list) or any(not isinstance(one, dict) for one in results):
        raise InvalidInputError("'result' is no list of objects")
    made = _Made(source, item)
    for one in results:
        made.add(one)
    return made.size, made.value(is_none=not results and _says_none(source, told))


def _says_none(source: Source, told: Mapping[str, Any]) -> bool:
    return told.get("is_none") is True or bool(source.job.options.get("empty_is_none"))


class _Made:
    """A value, made result by result."""

    def __init__(self, source: Source, item: NewItem) -> None:
        self._kind = source.project.kind_rules
        self._text = item.content or ""
        self.size: Size | None = None
        self._labels: list[str] = []
        self._marks: list[Mark] = []
        self._relations: list[Relation] = []
        self._number: float | None = None
        self._written: str | None = None

    def add(self, one: Mapping[str, Any]) -> None:
        """Take one result. Raises InvalidInputError naming its type where this kind of project has no place for it."""
        value, told = one.get("value"), str(one.get("type", ""))
        if told == "relation":
            labels = one.get("labels") or [""]
            if not isinstance(labels, list):
                raise InvalidInputError(f"labels {str(labels)[:60]!r} of a relation: give a list")
            self._relations.append(Relation(str(labels[0]), str(one.get("from_id")), str(one.get("to_id"))))
            return
        if not isinstance(value, Mapping):
            raise InvalidInputError(f"result of type {told[:40]!r} without a value")
        if one.get("original_width") and one.get("original_height"):
            self.size = checked_size(one["original_width"], one["original_height"])
        readers: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], None]] = {
            "choices": self._choices,
            "taxonomy": self._choices,
            "number": self._rating,
            "rating": self._rating,
            "textarea": self._words,
            "pairwise": self._pairwise,
        }
        readers.get(told, self._mark)(one, value)

    def value(self, is_none: bool) -> Value | None:
        """Return the whole, None = nothing was said."""
        if is_none:
            return Value(is_none=True)
        marks, relations = tuple(self._marks), tuple(self._relations)
        if not (self._kind.is_single or self._kind.shape or self._kind.has_number or self._kind.has_text):
            return Value(tuple(self._labels))  # of several labels, none at all is an answer too
        made = Value(tuple(self._labels), marks, relations, self._number, self._written)
        return None if made == Value() else made

    def _choices(self, _one: Mapping[str, Any], value: Mapping[str, Any]) -> None:
        given = value.get("choices", value.get("taxonomy"))
        if not isinstance(given, list):
            raise InvalidInputError("choices are no list")
        self._labels += [str(choice[-1] if isinstance(choice, list) and choice else choice) for choice in given]

    def _rating(self, _one: Mapping[str, Any], value: Mapping[str, Any]) -> None:
        self._number = places.numbers([value.get("number", value.get("rating"))], "number")[0]

    def _words(self, _one: Mapping[str, Any], value: Mapping[str, Any]) -> None:
        given = value.get("text")
        self._written = "\n".join(map(str, given)) if isinstance(given, list) else str(given or "")

    def _pairwise(self, _one: Mapping[str, Any], value: Mapping[str, Any]) -> None:
        self._labels.append(str(value.get("selected")))

    def _mark(self, one: Mapping[str, Any], value: Mapping[str, Any]) -> None:
        told = str(one.get("type", ""))
        label = self._label(told, value)
        shape, where = self._place(told, value)
        name = str(one.get("id") or f"m{len(self._marks) + 1}")
        score = one.get("score")
        sure = float(score) if isinstance(score, int | float) and 0 <= score <= 1 else 1.0
        self._marks.append(Mark(name, label, self._kind.shape or shape, places.as_shape(self._kind.shape, where, shape), sure))

    def _label(self, told: str, value: Mapping[str, Any]) -> str:
        given = next((value[key] for key in (told, "labels", "choices") if isinstance(value.get(key), list) and value[key]), None)
        if given is None:
            raise InvalidInputError(f"a region of type {told[:40]!r} without a label")
        if len(given) > 1:
            raise InvalidInputError(f"a region with {len(given)} labels: give each a region of its own")
        return str(given[0])

    def _place(self, told: str, value: Mapping[str, Any]) -> tuple[Shape, tuple[float, ...]]:
        if value.get("rotation"):
            raise InvalidInputError("a rotated box: draw it as a polygon")
        if told.startswith("rectangle"):
            x, y, w, h = places.numbers([value.get(key) for key in ("x", "y", "width", "height")], "rectangle")
            return "box", places.box_of_corners(x, y, x + w, y + h, Size(100, 100))
        if told.startswith("polygon"):
            given = value.get("points")
            if not isinstance(given, list):
                raise InvalidInputError(f"points {str(given)[:60]!r}: give a list of [x, y]")
            points = [v for point in given for v in places.numbers(point, "points")]
            return "polygon", places.points_of_pixels(points, Size(100, 100))
        if told.startswith("keypoint"):
            return "point", places.points_of_pixels(places.numbers([value.get("x"), value.get("y")], "keypoint"), Size(100, 100))
        if "start" in value and "end" in value:
            return self._stretch(value)
        raise InvalidInputError(f"a region of type {told[:40]!r}: rectangles, polygons, keypoints, spans, segments are read")

    def _stretch(self, value: Mapping[str, Any]) -> tuple[Shape, tuple[float, ...]]:
        if self._kind.shape == "segment":
            return "segment", places.numbers([value["start"], value["end"]], "segment")
        offsets = value.get("globalOffsets") if isinstance(value.get("globalOffsets"), Mapping) else value
        start, end = places.numbers([offsets.get("start"), offsets.get("end")], "span")  # type: ignore[union-attr]
        text = value.get("text")
        if isinstance(text, str) and self._text[int(start) : int(end)] != text:
            in_units = self._text.encode("utf-16-le", "surrogatepass")
            if in_units[2 * int(start) : 2 * int(end)] == text.encode("utf-16-le", "surrogatepass"):
                start = len(in_units[: 2 * int(start)].decode("utf-16-le", "surrogatepass"))
                end = start + len(text)
            else:
                raise InvalidInputError(f"span {[int(start), int(end)]} is not {text[:40]!r} in this text: it is of another text")
        return "span", (float(start), float(end))
