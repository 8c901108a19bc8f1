"""Webhooks and what they still have to say: rows written in the transaction of the event, sent by the pilot.

Owns the tables `webhooks`, `webhook_labels` and `webhook_deliveries`. A label is noted as one small row in the transaction that
saves it; the pilot turns many of them into one delivery, and takes them out, in one transaction. Must never hold a key: it is
derived from `salt` (`webapp.webhooks.signing`). Called by `webapp.db.events`, `webapp.db.revisions` and `webapp.webhooks`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from labelloop.errors import NotFoundError
from webapp.db import tables as t
from webapp.db.engine import Tx

WAITING, DONE, GIVEN_UP = 0, 1, 2
STATES = ("waiting", "done", "given up")
LABELS = "labels.saved"
EVENT_OF_KIND = {  # kind of a project's event (`webapp.db.events`) → event of a webhook
    "training": "training.ended",
    "version": "version.published",
    "import": "import.ended",
    "export": "export.ended",
    "stop": "project.stopped",
}
EVENTS = (LABELS, *EVENT_OF_KIND.values())
TEST = "test"


class Webhook(msgspec.Struct, frozen=True):
    """Where to tell of `events`; `project_id` None = those of every project."""

    id: int
    project_id: int | None
    url: str
    events: tuple[str, ...]
    salt: str
    made_by: str
    created_at: float


class Delivery(msgspec.Struct, frozen=True):
    """One message to one webhook. `uid` stays the same however often it is sent; `status` is HTTP's, None = no answer."""

    id: int
    webhook_id: int
    uid: str
    event: str
    payload: str
    state: int
    attempts: int
    next_at: float
    status: int | None
    reason: str
    created_at: float
    ended_at: float | None


_HOOK = [t.webhooks.c[field.name] for field in msgspec.structs.fields(Webhook)]
_DELIVERY = [t.webhook_deliveries.c[field.name] for field in msgspec.structs.fields(Delivery)]


def noting(annotation_id: sa.ColumnElement[Any]) -> sa.Insert:
    """Return the statement that notes a saved label for the webhooks that want labels; it binds `project`."""
    is_meant = sa.or_(t.webhooks.c.project_id == sa.bindparam("project", type_=t.Id), t.webhooks.c.project_id.is_(None))
    wanting = sa.select(t.webhooks.c.id, annotation_id).where(t.webhooks.c.has_labels, is_meant)
    return t.webhook_labels.insert().from_select(["webhook_id", "annotation_id"], wanting)


_NOTE_LABEL = noting(sa.bindparam("annotation_id", type_=t.Id))


def _hook(row: Sequence[Any]) -> Webhook:
    values = list(row)
    values[3] = tuple(msgspec.json.decode(values[3]))
    return Webhook(*values)


def add_webhook(tx: Tx, project_id: int | None, url: str, events: Sequence[str], salt: str, made_by: str, now: float) -> Webhook:
    """Insert a webhook."""
    row = {
        "project_id": project_id,
        "url": url,
        "events": msgspec.json.encode(list(events)).decode(),
        "has_labels": LABELS in events,
        "salt": salt,
        "made_by": made_by,
        "created_at": now,
    }
    return _hook(tx.execute(t.webhooks.insert().values(**row).returning(*_HOOK)).one())


def find_webhook(tx: Tx, project_id: int | None, webhook_id: int) -> Webhook:
    """Return a webhook of a project (None = of the whole app). Raises NotFoundError."""
    row = tx.execute(sa.select(*_HOOK).where(t.webhooks.c.id == webhook_id, _of(project_id))).first()
    if row is None:
        raise NotFoundError(f"there is no webhook number {webhook_id} here: see the list of webhooks")
    return _hook(row)


def webhook_by_id(tx: Tx, webhook_id: int) -> Webhook | None:
    """Return a webhook by its number alone."""
    row = tx.execute(sa.select(*_HOOK).where(t.webhooks.c.id == webhook_id)).first()
    return _hook(row) if row else None


def list_webhooks(tx: Tx, project_id: int | None) -> tuple[Webhook, ...]:
    """Return the webhooks of a project (None = of the whole app), oldest first."""
    return tuple(_hook(row) for row in tx.execute(sa.select(*_HOOK).where(_of(project_id)).order_by(t.webhooks.c.id)))


def _of(project_id: int | None) -> sa.ColumnElement[bool]:
    return t.webhooks.c.project_id.is_(None) if project_id is None else t.webhooks.c.project_id == project_id


def drop_webhook(tx: Tx, webhook_id: int) -> None:
    """Delete a webhook with all that it has not said yet."""
    for table in (t.webhook_labels, t.webhook_deliveries):
        tx.execute(table.delete().where(table.c.webhook_id == webhook_id))
    tx.execute(t.webhooks.delete().where(t.webhooks.c.id == webhook_id))


def set_salt(tx: Tx, webhook_id: int, salt: str) -> None:
    """Give a webhook another key."""
    tx.execute(t.webhooks.update().where(t.webhooks.c.id == webhook_id).values(salt=salt))


# ---------------------------------------------------------------- what is to be said


def announce(tx: Tx, project_id: int, kind: str, text: str, detail: Mapping[str, Any], at: float) -> None:
    """Queue what a project's event means for each webhook that asked for it; most kinds mean nothing."""
    event = EVENT_OF_KIND.get(kind)
    if event is None or (kind == "version" and "version" not in detail):  # the deed of a person; the version comes with its own
        return
    hooks = [hook for one in (project_id, None) for hook in list_webhooks(tx, one) if event in hook.events]
    if not hooks:
        return
    slug = tx.execute(sa.select(t.projects.c.slug).where(t.projects.c.id == project_id)).scalar_one()
    for hook in hooks:
        add_delivery(tx, hook.id, event, {"project": slug, "text": text, "detail": dict(detail)}, at)


