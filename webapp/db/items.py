"""Items: adding them in chunks, finding them, and the link under which the cluster knows each.

Owns the table `items`. Must never count or sort the whole table. Text and table rows are kept once, inline; their link for the
cluster is a data: URL made from the content. Called by `webapp.transfer`, `webapp.labelling` and the pilot.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from webapp.db import tables as t
from webapp.db import tallies
from webapp.db.engine import Tx
from webapp.db.projects import Project
from webapp.kinds.catalogue import data_of
from webapp.kinds.values import Value, encode_more

OPEN, LABELLED, RULED, BEGUN = 0, 1, 2, 3  # RULED: by rules alone, people still look at it; BEGUN: some opinions of several
UNSEEN = (OPEN, RULED)
IMPORTED = "import"  # the version of a draft whose bringer named none


class NewDraft(msgspec.Struct, frozen=True):
    """A draft that somebody brings with an item: what another model, or an older project, said of it."""

    value: Value
    version: str = IMPORTED
    confidence: float = 0.0


class NewItem(msgspec.Struct, frozen=True):
    """An item to be added: a link, or inline content. `labels` are known already (None = not labelled).

    `value` has what is said beside the labels (None = nothing): then `labels` are its labels. `draft` is shown until the project's
    own model has one. `is_gold`: the label is a known answer, by which people are judged. All of them have been checked.
    """

    item_id: str
    link: str | None = None
    content: str | None = None
    name: str | None = None
    labels: tuple[str, ...] | None = None
    value: Value | None = None
    draft: NewDraft | None = None
    is_gold: bool = False


class StoredItem(msgspec.Struct, frozen=True):
    """An item as stored."""

    number: int
    item_id: str
    link: str | None
    content: str | None
    name: str | None
    state: int
    revision: int
    position: int


def link_of(category: str, link: str | None, content: str | None) -> str:
    """Return the link under which the cluster knows an item: its own, or a data: URL of its inline content."""
    if link is not None:
        return link
    kind = "application/json" if data_of(category) == "row" else "text/plain;charset=utf-8"
    return f"data:{kind};base64,{base64.b64encode((content or '').encode()).decode()}"


STORED = [t.items.c[n] for n in ("id", "item_id", "link", "content", "name", "state", "revision", "position")]
_OF_PROJECT = t.items.c.project_id == sa.bindparam("project_id")
_FIND = sa.select(*STORED).where(_OF_PROJECT, t.items.c.item_id == sa.bindparam("item_id"))
_AFTER = (
    sa.select(*STORED)
    .where(_OF_PROJECT, t.items.c.state == sa.bindparam("state"), t.items.c.position > sa.bindparam("position"))
    .order_by(t.items.c.position)
    .limit(sa.bindparam("n"))
)
_INSERT = "INSERT INTO items (project_id, item_id, position, link, content, name) "


def find_item(tx: Tx, project_id: int, item_id: str) -> StoredItem | None:
    """Return one item by its id."""
    row = tx.execute(_FIND, {"project_id": project_id, "item_id": item_id}).first()
    return StoredItem(*row) if row else None


def name_of(tx: Tx, number: int) -> str | None:
    """Return the id of the item with this number."""
    return tx.execute(sa.select(t.items.c.item_id).where(t.items.c.id == number)).scalar()


def annotation_of(tx: Tx, number: int) -> int | None:
    """Return which annotation is the label of the item with this number."""
    return tx.execute(sa.select(t.items.c.annotation_id).where(t.items.c.id == number)).scalar()


def set_state(tx: Tx, numbers: Sequence[int], state: int) -> None:
    """Move items into a state."""
    tx.execute(t.items.update().where(t.items.c.id.in_(list(numbers))).values(state=state))


def states_of(tx: Tx, numbers: Sequence[int]) -> dict[int, int]:
    """Return the states of items by their numbers."""
    return {row[0]: row[1] for row in tx.execute(sa.select(t.items.c.id, t.items.c.state).where(t.items.c.id.in_(list(numbers))))}


def open_items_after(tx: Tx, project_id: int, position: int, n: int) -> list[StoredItem]:
    """Return up to `n` items behind `position` that no person has labelled, in the order they came."""
    found: list[StoredItem] = []
    for state in UNSEEN:  # one state a query, for the index
        rows = tx.execute(_AFTER, {"project_id": project_id, "state": state, "position": position, "n": n})
        found += [StoredItem(*row) for row in rows]
    return sorted(found, key=lambda item: item.position)[:n]


def items_by_id(tx: Tx, project_id: int, item_ids: Sequence[str]) -> dict[str, StoredItem]:
    """Return the named items that exist, by id."""
    found: dict[str, StoredItem] = {}
    for start in range(0, len(item_ids), 5000):
        query = sa.select(*STORED).where(t.items.c.project_id == project_id)
        rows = tx.execute(query.where(t.items.c.item_id.in_(item_ids[start : start + 5000])))
        found.update({row[1]: StoredItem(*row) for row in rows})
    return found


def labelled_ids(tx: Tx, project_id: int) -> list[str]:
    """Return the ids of all items that people labelled: for the pilot only, which leaves them out of a ranking."""
    query = sa.select(t.items.c.item_id).where(t.items.c.project_id == project_id, t.items.c.state == LABELLED)
    return list(tx.execute(query).scalars())


def page_items(tx: Tx, project_id: int, state: int, after: int, n: int) -> list[StoredItem]:
    """Return up to `n` items in one state behind a position, for lists."""
    rows = tx.execute(_AFTER, {"project_id": project_id, "state": state, "position": after, "n": n})
    return [StoredItem(*row) for row in rows]


def add_items(tx: Tx, project: Project, new: Sequence[NewItem], user_id: int, now: float) -> int:
    """Add one chunk and return how many were new; an id that the project has already is left as it is.

    Items that bring labels get revision 1 and an outbox row each. The caller's transaction makes chunk and progress one.
    """
    if not new:
        return 0
    projects = t.projects
    after = tx.execute(
        projects.update()
        .where(projects.c.id == project.id)
        .values(next_position=projects.c.next_position + len(new))
        .returning(projects.c.next_position)
    ).scalar_one()
    first = after - len(new)
    rows = [(project.id, x.item_id, first + i, x.link, x.content, x.name) for i, x in enumerate(new)]
    added = _copy_rows(tx, rows) if tx.dialect.name == "postgresql" else _insert_rows(tx, rows)
    labelled = _add_known_labels(tx, project, new, first, user_id, now) if any(x.labels is not None for x in new) else 0
    if any(x.draft is not None for x in new):
        _add_drafts(tx, project, new, first)
    if added:
        tallies.add(tx, project.id, tallies.Tally(items=added, labels=labelled))
    return added


def _insert_rows(tx: Tx, rows: list[tuple[Any, ...]]) -> int:
    cursor = tx.connection.cursor()
    try:
        cursor.executemany(_INSERT + "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (project_id, item_id) DO NOTHING", rows)
        return int(cursor.rowcount)
    finally:
        cursor.close()


_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def _copy_rows(tx: Tx, rows: list[tuple[Any, ...]]) -> int:
    lines = ("\t".join("\\N" if v is None else str(v).translate(_ESCAPES) for v in row) for row in rows)
    columns = "project_id, item_id, position, link, content, name"
    cursor: Any = tx.connection.cursor()
    try:
        cursor.execute(
            "CREATE TEMP TABLE IF NOT EXISTS chunk (project_id bigint, item_id text, position bigint, link text, "
            "content text, name text) ON COMMIT DELETE ROWS"
        )
        cursor.execute("TRUNCATE chunk")
        with cursor.copy(f"COPY chunk ({columns}) FROM STDIN") as copy:
            copy.write("\n".join(lines) + "\n")
        cursor.execute(
            f"INSERT INTO items ({columns}) SELECT {columns} FROM chunk ORDER BY position "
            "ON CONFLICT (project_id, item_id) DO NOTHING"
        )
        return int(cursor.rowcount)
    finally:
        cursor.close()


def _of_chunk(project: Project, first: int, n: int) -> sa.ColumnElement[bool]:
    return sa.and_(t.items.c.project_id == project.id, t.items.c.position.between(first, first + n - 1))


def _add_drafts(tx: Tx, project: Project, new: Sequence[NewItem], first: int) -> None:
    """Write the drafts that the items of this chunk which were really added bring: behind any of the project's model."""
    added = tx.execute(sa.select(t.items.c.id, t.items.c.position).where(_of_chunk(project, first, len(new))))
    rows = [draft_row(project.id, number, one) for number, place in added if (one := new[place - first].draft) is not None]
    if rows:
        tx.execute(t.head_drafts.insert(), rows)


