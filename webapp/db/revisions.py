"""Annotations and their outbox rows: written together or not at all.

Owns the table `annotations` and the birth of each row of `outbox`. Must never write one without the other: that pair is what makes
a saved label a label the cluster will get. Called by `webapp.labelling` inside a write transaction.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from webapp.db import tables as t
from webapp.db import tallies
from webapp.db.engine import Tx
from webapp.db.items import LABELLED, OPEN

NEW, SENT, DONE, FAILED = 0, 1, 2, 3


class Held(msgspec.Struct, frozen=True):
    """An item, locked for this transaction, with the lease on it if there is one."""

    number: int
    item_id: str
    state: int
    revision: int
    annotation_id: int | None
    lease_id: str | None
    lease_user: int | None
    lease_expires_at: float | None
    draft: str | None
    draft_version: str | None


class Annotation(msgspec.Struct, frozen=True):
    """One revision of an item's label."""

    id: int
    item: int
    revision: int
    labels: tuple[str, ...]
    is_deleted: bool
    user_id: int
    draft: tuple[str, ...] | None
    draft_version: str | None
    is_corrected: bool
    seconds: float | None
    lease_id: str | None
    key: str | None
    window_no: int
    created_at: float


_NAMES = [f.name for f in msgspec.structs.fields(Annotation)]
_COLUMNS = [t.annotations.c[name] for name in _NAMES]
_HELD = (
    sa.select(
        *(t.items.c[n] for n in ("id", "item_id", "state", "revision", "annotation_id")),
        *(t.leases.c[n] for n in ("lease_id", "user_id", "expires_at", "draft", "draft_version")),
    )
    .select_from(t.items.outerjoin(t.leases, t.leases.c.item == t.items.c.id))
    .where(t.items.c.project_id == sa.bindparam("project_id"), t.items.c.item_id == sa.bindparam("item_id"))
)
_LOCK_ITEM = (
    sa.select(t.items.c.id)
    .where(t.items.c.project_id == sa.bindparam("project_id"), t.items.c.item_id == sa.bindparam("item_id"))
    .with_for_update()
)
_BY_LEASE = sa.select(*_COLUMNS).where(t.annotations.c.lease_id == sa.bindparam("lease_id"))
_BY_KEY = sa.select(*_COLUMNS).where(
    t.annotations.c.project_id == sa.bindparam("project_id"), t.annotations.c.key == sa.bindparam("key")
)
_BY_ID = sa.select(*_COLUMNS).where(t.annotations.c.id == sa.bindparam("id"))
_INSERT = t.annotations.insert().returning(t.annotations.c.id)
_OUTBOX = t.outbox.insert()
_UPDATE_ITEM = (
    t.items.update()
    .where(t.items.c.id == sa.bindparam("number"))
    .values(state=sa.bindparam("new_state"), revision=sa.bindparam("new_revision"), annotation_id=sa.bindparam("current"))
)
_DROP_LEASE = t.leases.delete().where(t.leases.c.item == sa.bindparam("number"))


def hold_item(tx: Tx, project_id: int, item_id: str) -> Held | None:
    """Lock one item until the end of the transaction and return it with its lease; None = no such item."""
    given = {"project_id": project_id, "item_id": item_id}
    if tx.dialect.name == "postgresql":
        tx.execute(_LOCK_ITEM, given)
    row = tx.execute(_HELD, given).first()
    return Held(*row) if row else None


def _annotation(row: Sequence[object] | None) -> Annotation | None:
    if row is None:
        return None
    values = dict(zip(_NAMES, row, strict=True))
    for name in ("labels", "draft"):
        text = values[name]
        values[name] = tuple(msgspec.json.decode(text)) if isinstance(text, str) else None
    return msgspec.convert(values, Annotation)


def find_by_lease(tx: Tx, lease_id: str) -> Annotation | None:
    """Return the answer that was given under a lease."""
    return _annotation(tx.execute(_BY_LEASE, {"lease_id": lease_id}).first())


def find_by_key(tx: Tx, project_id: int, key: str) -> Annotation | None:
    """Return the answer that a client sent under an idempotency key."""
    return _annotation(tx.execute(_BY_KEY, {"project_id": project_id, "key": key}).first())


def find_annotation(tx: Tx, annotation_id: int) -> Annotation | None:
    """Return one annotation by its number."""
    return _annotation(tx.execute(_BY_ID, {"id": annotation_id}).first())


def history_of(tx: Tx, item: int) -> tuple[Annotation, ...]:
    """Return all revisions of one item, oldest first."""
    rows = tx.execute(sa.select(*_COLUMNS).where(t.annotations.c.item == item).order_by(t.annotations.c.revision))
    return tuple(a for a in map(_annotation, rows) if a is not None)


def add_annotation(tx: Tx, project_id: int, held: Held, new: Annotation) -> Annotation:
    """Write the next revision of an item, its outbox row, the item's state, the end of its lease and the counts."""
    values = msgspec.structs.asdict(new)
    values["labels"] = msgspec.json.encode(new.labels).decode()
    values["draft"] = msgspec.json.encode(new.draft).decode() if new.draft is not None else None
    del values["id"]
    number = tx.execute(_INSERT, {**values, "project_id": project_id}).scalar_one()
    tx.execute(
        _OUTBOX, {"project_id": project_id, "annotation_id": number, "state": NEW, "attempts": 0, "created_at": new.created_at}
    )
    state, current = (OPEN, None) if new.is_deleted else (LABELLED, number)
    tx.execute(_UPDATE_ITEM, {"number": held.number, "new_state": state, "new_revision": new.revision, "current": current})
    tx.execute(_DROP_LEASE, {"number": held.number})
    if held.annotation_id is not None:
        _count(tx, project_id, find_annotation(tx, held.annotation_id), -1)
    if not new.is_deleted:
        _count(tx, project_id, new, 1)
    return msgspec.structs.replace(new, id=number)


def _count(tx: Tx, project_id: int, label: Annotation | None, sign: int) -> None:
    if label is None:
        return
    is_drafted = label.draft is not None
    change = tallies.Tally(labels=sign, drafted=sign * is_drafted, corrected=sign * label.is_corrected)
    tallies.add(tx, project_id, change, (label.draft_version or "") if is_drafted else "", label.window_no)
