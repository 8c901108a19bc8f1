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

from webapp.db.engine import Tx
from webapp.db.tables import tallies

TOTAL, VERSION, WINDOW, RULES = "total", "version", "window", "rules"
WINDOW_LABELS = 100
_STRIPES = 8
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
    stripe = 0 if tx.dialect.name == "sqlite" else secrets.randbelow(_STRIPES)
    keys = [(TOTAL, "")]
    if version:
        keys += [(VERSION, version)] + ([(WINDOW, str(window))] if window is not None else [])
    values = msgspec.structs.asdict(change)
    tx.execute(_ADD, [dict(project_id=project_id, kind=kind, key=key, stripe=stripe, **values) for kind, key in keys])


def add_ruled(tx: Tx, project_id: int, n: int) -> None:
    """Note that rules label `n` items more (or fewer): a number of its own, never one of people's."""
    if n:
        stripe = 0 if tx.dialect.name == "sqlite" else secrets.randbelow(_STRIPES)
        values = msgspec.structs.asdict(Tally(labels=n))
        tx.execute(_ADD, dict(project_id=project_id, kind=RULES, key="", stripe=stripe, **values))


def ruled(tx: Tx, project_id: int) -> int:
    """Return how many items carry a label that only rules gave."""
    return by_key(tx, project_id, RULES).get("", Tally()).labels
