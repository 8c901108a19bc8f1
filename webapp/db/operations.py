"""The operation log: who did what, when. Append-only, so that nobody can take a deed back by deleting its row.

Owns the table `operations`. A row is written in the transaction of the act it tells of; nothing changes or deletes one, and a
deleted project or account leaves its rows (they hold names, not keys). Must never hold a secret, nor one row a label. Called by
`webapp.db.events` (all that happens in a project), by the services of accounts, and by `webapp.admin`.
"""

from __future__ import annotations

import contextvars
import time

import msgspec
import sqlalchemy as sa

from webapp.db.engine import Tx
from webapp.db.tables import operations

KINDS = ("login", "account", "project", "settings", "people", "import", "export", "train", "version", "bulk", "webhook", "admin")
MOST_TEXT_CHARS = 500


class Operation(msgspec.Struct, frozen=True):
    """One deed. `person` '' = the app itself or somebody unknown; `project` is a slug, '' = of the whole app."""

    id: int
    at: float
    user_id: int | None
    person: str
    project: str
    kind: str
    text: str
    address: str


class Actor(msgspec.Struct, frozen=True):
    """Who does something, and from which network address ('' = not over the network)."""

    user_id: int | None = None
    person: str = ""
    address: str = ""


class Filter(msgspec.Struct, frozen=True):
    """Which rows to read; '' = any. `before` = only rows with a lower number (the keyset of the next page), 0 = from the newest."""

    person: str = ""
    project: str = ""
    kind: str = ""
    before: int = 0


_NOBODY = Actor()
_actor: contextvars.ContextVar[Actor] = contextvars.ContextVar("actor", default=_NOBODY)
_COLUMNS = [operations.c[field.name] for field in msgspec.structs.fields(Operation)]


def act_as(user_id: int | None, person: str, address: str) -> None:
    """Say who does what follows in this thread (each request says it anew); a process without requests needs not."""
    _actor.set(Actor(user_id, person, address))


def address_of(user_id: int) -> str:
    """Return the address that this request comes from when it is `user_id`'s, else ''."""
    who = _actor.get()
    return who.address if who.user_id == user_id else ""


def add_operation(tx: Tx, kind: str, text: str, project: str = "", by: Actor | None = None) -> None:
    """Write down one deed of `by`, by default of whoever this request is from."""
    who = by or _actor.get()
    values = {"user_id": who.user_id, "person": who.person, "address": who.address, "project": project, "kind": kind}
    tx.execute(operations.insert().values(**values, at=time.time(), text=text[:MOST_TEXT_CHARS]))


def read_operations(tx: Tx, wanted: Filter, n: int) -> tuple[Operation, ...]:
    """Return up to `n` rows, newest first."""
    query = sa.select(*_COLUMNS).order_by(operations.c.id.desc()).limit(n)
    for name in ("person", "project", "kind"):
        if value := getattr(wanted, name):
            query = query.where(operations.c[name] == value)
    if wanted.before:
        query = query.where(operations.c.id < wanted.before)
    return tuple(Operation(*row) for row in tx.execute(query))


def names_in(tx: Tx, column: str) -> tuple[str, ...]:
    """Return the values of `person` or `project` that occur, sorted (one index step each)."""
    found: list[str] = []
    query = sa.select(sa.func.min(operations.c[column])).where(operations.c[column] > sa.bindparam("last"))
    last = tx.execute(query, {"last": ""}).scalar()
    while last is not None:
        found.append(str(last))
        last = tx.execute(query, {"last": last}).scalar()
    return tuple(found)
