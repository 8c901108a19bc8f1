"""What a row says of its item: the label that it has already, and the draft that another model made of it.

Owns the names of these fields in JSON lines and cells, for every kind of project. Must never know what the item itself looks like:
`rows` does. Called by `rows` and by the readers of the formats.

A line says a value in its fields (`labels` or `label`, `marks`, `relations`, `number`, `is_none`), or in one object `value`, which
an export writes; a text that was written about a text is in `value` or `label`, since `text` is the item itself. A `draft` is
{labels | marks | number | text | is_none, confidence?, version?}, or a list of labels with `draft_version` and `draft_value` as
in an export.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from labelloop.errors import InvalidInputError
from webapp.db.items import IMPORTED, NewDraft, NewItem
from webapp.db.projects import Project
from webapp.kinds import checks
from webapp.kinds.catalogue import Kind, data_of
from webapp.kinds.limits import check_within
from webapp.kinds.values import Value

MOST_VERSION_CHARS = 128
_YES, _NO = ("1", "true", "yes", "x"), ("", "0", "false", "no")
_LABEL_KEYS = ("labels", "label")


def is_plain(project: Project) -> bool:
    """Return whether labels are all that is said in a project of this kind (or none of them)."""
    kind = project.kind_rules
    return not (kind.shape or kind.has_number or kind.has_text)


def as_known(item: NewItem) -> NewItem:
    """Return an item as one of known answer. Raises InvalidInputError where it has no label."""
    if item.labels is None:
        raise InvalidInputError(
            "is_gold without a label: an item of known answer brings its answer; give the label, or leave is_gold out"
        )
    return msgspec.structs.replace(item, is_gold=True)


def is_known(cell: str) -> bool:
    """Return whether a cell says that the row's answer is known. Raises InvalidInputError."""
    said = cell.strip().lower()
    if said in _YES or said in _NO:
        return said in _YES
    raise InvalidInputError(f"is_gold {cell[:40]!r}: write 1 for a known answer, 0 or nothing for any other item")


def gold_field(cell: Any) -> dict[str, bool]:
    """Return a cell that says whether a row's answer is known as the field of an object. Raises InvalidInputError."""
    return {"is_gold": True} if is_known("" if cell is None else str(cell)) else {}


def is_more(project: Project, row: Mapping[str, Any]) -> bool:
    """Return whether a JSON line says more than plain labels."""
    return not is_plain(project) or any(_is_ours(row, name) for name in ("draft", "value", "is_none"))


def fields_in(project: Project, row: Mapping[str, Any]) -> frozenset[str]:
    """Return which fields of a JSON line speak of the label or the draft, so that no column of a table is taken for one."""
    kind = project.kind_rules
    names = {name for name in ("draft", "value", "is_none") if _is_ours(row, name)}
    names |= {name for name in ("draft_version", "draft_value") if "draft" in names}
    names |= {"marks"} if kind.shape else set()
    names |= {"relations"} if kind.has_relations else set()
    names |= {"number"} if kind.has_number else set()
    return frozenset((*names, *_LABEL_KEYS))


def _is_ours(row: Mapping[str, Any], name: str) -> bool:
    given = row.get(name)
    return isinstance(given, bool) if name == "is_none" else isinstance(given, Mapping | list)


def value_in(project: Project, row: Mapping[str, Any]) -> Value | None:
    """Return what a JSON line says of its item, None = nothing: it is not labelled. Raises InvalidInputError."""
    own = fields_in(project, row) - {"draft", "draft_version", "draft_value", "value", *_LABEL_KEYS}
    given = {name: row[name] for name in own if row.get(name) is not None}
    if isinstance(row.get("value"), Mapping):
        given |= row["value"]
    label = next((row[key] for key in _LABEL_KEYS if row.get(key) not in (None, "")), None)
    if label is not None:
        given |= _of_label(project, label, given)
    is_said = given or isinstance(row.get("value"), Mapping)
    if not is_said or (list(given) == ["is_none"] and not given["is_none"]):
        return None
    return checks.read_value(project.kind_rules, given)


