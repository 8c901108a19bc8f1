"""The order in which items shall be asked, as it was ranked: kept so that a lost queue can be rebuilt.

Owns the table `rankings` (one row a project: ids best first and the very scores that made the order). Called by the pilot, which
writes it, and by `webapp.labelling.order`, which fills the queue from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import sqlalchemy as sa

from webapp.db.engine import Tx
from webapp.db.items import UNSEEN
from webapp.db.tables import items, rankings


class Ranking(msgspec.Struct, frozen=True):
    """`scores` (n,) float32 belong to `item_ids`, falling. `generation` grows by one with each ranking of the project."""

    generation: int
    version: str
    strategy: str
    reason: str
    item_ids: tuple[str, ...]
    scores: np.ndarray


class RankingHead(msgspec.Struct, frozen=True):
    """A ranking without its items."""

    generation: int
    version: str
    strategy: str
    reason: str
    created_at: float


_HEAD = [rankings.c[n] for n in ("generation", "version", "strategy", "reason", "created_at")]


def save_ranking(
    tx: Tx, project_id: int, version: str, strategy: str, reason: str, item_ids: Sequence[str], scores: np.ndarray, now: float
) -> int:
    """Replace the project's ranking and return its generation."""
    head = ranking_head(tx, project_id)
    generation = head.generation + 1 if head else 1
    tx.execute(rankings.delete().where(rankings.c.project_id == project_id))
    tx.execute(
        rankings.insert().values(
            project_id=project_id,
            generation=generation,
            version=version,
            strategy=strategy,
            reason=reason,
            item_ids=msgspec.msgpack.encode(list(item_ids)),
            scores=np.ascontiguousarray(scores, "<f4").tobytes(),
            created_at=now,
        )
    )
    return generation


def ranking_head(tx: Tx, project_id: int) -> RankingHead | None:
    """Return what the project's ranking is, without its items."""
    row = tx.execute(sa.select(*_HEAD).where(rankings.c.project_id == project_id)).first()
    return RankingHead(*row) if row else None


def read_ranking(tx: Tx, project_id: int) -> Ranking | None:
    """Return the project's ranking."""
    query = sa.select(*_HEAD[:4], rankings.c.item_ids, rankings.c.scores).where(rankings.c.project_id == project_id)
    row = tx.execute(query).first()
    if row is None:
        return None
    ids = tuple(msgspec.msgpack.decode(row[4], type=list[str]))
    return Ranking(row[0], row[1], row[2], row[3], ids, np.frombuffer(row[5], "<f4"))


def still_free(tx: Tx, project_id: int, item_ids: Sequence[str]) -> set[str]:
    """Return which of the named items no person has labelled."""
    free: set[str] = set()
    for start in range(0, len(item_ids), 5000):
        query = sa.select(items.c.item_id).where(items.c.project_id == project_id, items.c.state.in_(UNSEEN))
        free.update(tx.execute(query.where(items.c.item_id.in_(item_ids[start : start + 5000]))).scalars())
    return free


def first_open(tx: Tx, project_id: int, n: int) -> list[str]:
    """Return the ids of the first `n` items that no person has labelled, by position; those that rules labelled come behind."""
    found: list[str] = []
    for state in UNSEEN:
        query = sa.select(items.c.item_id).where(items.c.project_id == project_id, items.c.state == state)
        found += tx.execute(query.order_by(items.c.position).limit(n - len(found))).scalars()
    return found
