"""How far the pilot is with a project: which items are in blocks, and which version their drafts are from.

Owns the table `scoring` and writes `blocks`, `head_drafts` and the place of an item in its block. Called by the pilot, read by the
status page.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import sqlalchemy as sa

from webapp.db.engine import Tx
from webapp.db.tables import blocks, head_drafts, items, scoring


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """The pilot's memory of a project. Items up to `position` are in blocks; the drafts of all blocks are from `version`
    (at `pointer`); `job` is the cluster's job over the whole pool behind them. `is_ordered`: the queue was ranked from that job.
    `ranked_blocks` and `ranked_strategy` are what the ranking was made from."""

    position: int = -1
    pointer: int = 0
    version: str = ""
    job: str = ""
    is_ordered: bool = False
    ranked_items: int = 0
    ranked_strategy: str = ""
    ranked_labels: int = 0


class Block(msgspec.Struct, frozen=True):
    """Some items whose drafts are kept together. `shard` is the cluster's feature shard of exactly these rows in this order, '' =
    none."""

    id: int
    shard: str
    numbers: np.ndarray
    version: str
    pointer: int


def read_scored(tx: Tx, project_id: int) -> Scored:
    """Return the pilot's memory of a project."""
    text = tx.execute(sa.select(scoring.c.state).where(scoring.c.project_id == project_id)).scalar()
    return msgspec.json.decode(text, type=Scored) if text else Scored()


def save_scored(tx: Tx, project_id: int, scored: Scored) -> None:
    """Replace the pilot's memory of a project."""
    values = {"position": scored.position, "pointer": scored.pointer, "state": msgspec.json.encode(scored).decode()}
    if not tx.execute(scoring.update().where(scoring.c.project_id == project_id).values(**values)).rowcount:
        tx.execute(scoring.insert().values(project_id=project_id, **values))


def add_block(tx: Tx, project_id: int, shard: str, numbers: Sequence[int], version: str, pointer: int, answers: np.ndarray) -> int:
    """Store a block of items and tell each its place in it."""
    values: dict[str, object] = {
        "shard": shard,
        "n_items": len(numbers),
        "item_numbers": np.asarray(numbers, "<i8").tobytes(),
        "version": version,
    }
    values |= {"record_bytes": answers.itemsize, "answers": answers.tobytes()}
    statement = blocks.insert().values(project_id=project_id, pointer=pointer, **values)
    block = int(tx.execute(statement.returning(blocks.c.id)).scalar_one())
    place = items.update().where(items.c.id == sa.bindparam("number")).values(block_id=block, block_row=sa.bindparam("row"))
    tx.execute(place, [{"number": int(number), "row": row} for row, number in enumerate(numbers)])
    return block


def list_blocks(tx: Tx, project_id: int) -> list[Block]:
    """Return the blocks of a project without their answers, in the order they were made."""
    columns = [blocks.c[n] for n in ("id", "shard", "item_numbers", "version", "pointer")]
    rows = tx.execute(sa.select(*columns).where(blocks.c.project_id == project_id).order_by(blocks.c.id))
    return [Block(row[0], row[1], np.frombuffer(row[2], "<i8"), row[3], row[4]) for row in rows]


def save_answers(tx: Tx, block_id: int, version: str, pointer: int, answers: np.ndarray) -> None:
    """Replace the drafts of a block, unless newer ones are there."""
    newer = blocks.update().where(blocks.c.id == block_id, blocks.c.pointer <= pointer)
    tx.execute(newer.values(version=version, pointer=pointer, record_bytes=answers.itemsize, answers=answers.tobytes()))


def save_head(tx: Tx, project_id: int, version: str, pointer: int, drafts: Sequence[tuple[int, tuple[str, ...], float]]) -> None:
    """Store drafts of single items (number, labels, confidence) ahead of their blocks."""
    numbers = [number for number, _, _ in drafts]
    if not numbers:
        return
    tx.execute(head_drafts.delete().where(head_drafts.c.item.in_(numbers)))
    fixed = {"project_id": project_id, "version": version, "pointer": pointer}
    rows = [{"item": n, "labels": msgspec.json.encode(labels).decode(), "confidence": c, **fixed} for n, labels, c in drafts]
    tx.execute(head_drafts.insert(), rows)


def drop_head_before(tx: Tx, project_id: int, pointer: int) -> None:
    """Forget drafts of single items that the blocks have by now."""
    tx.execute(head_drafts.delete().where(head_drafts.c.project_id == project_id, head_drafts.c.pointer <= pointer))
