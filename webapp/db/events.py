"""What happened in a project, in sentences: the audit trail and the feed of the live page.

Owns the table `events`. What a person did goes into the operation log too, and what webhooks tell of into theirs, in the same
transaction. Must never hold one row a label: labels are in `annotations`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from webapp.db import operations, webhooks
from webapp.db.engine import Tx
from webapp.db.tables import events, projects, users

_OPERATIONS = {"rules": "bulk"}  # kind of an event → kind of the operation, where they differ


class Event(msgspec.Struct, frozen=True):
    """One thing that happened; `id` rises, so a reader goes on from the last one seen."""

    id: int
    at: float
    kind: str
    text: str
    detail: dict[str, Any]


def add_event(
    tx: Tx, project_id: int, kind: str, text: str, user_id: int | None, at: float, detail: Mapping[str, Any] | None = None
) -> None:
    """Record one event."""
    values = {"project_id": project_id, "user_id": user_id, "at": at, "kind": kind, "text": text}
    tx.execute(events.insert().values(**values, detail=msgspec.json.encode(detail or {}).decode()))
    webhooks.announce(tx, project_id, kind, text, detail or {}, at)
    if user_id is not None:
        _log(tx, project_id, kind, text, user_id)


def _log(tx: Tx, project_id: int, kind: str, text: str, user_id: int) -> None:
    person = tx.execute(sa.select(users.c.name).where(users.c.id == user_id)).scalar() or ""
    slug = tx.execute(sa.select(projects.c.slug).where(projects.c.id == project_id)).scalar() or ""
    named = _OPERATIONS.get(kind, kind)
    address = operations.address_of(user_id)
    by = operations.Actor(user_id, person, address)
    operations.add_operation(tx, named if named in operations.KINDS else "bulk", text, slug, by)


def events_after(tx: Tx, project_id: int, after: int, n: int) -> tuple[Event, ...]:
    """Return up to `n` events behind number `after`, oldest first; `after` < 0 = the newest `n`."""
    columns = [events.c[name] for name in ("id", "at", "kind", "text", "detail")]
    query = sa.select(*columns).where(events.c.project_id == project_id)
    if after < 0:
        rows = tx.execute(query.order_by(events.c.id.desc()).limit(n)).all()[::-1]
    else:
        rows = list(tx.execute(query.where(events.c.id > after).order_by(events.c.id).limit(n)).all())
    return tuple(Event(row[0], row[1], row[2], row[3], msgspec.json.decode(row[4])) for row in rows)


def events_of_kind(tx: Tx, project_id: int, kind: str, n: int) -> tuple[Event, ...]:
    """Return the newest `n` events of one kind, newest first."""
    columns = [events.c[name] for name in ("id", "at", "kind", "text", "detail")]
    query = sa.select(*columns).where(events.c.project_id == project_id, events.c.kind == kind)
    rows = tx.execute(query.order_by(events.c.id.desc()).limit(n))
    return tuple(Event(row[0], row[1], row[2], row[3], msgspec.json.decode(row[4])) for row in rows)
