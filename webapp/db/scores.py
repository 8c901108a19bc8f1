"""How far the pilot is with a project: which items are in blocks, and which version their drafts are from.

Owns the table `scoring` and writes `blocks`, `head_drafts` and the place of an item in its block. Called by the pilot, read by the
status page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from labelloop.decoding import decode_json
from webapp.db.engine import Tx
from webapp.db.items import STORED, UNSEEN, NewDraft, StoredItem, draft_row
from webapp.db.tables import blocks, head_drafts, items, scoring


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """The pilot's memory of a project. Items up to `position` are in blocks; the drafts of all blocks are from `version` (at
    `pointer`). `is_ordered`: the queue stands in the order of that version, made from `ranked_items` items by `strategy` with
    `parameters`; `problem` says why another had to stand in for it."""

    position: int = -1
    pointer: int = 0
    version: str = ""
    is_ordered: bool = False
    ranked_items: int = 0
    strategy: str = ""
    parameters: dict[str, Any] = {}
    problem: str = ""


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
    return decode_json(Scored, text) if text else Scored()


def change_scored(tx: Tx, project_id: int, **changes: object) -> Scored:
    """Change some fields of the pilot's memory of a project."""
    scored = msgspec.structs.replace(read_scored(tx, project_id), **changes)
    values = {"position": scored.position, "pointer": scored.pointer, "state": msgspec.json.encode(scored).decode()}
    if not tx.execute(scoring.update().where(scoring.c.project_id == project_id).values(**values)).rowcount:
        tx.execute(scoring.insert().values(project_id=project_id, **values))
    return scored


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


def _upsert_head(dialect: Any) -> Any:
    statement = dialect.insert(head_drafts)
    fields = ("version", "pointer", "labels", "confidence", "value")
    return statement.on_conflict_do_update(
        index_elements=[head_drafts.c.item],
        set_={name: statement.excluded[name] for name in fields},
        where=head_drafts.c.pointer <= statement.excluded.pointer,
    )


_UPSERT_HEAD = {"sqlite": _upsert_head(sqlite), "postgresql": _upsert_head(postgresql)}


def save_head(tx: Tx, project_id: int, pointer: int, drafts: Sequence[tuple[int, NewDraft]]) -> None:
    """Store drafts of single items, by number: ahead of their blocks, or for good where they say more than labels; newer stay."""
    if drafts:
        tx.execute(_UPSERT_HEAD[tx.dialect.name], [draft_row(project_id, number, one, pointer) for number, one in drafts])


def drop_head_before(tx: Tx, project_id: int, pointer: int) -> None:
    """Forget drafts of single items that the blocks have by now; those that came with an import (pointer 0) stay behind them."""
    mine = sa.and_(head_drafts.c.project_id == project_id, head_drafts.c.pointer.between(1, pointer))
    tx.execute(head_drafts.delete().where(mine))


def unbind_shards(tx: Tx, block_ids: Sequence[int]) -> None:
    """Note that the cluster does not have the shards of these blocks: their items must be embedded again."""
    tx.execute(blocks.update().where(blocks.c.id.in_(block_ids)).values(shard=""))


def drop_block(tx: Tx, block_id: int) -> None:
    """Delete a block whose items have moved to others; one that has not keeps no draft."""
    tx.execute(items.update().where(items.c.block_id == block_id).values(block_id=None, block_row=None))
    tx.execute(blocks.delete().where(blocks.c.id == block_id))


def n_in_blocks(tx: Tx, project_id: int) -> int:
    """Return how many items are in the blocks of a project (a sum over blocks, some thousands for a million items)."""
    return int(
        tx.execute(
            sa.select(sa.func.coalesce(sa.func.sum(blocks.c.n_items), 0)).where(blocks.c.project_id == project_id)
        ).scalar_one()
    )


def n_unbound(tx: Tx, project_id: int) -> int:
    """Return how many blocks of a project have no shard."""
    query = sa.select(sa.func.count()).where(blocks.c.project_id == project_id, blocks.c.shard == "")
    return int(tx.execute(query).scalar_one())


def open_items_of(tx: Tx, numbers: Sequence[int]) -> list[StoredItem]:
    """Return those that no person has labelled among items known by number."""
    found: list[StoredItem] = []
    for start in range(0, len(numbers), 5000):
        part = [int(number) for number in numbers[start : start + 5000]]
        rows = tx.execute(sa.select(*STORED).where(items.c.id.in_(part), items.c.state.in_(UNSEEN)))
        found += [StoredItem(*row) for row in rows]
    return found
