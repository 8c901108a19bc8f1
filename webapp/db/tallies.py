"""Counts that are kept, never counted: items, labels, drafts shown and drafts corrected, in all, by version and by window.

Owns the table `tallies`. Each count is split into stripes so that annotators on PostgreSQL do not wait for one row. A window is the
next hundred labels that carried a draft. Called inside the transaction of the label itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from webapp.db.engine import Tx
from webapp.db.tables import tallies

TOTAL, VERSION, WINDOW, RULES = "total", "version", "window", "rules"
WINDOW_LABELS = 100
_STRIPES, _STRIPE = 8, "tally_stripe"
_ADD = sa.text(
    "INSERT INTO tallies (project_id, kind, key, stripe, items, labels, drafted, corrected, timed, seconds) "
    "VALUES (:project_id, :kind, :key, :stripe, :items, :labels, :drafted, :corrected, :timed, :seconds) "
    "ON CONFLICT (project_id, kind, key, stripe) DO UPDATE SET items = tallies.items + excluded.items, "
    "labels = tallies.labels + excluded.labels, drafted = tallies.drafted + excluded.drafted, "
    "corrected = tallies.corrected + excluded.corrected, timed = tallies.timed + excluded.timed, "
    "seconds = tallies.seconds + excluded.seconds"
)
_SUMS = [sa.func.sum(tallies.c[name]) for name in ("items", "labels", "drafted", "corrected", "timed", "seconds")]
_TOTAL = sa.select(*_SUMS).where(tallies.c.project_id == sa.bindparam("project_id"), tallies.c.kind == TOTAL)


class Tally(msgspec.Struct, frozen=True):
    """Counts of a project, a version or a window. `seconds` went into the `timed` labels whose time is known."""

    items: int = 0
    labels: int = 0
    drafted: int = 0
    corrected: int = 0
    timed: int = 0
    seconds: float = 0.0


def _tally(row: Sequence[Any]) -> Tally:
    counts = [int(value or 0) for value in row[:-1]]
    return msgspec.structs.replace(Tally(*counts), seconds=float(row[-1] or 0.0))


def total(tx: Tx, project_id: int) -> Tally:
    """Return the counts of the whole project."""
    row = tx.execute(_TOTAL, {"project_id": project_id}).one()
    return _tally(row)


def by_key(tx: Tx, project_id: int, kind: str) -> dict[str, Tally]:
    """Return the counts by version or by window number."""
    query = sa.select(tallies.c.key, *_SUMS).where(tallies.c.project_id == project_id, tallies.c.kind == kind)
    return {row[0]: _tally(row[1:]) for row in tx.execute(query.group_by(tallies.c.key))}


def add(tx: Tx, project_id: int, change: Tally, version: str = "", window: int | None = None) -> None:
    """Add `change` to the project's counts and, for a label that carried a draft, to those of its version and window."""
    stripe, values = _stripe(tx), msgspec.structs.asdict(change)
    rows = [dict(project_id=project_id, kind=kind, key=key, stripe=stripe, **values) for kind, key in _keys(version, window)]
    tx.execute(_ADD, rows)


def adding() -> sa.Insert:
    """Return the PostgreSQL statement that does what `add` does, to be part of a larger one; it binds what `binds` returns."""
    of = sa.func.unnest(_words("tally_kinds"), _words("tally_keys")).table_valued("kind", "key").render_derived()
    names = [column.name for column in tallies.c if column.name not in ("kind", "key")]
    given = [sa.bindparam(f"tally_{name}", type_=tallies.c[name].type) for name in names]
    new = postgresql.insert(tallies).from_select(["kind", "key", *names], sa.select(of.c.kind, of.c.key, *given))
    more = {name: tallies.c[name] + new.excluded[name] for name in Tally.__struct_fields__}
    return new.on_conflict_do_update(index_elements=["project_id", "kind", "key", "stripe"], set_=more)


def binds(tx: Tx, project_id: int, change: Tally, version: str = "", window: int | None = None) -> dict[str, object]:
    """Return the values of `adding`, from the arguments of `add`."""
    kinds, keys = zip(*_keys(version, window), strict=True)
    given = {"project_id": project_id, "stripe": _stripe(tx), "kinds": list(kinds), "keys": list(keys)}
    return {f"tally_{name}": value for name, value in (given | msgspec.structs.asdict(change)).items()}


def _stripe(tx: Tx) -> int:
    """Return this connection's stripe: one, so that two transactions that count twice never wait for each other in a circle."""
    return 0 if tx.dialect.name == "sqlite" else int(tx.info.setdefault(_STRIPE, secrets.randbelow(_STRIPES)))


def _words(name: str) -> sa.BindParameter[Sequence[str]]:
    return sa.bindparam(name, type_=postgresql.ARRAY(sa.Text))


def _keys(version: str, window: int | None) -> list[tuple[str, str]]:
    """Return kind and key of each count that a label goes into."""
    of_draft = [(VERSION, version)] + ([(WINDOW, str(window))] if window is not None else [])
    return [(TOTAL, "")] + (of_draft if version else [])


def add_ruled(tx: Tx, project_id: int, n: int) -> None:
    """Note that rules label `n` items more (or fewer): a number of its own, never one of people's."""
    if n:
        values = msgspec.structs.asdict(Tally(labels=n))
        tx.execute(_ADD, dict(project_id=project_id, kind=RULES, key="", stripe=_stripe(tx), **values))


def ruled(tx: Tx, project_id: int) -> int:
    """Return how many items carry a label that only rules gave."""
    return by_key(tx, project_id, RULES).get("", Tally()).labels
