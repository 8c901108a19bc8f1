"""Items with all that is said of them, a page behind a place at a time: what a background export reads and goes on from.

Owns the query and the table `picture_sizes`. Must never hold more than a page and one block of drafts, nor a transaction between
two pages. Called by `webapp.transfer.exporter` and, for sizes, by the importer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from webapp.db import tables as t
from webapp.db.drafts import Draft, read_block
from webapp.db.engine import Tx
from webapp.db.projects import Project
from webapp.kinds.label_set import value_now
from webapp.kinds.values import Value, decode_more


class Entry(msgspec.Struct, frozen=True):
    """One item as formats carry it. `value` None = not labelled; `width` and `height` in pixels, 0 = unknown.

    `draft` was on screen when the item was labelled (`draft_confidence` None: nobody wrote it down), or it is the newest one there
    is (`is_draft_shown` False).
    """

    position: int
    item_id: str
    name: str | None
    link: str | None
    content: str | None
    revision: int
    value: Value | None
    annotator: str | None
    seconds: float | None
    draft: Value | None
    draft_version: str | None
    draft_confidence: float | None
    labelled_at: float | None
    source: str | None
    width: int
    height: int
    is_draft_shown: bool = False


_A, _I, _H, _S = t.annotations.c, t.items.c, t.head_drafts.c, t.picture_sizes.c
_DRAFT = (_H.version, _H.pointer, _H.labels, _H.confidence, _H.value, _I.block_id, _I.block_row)
_PAGE = (
    sa.select(
        *(_I.position, _I.item_id, _I.name, _I.link, _I.content, _I.revision),
        *(_A.labels, _A.value, _A.user_id, _A.seconds, _A.draft, _A.draft_value, _A.draft_version, _A.created_at, _A.source),
        *(_S.width, _S.height),
        *_DRAFT,
    )
    .select_from(
        t.items.outerjoin(t.annotations, _A.id == _I.annotation_id)
        .outerjoin(t.head_drafts, _H.item == _I.id)
        .outerjoin(t.picture_sizes, sa.and_(_S.project_id == _I.project_id, _S.item_id == _I.item_id))
    )
    .where(_I.project_id == sa.bindparam("project_id"), _I.state == sa.bindparam("state"), _I.position > sa.bindparam("after"))
    .order_by(_I.position)
    .limit(sa.bindparam("n"))
)
_SHOWN = 10  # the column of the draft that was on screen


def page_after(tx: Tx, project: Project, state: int, after: int, n: int, names: Mapping[int, str], drafts: bool) -> list[Entry]:
    """Return up to `n` items of one state behind a position; `names` of accounts by number; `drafts`: those nobody saw, too."""
    given = {"project_id": project.id, "state": state, "after": after, "n": n}
    rows = tx.execute(_PAGE, given).all()
    stored = _stored_drafts(tx, project, rows) if drafts else {}
    return [_entry(project, row, names, stored.get(at)) for at, row in enumerate(rows)]


def _entry(project: Project, row: Sequence[Any], names: Mapping[int, str], stored: Draft | None) -> Entry:
    position, item_id, name, link, content, revision, labels, value, user, seconds, draft, draft_value, version, at, source = row[
        :15
    ]
    guess, sure = _value(project, draft, draft_value), None
    if stored is not None:
        more = decode_more(stored.labels, stored.value)
        guess, version, sure = more, stored.version, stored.confidence
    said = _value(project, labels, value)
    return Entry(
        *(position, item_id, name, link, content, revision, said, names.get(user), seconds, guess, version, sure),
        *(at, source, row[15] or 0, row[16] or 0, draft is not None),
    )


def _stored_drafts(tx: Tx, project: Project, rows: Sequence[Sequence[Any]]) -> dict[int, Draft]:
    """Return the newest draft of each row that was labelled without one or not at all, by the row's place; one block is held."""
    found: dict[int, tuple[int, Draft]] = {}
    of_block: dict[int, list[tuple[int, int]]] = {}
    for at, row in enumerate(rows):
        if row[_SHOWN] is not None:
            continue
        version, pointer, labels, confidence, value, block, block_row = row[-len(_DRAFT) :]
        if version is not None:
            names = project.current(msgspec.json.decode(labels))
            found[at] = (pointer, Draft(names, version, confidence, project.current_more(value)))
        if block is not None:
            of_block.setdefault(block, []).append((at, block_row))
    for block, places in of_block.items():
        pointer, drafts = read_block(tx, project, block, [row for _, row in places])
        for (at, _), draft in zip(places, drafts, strict=True):
            if draft is not None and (at not in found or found[at][0] < pointer):
                found[at] = (pointer, draft)
    return {at: draft for at, (_, draft) in found.items()}


def _value(project: Project, labels: str | None, more: str | None) -> Value | None:
    """Return what is stored as it is called now."""
    if labels is None:
        return None
    told = decode_more(tuple(msgspec.json.decode(labels)), more)
    return value_now(project.label_set, told) if project.label_set.left else told


def count_items(tx: Tx, project_id: int, states: Sequence[int]) -> int:
    """Return how many items there are in these states, for a bar's length: an index is counted, once an export."""
    query = sa.select(sa.func.count()).select_from(t.items).where(_I.project_id == project_id, _I.state.in_(states))
    return int(tx.execute(query).scalar_one())


def keep_sizes(tx: Tx, project_id: int, sizes: Mapping[str, tuple[int, int]]) -> None:
    """Keep the sizes of pictures by item id; one that is known stays as it is."""
    if not sizes:
        return
    insert: Any = postgresql.insert if tx.dialect.name == "postgresql" else sqlite.insert
    rows = [{"project_id": project_id, "item_id": i, "width": w, "height": h} for i, (w, h) in sizes.items()]
    tx.execute(insert(t.picture_sizes).on_conflict_do_nothing(), rows)
