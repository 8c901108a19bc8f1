"""Tables of other people's databases, read only: SELECT alone, along a key, never a whole table in memory.

Owns the connection, which lives as long as one import. Must never write, nor tell the URL or its password to anybody: errors name
the kind of database alone. Called by the reader of SQL sources.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from labelloop.errors import InvalidInputError, UnreachableError

_DIALECTS = ("sqlite", "postgresql")
CONNECT_S = 15


class ForeignTable:
    """One table. `names` are its columns, `key` the column along which it is read: unique and never null."""

    def __init__(self, link: sa.Connection, table: sa.Table, key: str) -> None:
        self._link = link
        self._table = table
        self.key = key
        self.names = tuple(column.name for column in table.columns)

    def count(self) -> int:
        """Return how many rows there are now."""
        return int(self._link.execute(sa.select(sa.func.count()).select_from(self._table)).scalar_one())

    def key_at(self, n: int) -> Any:
        """Return the key of the n-th row, from 1; the last one's where the table has become shorter."""
        column = self._table.c[self.key]
        found = self._link.execute(sa.select(column).order_by(column).offset(n - 1).limit(1)).scalar()
        return self._link.execute(sa.select(sa.func.max(column))).scalar() if found is None else found

    def rows_behind(self, after: Any, page: int) -> Iterator[tuple[Any, ...]]:
        """Yield the rows behind a key (None = all) in its order, from one query: a page at a time comes over, by a cursor that
        lives in the server, so that a view without an index is sorted once."""
        column = self._table.c[self.key]
        query = sa.select(self._table).order_by(column)
        query = query if after is None else query.where(column > after)
        with contextlib.closing(self._link.execute(query, execution_options={"yield_per": page})) as rows:
            yield from map(tuple, rows)


@contextlib.contextmanager
def open_table(url: str, name: str, key: str = "") -> Iterator[ForeignTable]:
    """Open a table, SCHEMA.NAME or NAME; `key` '' = its primary key. Raises InvalidInputError, UnreachableError."""
    dialect = url.partition(":")[0].partition("+")[0]
    if dialect == "postgres":
        url, dialect = f"postgresql{url.removeprefix('postgres')}", "postgresql"
    if dialect not in _DIALECTS:
        raise InvalidInputError(f"a source of kind {dialect[:20]!r}: use {' or '.join(_DIALECTS)}")
    if url.startswith("postgresql:"):
        url = f"postgresql+psycopg:{url.removeprefix('postgresql:')}"
    engine = None
    try:
        engine = _engine(url, dialect)
        with engine.connect() as link:
            _forbid_writing(link, dialect)
            yield _table(link, name, key)
    except (sa.exc.OperationalError, sa.exc.InterfaceError) as exc:
        raise UnreachableError(f"the {dialect} source does not answer, or does not let us read") from exc
    except (sa.exc.SQLAlchemyError, ValueError) as exc:
        raise InvalidInputError(f"the {dialect} source cannot be read: {type(exc).__name__}") from exc
    finally:
        if engine is not None:
            engine.dispose()


def _engine(url: str, dialect: str) -> sa.Engine:
    given: dict[str, Any] = {"connect_timeout": CONNECT_S} if dialect == "postgresql" else {"timeout": CONNECT_S}
    if dialect == "sqlite":
        path = sa.make_url(url).database or ""
        url, given["uri"] = f"sqlite:///file:{path}?mode=ro&uri=true", True
    return sa.create_engine(url, poolclass=sa.pool.NullPool, connect_args=given)


def _forbid_writing(link: sa.Connection, dialect: str) -> None:
    link.exec_driver_sql("PRAGMA query_only=ON" if dialect == "sqlite" else "SET default_transaction_read_only = on")
    link.commit()


def _table(link: sa.Connection, name: str, key: str) -> ForeignTable:
    schema, _, bare = name.rpartition(".")
    look = sa.inspect(link)
    known = [*look.get_table_names(schema or None), *look.get_view_names(schema or None)]
    if bare not in known:
        raise InvalidInputError(f"the source has no table {name[:80]!r}: it has {', '.join(sorted(known)[:20])}")
    table = sa.Table(bare, sa.MetaData(), schema=schema or None, autoload_with=link, resolve_fks=False)
    primary = [column.name for column in table.primary_key]
    chosen = key or (primary[0] if len(primary) == 1 else "")
    if chosen not in table.c:
        names = ", ".join(column.name for column in table.columns)
        raise InvalidInputError(f"no key column {chosen!r}: name a unique column that is never null; the table has {names[:500]}")
    return ForeignTable(link, table, chosen)
