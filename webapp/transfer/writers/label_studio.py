"""Label Studio's JSON: a list of tasks, for every kind of project that it has.

Owns how a value becomes its results. Called by `webapp.transfer.exporter`. Places in pictures are percent, places in texts code
points with the text of the span beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from labelloop.errors import LabelloopError
from webapp.db.export_rows import Entry
from webapp.kinds.catalogue import data_of
from webapp.kinds.values import Mark, Value
from webapp.transfer.writers.base import Writer, about, has_nothing, size_of
from webapp.transfer.writers.lines import content_fields
from webapp.transfer.writers.parts import copy_into

TASKS = "tasks"
_encode = msgspec.json.Encoder().encode
_TYPES = {"box": "rectanglelabels", "polygon": "polygonlabels", "point": "keypointlabels", "span": "labels", "segment": "labels"}


class LabelStudioWriter(Writer):
    """One JSON."""

    name = "label-studio"

    def add(self, entry: Entry) -> None:
        """Write a task."""
        told = about(self.plan, entry)
        draft = told.pop("draft", None)
        task: dict[str, Any] = {"id": entry.position + 1, "data": self._data(entry), "annotations": [], "predictions": []}
        if told:
            task["meta"] = told
        if entry.value is not None:
            one: dict[str, Any] = {
                "id": entry.position + 1,
                "was_cancelled": False,
                "result": list(self._results(entry, entry.value)),
            }
            if "labelled_at" in told:
                one |= {"created_at": told["labelled_at"], "lead_time": told["seconds"]}
            if "annotator" in told:
                one["completed_by"] = {"email": told["annotator"]}
            if entry.value.is_none or (self.kind.shape and has_nothing(entry)):
                one["is_none"] = True
            task["annotations"].append(one)
        if draft is not None and entry.draft is not None:
            guess = {"model_version": entry.draft_version, "score": entry.draft_confidence}
            task["predictions"].append({**guess, "result": list(self._results(entry, entry.draft))})
        self.parts.append(TASKS, (b",\n" if self.parts.length(TASKS) else b"") + _encode(task))

    def _data(self, entry: Entry) -> dict[str, Any]:
        told = content_fields(self.plan, entry)
        if "link" in told:
            told = {self._to(): told["link"]}
        return {**told, "item_id": entry.item_id, **({"name": entry.name} if entry.name is not None else {})}

    def _to(self) -> str:
        return data_of(self.plan.project.category)

    def _results(self, entry: Entry, value: Value) -> Iterator[dict[str, Any]]:
        base: dict[str, Any] = {"from_name": "label", "to_name": self._to()}
        if value.number is not None:
            yield {**base, "id": "number", "type": "number", "value": {"number": value.number}}
        if value.text is not None:
            yield {**base, "id": "text", "type": "textarea", "value": {"text": [value.text]}}
        if self.kind.shape is None and value.labels:
            yield {**base, "id": "choices", "type": "choices", "value": {"choices": list(value.labels)}}
        shown = self._size(entry) if value.marks else {}
        for mark in value.marks:
            result = {**base, **shown, "id": mark.id, "type": _TYPES[mark.shape], "value": _region(mark, entry.content or "")}
            yield {**result, "score": mark.confidence} if mark.confidence < 1 else result
        for one in value.relations:
            ends = {"from_id": one.source, "to_id": one.target}
            yield {"type": "relation", "direction": "right", "labels": [one.label], **ends}

    def _size(self, entry: Entry) -> dict[str, Any]:
        """Return the picture's size where it is known: percents need none."""
        if self._to() != "image":
            return {}
        try:
            size = size_of(self.plan, entry)
        except LabelloopError:
            return {}
        return {"original_width": size.width, "original_height": size.height, "image_rotation": 0}

    def finish(self, out: Path) -> None:
        """Close the list."""
        with out.open("wb") as file:
            file.write(b"[\n")
            copy_into(file, self.parts.path(TASKS))
            file.write(b"\n]\n")


def _region(mark: Mark, text: str) -> dict[str, Any]:
    kind = _TYPES[mark.shape]
    if mark.shape == "box":
        names = ("x", "y", "width", "height")
        return {**{n: round(v * 100, 6) for n, v in zip(names, mark.where, strict=True)}, "rotation": 0, kind: [mark.label]}
    if mark.shape == "polygon":
        percent = [round(v * 100, 6) for v in mark.where]
        return {"points": [list(p) for p in zip(percent[::2], percent[1::2], strict=True)], "closed": True, kind: [mark.label]}
    if mark.shape == "point":
        x, y = (round(v * 100, 6) for v in mark.where)
        return {"x": x, "y": y, "width": 0.5, kind: [mark.label]}
    start, end = mark.where
    if mark.shape == "span":
        return {"start": int(start), "end": int(end), "text": text[int(start) : int(end)], kind: [mark.label]}
    return {"start": start, "end": end, "channel": 0, kind: [mark.label]}
