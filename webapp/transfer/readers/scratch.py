"""Rows of a large document beside each other on disk: pictures in their order, and what is said of each, however it was scattered.

Owns one SQLite file beside the upload, made in one pass and kept until the import ends, so that a killed import need not read the
document again. Must never be the app's database. Called by the COCO reader.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

_SCHEMA = """
CREATE TABLE pictures (n INTEGER PRIMARY KEY, id TEXT, line INTEGER, body BLOB);
CREATE TABLE said (n INTEGER PRIMARY KEY, picture TEXT, line INTEGER, body BLOB);
CREATE TABLE heads (key TEXT PRIMARY KEY, body BLOB);
"""
_PRAGMAS = ("journal_mode=OFF", "synchronous=OFF", "cache_size=-16384", "locking_mode=EXCLUSIVE")
BATCH = 2000


class Scratch:
    """The file, whole; `n` counts from 1."""

    def __init__(self, path: Path) -> None:
        self._link = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._link.close()

    def pictures(self, after: int) -> Iterator[tuple[int, int, bytes, list[tuple[int, bytes]]]]:
        """Yield (n, line, body, [(line, body) said of it]) behind a place."""
        found = self._link.execute("SELECT n, id, line, body FROM pictures WHERE n > ? ORDER BY n", (after,))
        for n, name, line, body in found:
            yield n, line, body, self._link.execute("SELECT line, body FROM said WHERE picture = ? ORDER BY n", (name,)).fetchall()

    def strays(self, after: int) -> Iterator[tuple[int, int, bytes]]:
        """Yield (n, line, body) of what is said of no picture, behind a place."""
        query = "SELECT n, line, body FROM said WHERE n > ? AND picture NOT IN (SELECT id FROM pictures) ORDER BY n"
        yield from self._link.execute(query, (after,))

    def twins(self) -> set[int]:
        """Return the places of pictures whose id another one before has."""
        query = "SELECT n FROM pictures p WHERE EXISTS (SELECT 1 FROM pictures q WHERE q.id = p.id AND q.n < p.n) LIMIT 10000"
        return {row[0] for row in self._link.execute(query)}

    def head(self, key: str) -> bytes | None:
        """Return what was kept under a key."""
        row = self._link.execute("SELECT body FROM heads WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def counts(self) -> tuple[int, int]:
        """Return how many pictures and how many things said there are."""
        row = self._link.execute("SELECT (SELECT count(*) FROM pictures), (SELECT count(*) FROM said)").fetchone()
        return int(row[0]), int(row[1])


def make_scratch(path: Path, told: Iterable[tuple[str, tuple[Any, ...]]]) -> Scratch:
    """Return the scratch at `path`, made from `told` unless it is there: ('pictures', (id, line, body)), ('said', (picture, line,
    body)), ('heads', (key, body))."""
    if path.exists():
        return Scratch(path)
    beside = path.with_name(f"{path.name}.part")
    beside.unlink(missing_ok=True)
    link = sqlite3.connect(beside, isolation_level=None)
    try:
        for pragma in _PRAGMAS:
            link.execute(f"PRAGMA {pragma}").close()
        link.executescript(_SCHEMA)
        link.execute("BEGIN")
        _fill(link, told)
        link.execute("CREATE INDEX of_picture ON said (picture, n)")
        link.execute("CREATE INDEX of_id ON pictures (id, n)")
        link.execute("COMMIT")
    finally:
        link.close()
    beside.rename(path)
    return Scratch(path)


_INSERTS = {
    "pictures": "INSERT INTO pictures (id, line, body) VALUES (?, ?, ?)",
    "said": "INSERT INTO said (picture, line, body) VALUES (?, ?, ?)",
    "heads": "INSERT OR IGNORE INTO heads (key, body) VALUES (?, ?)",
}


def _fill(link: sqlite3.Connection, told: Iterable[tuple[str, tuple[Any, ...]]]) -> None:
    waiting: dict[str, list[tuple[Any, ...]]] = {table: [] for table in _INSERTS}
    for table, row in told:
        rows = waiting[table]
        rows.append(row)
        if len(rows) >= BATCH:
            link.executemany(_INSERTS[table], rows)
            rows.clear()
    for table, rows in waiting.items():
        link.executemany(_INSERTS[table], rows)
