"""Annotations and their outbox rows: written together or not at all.

Owns the table `annotations` and the birth of each row of `outbox`. Must never write one without the other where the cluster
learns the project: that pair is what makes a saved label a label the cluster will get. Called by `webapp.labelling` inside a write
transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from webapp.db import tables as t
from webapp.db import tallies, webhooks
from webapp.db.engine import Tx
from webapp.db.items import LABELLED, OPEN, RULED
from webapp.kinds.values import Value, decode_more

NEW, SENT, DONE, FAILED, RULES_NEW, RULES_SENT = 0, 1, 2, 3, 4, 5
LONGEST_S = 120.0  # what one item counts at most in seconds per item: whoever goes for lunch is not slow
PERSON, RULES = "person", "rules"  # where a label comes from; drafts made by rules have RULES as their version
CONSENSUS, REVIEW, BULK = "consensus", "review", "bulk"  # the label of several opinions, of a reviewer, of drafts accepted unseen
NOBODY = frozenset({RULES, CONSENSUS, BULK})  # labels of these sources are no single person's


class Held(msgspec.Struct, frozen=True):
    """An item, locked for this transaction, with the lease on it if there is one. `n_chars` of its text, where it was asked for."""

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
    draft_value: str | None
    n_chars: int | None = None


class Annotation(msgspec.Struct, frozen=True):
    """One revision of an item's label. `source` says who gave it: a person, or the rules that `user_id` applied; `proba` is then
    how likely each of the project's labels is, as float32. `value` and `draft_value`: what is said beside the labels, as JSON."""

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
    source: str = PERSON
    proba: bytes | None = None
    value: str | None = None
    draft_value: str | None = None

    @property
    def said(self) -> Value:
        """Return all that was said."""
        return decode_more(self.labels, self.value)


_NAMES = [f.name for f in msgspec.structs.fields(Annotation)]
_COLUMNS = [t.annotations.c[name] for name in _NAMES]
_OF_HELD = [
    *(t.items.c[n] for n in ("id", "item_id", "state", "revision", "annotation_id")),
    *(t.leases.c[n] for n in ("lease_id", "user_id", "expires_at", "draft", "draft_version", "draft_value")),
]


def _held(*more: sa.ColumnElement[int | None], isouter: bool = True) -> sa.Select[Any]:
    query = sa.select(*_OF_HELD, *more).select_from(t.items.join(t.leases, t.leases.c.item == t.items.c.id, isouter=isouter))
    return query.where(t.items.c.project_id == sa.bindparam("project_id"), t.items.c.item_id == sa.bindparam("item_id"))


def _under_lease(*more: sa.ColumnElement[int | None]) -> sa.Select[Any]:
    """Return the same for an item under the lease of an answer whose key nobody used before, item and lease locked."""
    c = t.annotations.c
    used = sa.select(c.id).where(c.project_id == sa.bindparam("project_id"), c.key == sa.bindparam("key")).exists()
    query = _held(*more, isouter=False).where(t.leases.c.lease_id == sa.bindparam("lease_id"), sa.not_(used))
    return query.with_for_update(of=[t.items, t.leases])


_CHARS = sa.func.length(t.items.c.content)
_HELD, _HELD_AND_CHARS = _held(), _held(_CHARS)
_UNDER_LEASE, _UNDER_LEASE_AND_CHARS = _under_lease(), _under_lease(_CHARS)
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
_CHECKED = (
    t.rule_votes.update()
    .where(t.rule_votes.c.item == sa.bindparam("number"), t.rule_votes.c.said.is_not(None))
    .values(checked=sa.bindparam("label"), confidence=None)
)
_DROP_LEASE = t.leases.delete().where(t.leases.c.item == sa.bindparam("number"))


def _whole_answer() -> sa.Select[Any]:
    """Return one PostgreSQL statement that writes a label, its outbox row, the item's new state, the end of its lease, what
    webhooks get of it and the counts: one way there and back instead of six. It binds `said_<column>`, `project` and what
    `tallies.binds` returns."""
    names = [name for name in _NAMES if name != "id"] + ["project_id"]
    said = {name: sa.bindparam(f"said_{name}", type_=t.annotations.c[name].type) for name in names}
    label = t.annotations.insert().values(said).returning(t.annotations.c.id).cte("label")
    number = sa.select(label.c.id).scalar_subquery()
    row: tuple[sa.ColumnElement[Any], ...] = (
        said["project_id"],
        label.c.id,
        sa.literal_column(str(NEW)),
        sa.literal_column("0"),
        said["created_at"],
    )
    queued = t.outbox.insert().from_select(["project_id", "annotation_id", "state", "attempts", "created_at"], sa.select(*row))
    values = {"state": sa.literal_column(str(LABELLED)), "revision": said["revision"], "annotation_id": number}
    item = t.items.update().where(t.items.c.id == said["item"]).values(values)
    lease = t.leases.delete().where(t.leases.c.item == said["item"])
    parts = (
        queued.cte("queued"),
        item.cte("said_item"),
        lease.cte("ended"),
        webhooks.noting(number).cte("noted"),
        tallies.adding().cte("counted"),
    )
    return sa.select(label.c.id).add_cte(*parts)


