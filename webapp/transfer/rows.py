"""One row of an upload → one new item, or the reason why not.

Owns what a row may look like for each kind of data, and the ids of rows that bring none (a hash of their content, so that importing
the same file twice adds nothing). What a row says of its item, its label and its draft, is `said`'s. Must never touch a file or the
database. Called by the readers and the items endpoint.
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
from webapp.kinds.catalogue import data_of
from webapp.labelling.answers import check_labels
from webapp.transfer import said

MOST_TEXT_CHARS = 200_000
MOST_NAME_CHARS = 1000
MOST_LINK_CHARS = 4 * 2**20
SIDES = ("a", "b")
_SCHEMES = ("http://", "https://", "file://", "data:")
_LABEL_KEYS = ("labels", "label")


def item_from_object(project: Project, row: Mapping[str, Any]) -> NewItem:
    """Return the item in a JSON object {id?, link | text | row | pair, name?}, with what is said of it: {label(s) | value | marks |
    number, ...}, its draft, and whether its answer is known (is_gold: true). Raises InvalidInputError."""
    if isinstance(row.get("is_gold"), bool):
        known = item_from_object(project, {key: value for key, value in row.items() if key != "is_gold"})
        return said.as_known(known) if row["is_gold"] else known
    if row.get("labelled_at", "") is None and ("row" in row or data_of(project.category) != "row"):
        row = {key: value for key, value in row.items() if key not in _LABEL_KEYS}  # an export says so of what is not labelled
    if said.is_more(project, row):
        bare = {key: value for key, value in row.items() if key not in said.fields_in(project, row)}
        item = _item(project, bare, None)
        return said.with_said(project, item, said.value_in(project, row), said.draft_in(project, row))
    labels = labels_of(project, next((row[key] for key in _LABEL_KEYS if row.get(key) is not None), None))
    return _item(project, row, labels)


def _item(project: Project, row: Mapping[str, Any], labels: tuple[str, ...] | None) -> NewItem:
    item_id, name, data = row.get("id"), _name(row.get("name")), data_of(project.category)
    if row.get("link") is not None and data != "pair":
        return link_item(row["link"], item_id, name, labels)
    if data == "row":
        own = ("id", "name", *_LABEL_KEYS)
        values = row["row"] if "row" in row else {key: value for key, value in row.items() if key not in own}
        return row_item(values, item_id, name, labels)
    if data == "text":
        if "text" not in row:
            raise InvalidInputError("no 'text' and no 'link': give one of them")
        return text_item(row["text"], item_id, name, labels)
    if data == "pair":
        return pair_item(row.get("pair", row), item_id, name, labels)
    what = "an image" if data == "image" else "a sound"
    raise InvalidInputError(f"no 'link': {what} is given by its link, or uploaded as a file")


def pair_item(pair: Any, item_id: Any, name: str | None, labels: tuple[str, ...] | None) -> NewItem:
    """Return two things to compare as an item: `a` and `b`, each a text, a link, or an object with one of them."""
    if not isinstance(pair, Mapping) or any(side not in pair for side in SIDES):
        raise InvalidInputError("no pair: give 'a' and 'b', each a text, or an object with 'text' or 'link'")
    content = msgspec.json.encode({side: _side(side, pair[side]) for side in SIDES}).decode()
    return NewItem(_id(item_id, "p", content), content=content, name=name, labels=labels)


def _side(side: str, given: Any) -> dict[str, str]:
    if isinstance(given, str):
        given = {"link" if given.startswith(_SCHEMES) and not any(c.isspace() for c in given) else "text": given}
    if not isinstance(given, Mapping) or len(given) != 1 or next(iter(given)) not in ("text", "link"):
        raise InvalidInputError(f"side {side!r} of the pair: give a text, or an object with 'text' or 'link'")
    try:
        if "link" in given:
            return {"link": str(link_item(given["link"], "side", None, None).link)}
        return {"text": str(text_item(given["text"], "side", None, None).content)}
    except InvalidInputError as exc:
        raise InvalidInputError(f"side {side!r} of the pair: {exc}") from exc


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
    """Return the labels in a cell or a JSON value; nothing, '' and an empty list for one label only = not labelled.

    For kinds whose labels are all that is said; `said` reads the others.
    """
    if value is None or value == "":
        return None
    if not said.is_plain(project):
        raise InvalidInputError(f"a label alone says nothing in a project of kind {project.kind!r}: send its value in JSON lines")
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