def _of_label(project: Project, label: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    kind = project.kind_rules
    if kind.has_number or kind.has_text:
        name = "number" if kind.has_number else "text"
        return {} if label == [] else {name: given.get(name, label)}
    if label == [] and (kind.is_single or kind.shape):
        return {}
    return {"labels": label if isinstance(label, list) else [str(label)]}


def value_in_cell(project: Project, cell: str, separator: str = "|", has_json: bool = False) -> Value | None:
    """Return the value in a cell: a number, a text, labels, or the JSON of a value (`has_json`: always that). '' = not labelled.

    Raises InvalidInputError.
    """
    kind = project.kind_rules
    if not cell.strip():
        return None
    if has_json:
        return _of_json(kind, cell)
    if kind.has_text:
        return Value(text=cell)
    if kind.has_number:
        try:
            return Value(number=float(cell))
        except ValueError as exc:
            raise InvalidInputError(f"number {cell[:40]!r}: give a finite number, with a dot") from exc
    if kind.shape is None and not cell.lstrip().startswith("{"):
        return Value(tuple(part.strip() for part in cell.split(separator)) if project.is_multilabel else (cell.strip(),))
    return _of_json(kind, cell)


def _of_json(kind: Kind, cell: str) -> Value:
    try:
        return checks.read_value(kind, msgspec.json.decode(cell, type=dict[str, Any]))
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as exc:
        raise InvalidInputError(f"{cell[:40]!r} is not the JSON of a value: {exc}") from exc


def draft_in(project: Project, row: Mapping[str, Any]) -> NewDraft | None:
    """Return the draft that a JSON line brings, None = none. Raises InvalidInputError."""
    given = row.get("draft")
    if isinstance(given, list):
        more = row.get("draft_value")
        given = {"labels": given, "version": row.get("draft_version"), **(more if isinstance(more, Mapping) else {})}
    if not isinstance(given, Mapping):
        return None
    return read_draft(project, given)


def read_draft(project: Project, given: Mapping[str, Any]) -> NewDraft:
    """Return the draft in an object {labels | marks | number | text | is_none, confidence?, version?}.

    Without a confidence it is that of its least sure mark, or 0: nobody said how sure it is. Raises InvalidInputError.
    """
    version, confidence = given.get("version") or IMPORTED, given.get("confidence")
    if not isinstance(version, str) or len(version) > MOST_VERSION_CHARS or not version.isprintable():
        raise InvalidInputError(f"draft: version {str(version)[:80]!r}: use a name of at most {MOST_VERSION_CHARS} characters")
    if confidence is None:
        marks = given.get("marks") if isinstance(given.get("marks"), list) else []
        said = [mark.get("confidence") for mark in marks or () if isinstance(mark, Mapping)]
        sure = [one for one in said if isinstance(one, int | float) and 0 <= one <= 1]
        confidence = min(sure) if sure and len(sure) == len(said) else 0.0
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 <= confidence <= 1:
        raise InvalidInputError(f"draft: confidence {str(confidence)[:40]!r}: give a number from 0 to 1")
    given = given if "labels" in given or "label" not in given else {**given, "labels": [given["label"]]}
    return NewDraft(checks.read_value(project.kind_rules, given), version, float(confidence))


def with_said(project: Project, item: NewItem, value: Value | None, draft: NewDraft | None = None) -> NewItem:
    """Return an item with its label and its draft, both checked. Raises InvalidInputError naming the value at fault."""
    if value is not None:
        value = _checked(project, item, value)
        item = msgspec.structs.replace(item, labels=value.labels, value=None if value.is_plain else value)
    if draft is not None:
        item = msgspec.structs.replace(item, draft=checked_draft(project, item, draft))
    return item


def checked_draft(project: Project, item: NewItem, draft: NewDraft) -> NewDraft:
    """Return a draft of an item in the form in which it is kept. Raises InvalidInputError naming the value at fault."""
    try:
        return msgspec.structs.replace(draft, value=_checked(project, item, draft.value, is_draft=True))
    except InvalidInputError as exc:
        raise InvalidInputError(f"draft: {exc}") from exc


def _checked(project: Project, item: NewItem, value: Value, is_draft: bool = False) -> Value:
    length = float(len(item.content)) if data_of(project.category) == "text" and item.content is not None else None
    kept = checks.check_value(project.kind_rules, project.labels, value, name=project.slug, length=length, is_draft=is_draft)
    return check_within(project.limits_now, kept)