_WHOLE_ANSWER = _whole_answer()


def hold_item(tx: Tx, project_id: int, item_id: str, with_chars: bool = False) -> Held | None:
    """Lock one item until the end of the transaction and return it with its lease; None = no such item.

    `with_chars`: also how long its text is, in code points (None where it is behind a link).
    """
    given = {"project_id": project_id, "item_id": item_id}
    if tx.dialect.name == "postgresql":
        tx.execute(_LOCK_ITEM, given)
    row = tx.execute(_HELD_AND_CHARS if with_chars else _HELD, given).first()
    return Held(*row) if row else None


def hold_leased(tx: Tx, project_id: int, item_id: str, lease_id: str, key: str, with_chars: bool = False) -> Held | None:
    """Lock an item that is out under `lease_id` and return it, as `hold_item` does, in one statement.

    None = it is not under that lease any more, or an answer with this idempotency key is there: look closer. What another
    transaction changes while this one waits for its locks is seen, for both rows are locked and looked at again.
    """
    given = {"project_id": project_id, "item_id": item_id, "lease_id": lease_id, "key": key}
    row = tx.execute(_UNDER_LEASE_AND_CHARS if with_chars else _UNDER_LEASE, given).first()
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


def add_annotation(tx: Tx, project_id: int, held: Held, new: Annotation, is_learned: bool = True) -> Annotation:
    """Write a person's next revision of an item, its outbox row (where the cluster learns the project), the item's state, the end
    of its lease and the counts."""
    values = msgspec.structs.asdict(new)
    values["labels"] = msgspec.json.encode(new.labels).decode()
    values["draft"] = msgspec.json.encode(new.draft).decode() if new.draft is not None else None
    del values["id"]
    if held.revision:  # what rules said of the item, if they did, is checked now
        tx.execute(_CHECKED, {"number": held.number, "label": None if new.is_deleted else "|".join(new.labels)})
    if held.state == RULED:
        tallies.add_ruled(tx, project_id, -1)
    elif held.state == LABELLED and held.annotation_id is not None:
        earlier = find_annotation(tx, held.annotation_id)
        if earlier is not None:
            tallies.add(tx, project_id, *_counted(earlier, -1))
    return msgspec.structs.replace(new, id=_write(tx, project_id, held, new, values, is_learned))


def _write(tx: Tx, project_id: int, held: Held, new: Annotation, values: dict[str, Any], is_learned: bool) -> int:
    """Write the annotation with all that goes with it, the counts included; return its number."""
    given = {**values, "project_id": project_id}
    if is_learned and not new.is_deleted and tx.dialect.name == "postgresql":
        said = {f"said_{name}": value for name, value in given.items()}
        counts = tallies.binds(tx, project_id, *_counted(new, 1))
        return int(tx.execute(_WHOLE_ANSWER, {**said, **counts, "project": project_id}).scalar_one())
    number = int(tx.execute(_INSERT, given).scalar_one())
    if is_learned:
        fixed = {"state": NEW, "attempts": 0, "created_at": new.created_at}
        tx.execute(_OUTBOX, {"project_id": project_id, "annotation_id": number, **fixed})
    state, current = (OPEN, None) if new.is_deleted else (LABELLED, number)
    tx.execute(_UPDATE_ITEM, {"number": held.number, "new_state": state, "new_revision": new.revision, "current": current})
    tx.execute(_DROP_LEASE, {"number": held.number})
    webhooks.note_label(tx, project_id, number)
    if not new.is_deleted:
        tallies.add(tx, project_id, *_counted(new, 1))
    return number


def _counted(label: Annotation, sign: int) -> tuple[tallies.Tally, str, int]:
    """Return what a label adds to the counts (`sign` 1) or takes from them (-1), and the version and window it counts for."""
    is_drafted = label.draft is not None and label.draft_version != RULES  # corrections tell of models; rules have their own table
    change = tallies.Tally(
        labels=sign,
        drafted=sign * is_drafted,
        corrected=sign * (is_drafted and label.is_corrected),
        timed=sign * (label.seconds is not None),
        seconds=sign * min(label.seconds or 0.0, LONGEST_S),
    )
    return change, (label.draft_version or "") if is_drafted else "", label.window_no
