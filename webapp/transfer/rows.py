"""One row of an upload → one new item, or the reason why not.

Owns what a row may look like for each category, and the ids of rows that bring none (a hash of their content, so that importing the
same file twice adds nothing). Must never touch a file or the database. Called by the readers and the items endpoint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from labelloop.errors import InvalidInputError
from labelloop.ids import parse_item
from webapp.db.items import NewItem
from webapp.db.projects import Project
from webapp.labelling.answers import check_labels

MOST_TEXT_CHARS = 200_000
MOST_NAME_CHARS = 1000
MOST_LINK_CHARS = 4 * 2**20
_SCHEMES = ("http://", "https://", "file://", "data:")
_LABEL_KEYS = ("labels", "label")


def item_from_object(project: Project, row: Mapping[str, Any]) -> NewItem:
    """Return the item in a JSON object {id?, link | text | row, label(s)?, name?}. Raises InvalidInputError."""
    labels = labels_of(project, next((row[key] for key in _LABEL_KEYS if row.get(key) is not None), None))
    item_id, name = row.get("id"), _name(row.get("name"))
    if row.get("link") is not None:
        return link_item(row["link"], item_id, name, labels)
    if project.category == "tables":
        own = ("id", "name", *_LABEL_KEYS)
        values = row["row"] if "row" in row else {key: value for key, value in row.items() if key not in own}
        return row_item(values, item_id, name, labels)
    if project.category == "text-classification":
        if "text" not in row:
            raise InvalidInputError("no 'text' and no 'link': give one of them")
        return text_item(row["text"], item_id, name, labels)
    raise InvalidInputError("no 'link': an image is given by its link, or uploaded as a file")


def text_item(text: Any, item_id: Any, name: str | None, labels: tuple[str, ...] | None) -> NewItem:
    """Return a text as an item. Raises InvalidInputError for an empty, too long or unstorable one."""
    if not isinstance(text, str) or not text.strip():
        raise InvalidInputError("the text is empty")
    if len(text) > MOST_TEXT_CHARS:
        raise InvalidInputError(f"the text has {len(text)} characters: at most {MOST_TEXT_CHARS} are taken")
    _check_characters(text)
    return NewItem(_id(item_id, "t", text), content=text, name=name, labels=labels)


def row_item(row: Any, item_id: Any, name: str | None, labels: tuple[str, ...] | None) -> NewItem:
    """Return a table row (column → number, text, true/false or null) as an item. Raises InvalidInputError."""
    if not isinstance(row, Mapping) or not row:
        raise InvalidInputError("the row is empty: give an object of columns")
    for key, value in row.items():
        if not isinstance(value, str | int | float | bool | None):
            raise InvalidInputError(f"column {key!r} holds {type(value).__name__}: use a number, a text, true, false or null")
    content = json.dumps(row, ensure_ascii=False, separators=(",", ":")) if "\\" in str(row) else msgspec.json.encode(row).decode()
    _check_characters(content)
    return NewItem(_id(item_id, "r", content), content=content, name=name, labels=labels)


def link_item(link: Any, item_id: Any, name: str | None, labels: tuple[str, ...] | None) -> NewItem:
    """Return a link as an item; whether it may be fetched is decided where it is fetched. Raises InvalidInputError."""
    if not isinstance(link, str) or not link.startswith(_SCHEMES):
        raise InvalidInputError(f"link {str(link)[:80]!r}: use http://, https://, file:// below an allowed folder, or data:")
    if len(link) > MOST_LINK_CHARS or any(c.isspace() for c in link):
        raise InvalidInputError(f"link {link[:80]!r}...: no spaces, at most {MOST_LINK_CHARS} characters")
    _check_characters(link)
    return NewItem(_id(item_id, "l", link), link=link, name=name, labels=labels)


def labels_of(project: Project, value: Any, separator: str = "|") -> tuple[str, ...] | None:
    """Return the labels in a cell or a JSON value; nothing, '' and an empty list for one label only = not labelled."""
    if value is None or value == "":
        return None
    given: Sequence[Any] = value if isinstance(value, list | tuple) else _split(project, str(value), separator)
    if not given and not project.is_multilabel:
        return None
    return check_labels(project, [str(label) for label in given])


def _split(project: Project, cell: str, separator: str) -> list[str]:
    return [part.strip() for part in cell.split(separator)] if project.is_multilabel else [cell.strip()]


def _name(name: Any) -> str | None:
    if name is None:
        return None
    if not isinstance(name, str) or len(name) > MOST_NAME_CHARS:
        raise InvalidInputError(f"name {str(name)[:80]!r}: use a text of at most {MOST_NAME_CHARS} characters")
    _check_characters(name)
    return name


def _id(item_id: Any, prefix: str, content: str) -> str:
    if item_id is None or item_id == "":
        return f"{prefix}-{hashlib.blake2b(content.encode(), digest_size=10).hexdigest()}"
    text = item_id if isinstance(item_id, str) else str(item_id)
    if len(text) <= 64 and text.isascii() and text.isprintable():
        return text
    return parse_item(text)


def _check_characters(text: str) -> None:
    if text.isascii():
        if "\0" in text:
            raise InvalidInputError("a NUL character is in it: remove it")
        return
    if "\0" in text:
        raise InvalidInputError("a NUL character is in it: remove it")
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidInputError("it is not UTF-8: save the file as UTF-8") from exc


def cell_value(cell: str) -> str | int | float | None:
    """Return a CSV cell as a number where it is one, None where it is empty."""
    if not cell:
        return None
    try:
        return int(cell) if cell.lstrip("-").isdigit() and cell.isascii() else float(cell)
    except ValueError:
        return cell