def draft_row(project_id: int, number: int, draft: NewDraft, pointer: int = 0) -> dict[str, Any]:
    """Return the row of `head_drafts` of an item's draft; `pointer` 0 = somebody brought it, and any of the cluster's is newer."""
    return {
        "item": number,
        "project_id": project_id,
        "version": draft.version,
        "pointer": pointer,
        "labels": msgspec.json.encode(draft.value.labels).decode(),
        "confidence": draft.confidence,
        "value": encode_more(draft.value),
    }


def _add_known_labels(tx: Tx, project: Project, new: Sequence[NewItem], first: int, user_id: int, now: float) -> int:
    """Write annotations and outbox rows for the items of this chunk that were really added."""
    here = _of_chunk(project, first, len(new))
    spot = sa.and_(here, t.items.c.state == OPEN, t.items.c.revision == 0)
    rows = []
    for number, position in tx.execute(sa.select(t.items.c.id, t.items.c.position).where(spot)):
        one = new[position - first]
        if one.labels is not None:
            text = msgspec.json.encode(one.labels).decode()
            fixed = {"project_id": project.id, "revision": 1, "is_deleted": False, "user_id": user_id, "is_corrected": False}
            rows.append(dict(item=number, labels=text, value=encode_more(one.value), window_no=0, created_at=now, **fixed))
    if not rows:
        return 0
    tx.execute(t.annotations.insert(), rows)
    mine = sa.select(t.annotations.c.id).where(t.annotations.c.item == t.items.c.id, t.annotations.c.revision == 1)
    tx.execute(t.items.update().where(spot, mine.exists()).values(state=LABELLED, revision=1, annotation_id=mine.scalar_subquery()))
    if not project.is_learned:
        return len(rows)
    done = sa.select(t.items.c.project_id, t.items.c.annotation_id, sa.literal(0), sa.literal(0), sa.literal(now)).where(
        here, t.items.c.state == LABELLED
    )
    tx.execute(t.outbox.insert().from_select(["project_id", "annotation_id", "state", "attempts", "created_at"], done))
    return len(rows)