def add_delivery(tx: Tx, webhook_id: int, event: str, data: Mapping[str, Any], now: float) -> str:
    """Queue one message; return its id."""
    uid = f"evt_{secrets.token_hex(12)}"
    payload = msgspec.json.encode({"id": uid, "event": event, "at": now, **data}).decode()
    row = {"webhook_id": webhook_id, "uid": uid, "event": event, "payload": payload, "state": WAITING, "attempts": 0}
    tx.execute(t.webhook_deliveries.insert().values(**row, next_at=now, reason="", created_at=now))
    return uid


def note_label(tx: Tx, project_id: int, annotation_id: int) -> None:
    """Note a saved label for the webhooks that want labels (one statement over a table of a few rows)."""
    tx.execute(_NOTE_LABEL, {"project": project_id, "annotation_id": annotation_id})


def hooks_with_labels(tx: Tx) -> list[int]:
    """Return the webhooks that have labels to tell of."""
    return list(tx.execute(sa.select(t.webhook_labels.c.webhook_id).distinct()).scalars())


def take_labels(tx: Tx, webhook_id: int, n: int) -> dict[str, list[dict[str, Any]]]:
    """Take out up to `n` noted labels, oldest first; return them by project."""
    numbers = list(
        tx.execute(
            sa.select(t.webhook_labels.c.annotation_id)
            .where(t.webhook_labels.c.webhook_id == webhook_id)
            .order_by(t.webhook_labels.c.annotation_id)
            .limit(n)
        ).scalars()
    )
    a = t.annotations.c
    names = ("revision", "labels", "value", "is_deleted", "draft_version", "is_corrected", "source", "created_at")
    query = (
        sa.select(t.projects.c.slug, t.items.c.item_id, t.users.c.name, *(a[name] for name in names))
        .select_from(
            t.annotations.join(t.items, t.items.c.id == a.item)
            .join(t.users, t.users.c.id == a.user_id)
            .join(t.projects, t.projects.c.id == a.project_id)
        )
        .where(a.id.in_(numbers))
        .order_by(a.id)
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for slug, item_id, person, *values in tx.execute(query):
        label = {"item_id": item_id, "annotator": person, **dict(zip(names, values, strict=True))}
        for name in ("labels", "value"):
            label[name] = msgspec.json.decode(label[name]) if label[name] else None
        found.setdefault(slug, []).append(label)
    gone = t.webhook_labels.c
    tx.execute(t.webhook_labels.delete().where(gone.webhook_id == webhook_id, gone.annotation_id.in_(numbers)))
    return found


# ---------------------------------------------------------------- on their way


def due_deliveries(tx: Tx, now: float, n: int) -> tuple[Delivery, ...]:
    """Return up to `n` messages whose time has come: the first of each webhook, then the second of each, and so on.

    So one with a long queue before a dead address leaves room for all others.
    """
    c = t.webhook_deliveries.c
    turn = sa.func.row_number().over(partition_by=c.webhook_id, order_by=(c.next_at, c.id)).label("turn")
    due = sa.select(*_DELIVERY, turn).where(c.state == WAITING, c.next_at <= now).subquery()
    query = sa.select(*(due.c[one.name] for one in _DELIVERY)).order_by(due.c.turn, due.c.next_at, due.c.id).limit(n)
    return tuple(Delivery(*row) for row in tx.execute(query))


def note_attempt(
    tx: Tx, delivery_id: int, state: int, attempts: int, next_at: float, status: int | None, reason: str, now: float
) -> None:
    """Write down how an attempt ended."""
    values = {"state": state, "attempts": attempts, "next_at": next_at, "status": status, "reason": reason[:500]}
    ended_at = None if state == WAITING else now
    query = t.webhook_deliveries.update().where(t.webhook_deliveries.c.id == delivery_id)
    tx.execute(query.values(**values, ended_at=ended_at))


def list_deliveries(tx: Tx, webhook_id: int, before: int, n: int) -> tuple[Delivery, ...]:
    """Return up to `n` messages of a webhook, newest first, with a number below `before` (0 = from the newest)."""
    c = t.webhook_deliveries.c
    query = sa.select(*_DELIVERY).where(c.webhook_id == webhook_id).order_by(c.id.desc()).limit(n)
    return tuple(Delivery(*row) for row in tx.execute(query.where(c.id < before) if before else query))


def send_again(tx: Tx, webhook_id: int, delivery_id: int, now: float) -> None:
    """Let a message go out again, with a new day to arrive in. Raises NotFoundError."""
    c = t.webhook_deliveries.c
    query = t.webhook_deliveries.update().where(c.webhook_id == webhook_id, c.id == delivery_id)
    values = {"state": WAITING, "attempts": 0, "next_at": now, "created_at": now, "status": None, "reason": "", "ended_at": None}
    if not tx.execute(query.values(**values)).rowcount:
        raise NotFoundError(f"this webhook has no delivery number {delivery_id}")


def drop_old_deliveries(tx: Tx, ended_before: float) -> int:
    """Delete messages that ended long ago; return how many."""
    c = t.webhook_deliveries.c
    return int(tx.execute(t.webhook_deliveries.delete().where(c.state != WAITING, c.ended_at < ended_before)).rowcount)
