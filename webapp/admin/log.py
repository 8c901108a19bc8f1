"""The operation log for those who may read it.

Must never change a row. Called by the API and the pages.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from labelloop.errors import InvalidInputError
from webapp.db import operations
from webapp.db.engine import Database
from webapp.db.operations import KINDS, Filter, Operation

_PAGE = 1000


def read_page(database: Database, wanted: Filter, n: int) -> tuple[Operation, ...]:
    """Return up to `n` rows, newest first. Raises InvalidInputError for a kind that does not exist."""
    if wanted.kind and wanted.kind not in KINDS:
        raise InvalidInputError(f"kind {wanted.kind!r}: use one of {', '.join(KINDS)}")
    with database.read() as tx:
        return operations.read_operations(tx, wanted, n)


def export(database: Database, wanted: Filter) -> Iterator[Operation]:
    """Return all rows, newest first, one page in memory at a time; that it was done is written down first."""
    rows = read_page(database, wanted, _PAGE)
    with database.write() as tx:
        operations.add_operation(tx, "export", "exported the operation log")
    return _pages(database, wanted, rows)


def _pages(database: Database, wanted: Filter, rows: tuple[Operation, ...]) -> Iterator[Operation]:
    while rows:
        yield from rows
        wanted = msgspec.structs.replace(wanted, before=rows[-1].id)
        rows = read_page(database, wanted, _PAGE)


def choices(database: Database) -> dict[str, tuple[str, ...]]:
    """Return the people and projects that occur, and all kinds."""
    with database.read() as tx:
        return {"person": operations.names_in(tx, "person"), "project": operations.names_in(tx, "project"), "kind": KINDS}
