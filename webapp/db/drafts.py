"""How a draft is kept: one short record an item, in blocks that follow the cluster's feature shards.

Owns the record's bytes and the columns that read it. A block holds the answers of one model version to up to some thousand items,
so that a new version rewrites a few hundred blobs and never a million rows; the head of the queue, scored first, has rows of its
own, and so have all drafts that say more than labels and those that came with an import (pointer 0). The answer with the higher
pointer wins, so a new model never blanks a draft. Record: float32 confidence, then the label's
number (uint16) for multiclass, or one bit a label for multilabel; a negative confidence = no answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa

from webapp.db.engine import Tx
from webapp.db.projects import Project
from webapp.db.tables import blocks, head_drafts, items


class Draft(msgspec.Struct, frozen=True):
    """A prediction to be shown: its labels, the version that made it and how sure it is; `value` is what it says beside the labels,
    as JSON. `is_of_model`: the project's own model made it, so the confidence of several labels is that of the least sure of them;
    False = rules did, or it came with an import."""

    labels: tuple[str, ...]
    version: str
    confidence: float
    value: str | None = None
    is_of_model: bool = True


def record_dtype(is_multilabel: bool, n_labels: int) -> np.dtype[Any]:
    """Return the numpy dtype of one record."""
    if is_multilabel:
        return np.dtype([("confidence", "<f4"), ("labels", "u1", ((n_labels + 7) // 8,))])
    return np.dtype([("confidence", "<f4"), ("label", "<u2")])


def pack_answers(proba: np.ndarray, columns: np.ndarray, is_multilabel: bool, n_labels: int) -> np.ndarray:
    """Return one record a row of `proba`.

    `proba` (n, k) float32; `columns` (k,) int, the project's number of each column's label: two may share one, labels that were
    merged since the version was trained, and their probabilities add up (for multilabel the higher one holds). A row without
    any probability (an item that failed) gets confidence -1. Multilabel: a label is in the draft from 0.5 on, and the confidence is
    that of the least sure label.
    """
    out = np.zeros(len(proba), record_dtype(is_multilabel, n_labels))
    if not len(proba):
        return out
    if len(set(columns.tolist())) < len(columns):
        proba, columns = _fold(proba, columns, is_multilabel)
    if is_multilabel:
        bits = np.zeros((len(proba), n_labels), np.uint8)
        bits[:, columns] = proba >= 0.5
        out["labels"] = np.packbits(bits, axis=1, bitorder="little")
        out["confidence"] = np.where(proba.any(axis=1), np.abs(proba - 0.5).min(axis=1) + 0.5, -1.0)
    else:
        best = proba.argmax(axis=1)
        out["label"] = columns[best]
        out["confidence"] = np.where(proba.any(axis=1), proba[np.arange(len(proba)), best], -1.0)
    return out


def _fold(proba: np.ndarray, columns: np.ndarray, is_multilabel: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix with one column a number."""
    numbers, at = np.unique(columns, return_inverse=True)
    out = np.zeros((len(proba), len(numbers)), proba.dtype)
    together = np.maximum if is_multilabel else np.add
    for column, number in enumerate(at):
        out[:, number] = together(out[:, number], proba[:, column])
    return out, numbers


def empty_answers(n_items: int, is_multilabel: bool, n_labels: int) -> np.ndarray:
    """Return `n_items` records that say "no answer"."""
    out = np.zeros(n_items, record_dtype(is_multilabel, n_labels))
    out["confidence"] = -1.0
    return out


def unpack(record: np.void, labels: tuple[str, ...], is_multilabel: bool) -> tuple[tuple[str, ...], float] | None:
    """Return the labels and confidence of one record, None for no answer."""
    confidence = float(record["confidence"])
    if confidence < 0:
        return None
    if not is_multilabel:
        return (labels[int(record["label"])],), confidence
    bits = np.unpackbits(np.asarray(record["labels"]), bitorder="little")[: len(labels)]
    return tuple(label for label, bit in zip(labels, bits, strict=False) if bit), confidence


def draft_columns() -> list[sa.ColumnElement[Any]]:
    """Return the columns that `read_draft` wants, for a query over `items` joined by `join_drafts`."""
    width = blocks.c.record_bytes
    record = sa.func.substr(blocks.c.answers, items.c.block_row * width + 1, width, type_=sa.LargeBinary())
    head = [head_drafts.c[name] for name in ("version", "pointer", "labels", "confidence", "value")]
    return [*head, blocks.c.version.label("block_version"), blocks.c.pointer.label("block_pointer"), record]


def join_drafts(source: sa.FromClause) -> sa.FromClause:
    """Return `source` (which has `items`) joined with the drafts there may be."""
    with_head = source.outerjoin(head_drafts, head_drafts.c.item == items.c.id)
    return with_head.outerjoin(blocks, blocks.c.id == items.c.block_id)


def read_draft(project: Project, columns: Any) -> Draft | None:
    """Return the newest draft in one row of `draft_columns`, its labels as they are called now.

    Where its block says "no answer", that is the older one of its own row.
    """
    head_version, head_pointer, head_labels, head_confidence, head_value, version, pointer, record = columns
    if record and version and (head_version is None or head_pointer < pointer):
        dtype = record_dtype(project.is_multilabel, (len(record) - 4) * 8)
        found = unpack(np.frombuffer(record, dtype)[0], project.numbered, project.is_multilabel)
        if found is not None:
            return Draft(project.current(found[0]), version, found[1])
    if head_version is None:
        return None
    labels, more = project.current(msgspec.json.decode(head_labels)), project.current_more(head_value)
    return Draft(labels, head_version, head_confidence, more, head_pointer > 0)


def read_block(tx: Tx, project: Project, block_id: int, rows: Sequence[int]) -> tuple[int, list[Draft | None]]:
    """Return the pointer of a block and what it says of its items in some of its rows, None = nothing; -1 for a block that is gone.

    For whoever reads many items of a block at once: its blob is fetched once, and not cut out anew for each item.
    """
    columns = (blocks.c.pointer, blocks.c.version, blocks.c.record_bytes, blocks.c.answers)
    found = tx.execute(sa.select(*columns).where(blocks.c.id == block_id)).first()
    if found is None or not found.version:
        return -1, [None] * len(rows)
    records = np.frombuffer(found.answers, record_dtype(project.is_multilabel, (found.record_bytes - 4) * 8))
    said = [unpack(records[row], project.numbered, project.is_multilabel) if row < len(records) else None for row in rows]
    return found.pointer, [Draft(project.current(one[0]), found.version, one[1]) if one else None for one in said]
