"""How a draft is kept: one short record an item, in blocks that follow the cluster's feature shards.

Owns the record's bytes and the columns that read it. A block holds the answers of one model version to up to some thousand items,
so that a new version rewrites a few hundred blobs and never a million rows; the head of the queue, scored first, has rows of its
own. The answer with the higher pointer wins, so a new model never blanks a draft. Record: float32 confidence, then the label's
number (uint16) for multiclass, or one bit a label for multilabel; a negative confidence = no answer.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa

from webapp.db.projects import Project
from webapp.db.tables import blocks, head_drafts, items


class Draft(msgspec.Struct, frozen=True):
    """A prediction to be shown: its labels, the version that made it and how sure it is."""

    labels: tuple[str, ...]
    version: str
    confidence: float


def record_dtype(is_multilabel: bool, n_labels: int) -> np.dtype[Any]:
    """Return the numpy dtype of one record."""
    if is_multilabel:
        return np.dtype([("confidence", "<f4"), ("labels", "u1", ((n_labels + 7) // 8,))])
    return np.dtype([("confidence", "<f4"), ("label", "<u2")])


def pack_answers(proba: np.ndarray, columns: np.ndarray, is_multilabel: bool, n_labels: int) -> np.ndarray:
    """Return one record a row of `proba`.

    `proba` (n, k) float32; `columns` (k,) int, the project's number of each column's label. A row without any probability (an item
    that failed) gets confidence -1. Multilabel: a label is in the draft from 0.5 on, and the confidence is that of the least sure
    label.
    """
    out = np.zeros(len(proba), record_dtype(is_multilabel, n_labels))
    if not len(proba):
        return out
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
    head = [head_drafts.c.version, head_drafts.c.pointer, head_drafts.c.labels, head_drafts.c.confidence]
    return [*head, blocks.c.version.label("block_version"), blocks.c.pointer.label("block_pointer"), record]


def join_drafts(source: sa.FromClause) -> sa.FromClause:
    """Return `source` (which has `items`) joined with the drafts there may be."""
    with_head = source.outerjoin(head_drafts, head_drafts.c.item == items.c.id)
    return with_head.outerjoin(blocks, blocks.c.id == items.c.block_id)


def read_draft(project: Project, columns: Any) -> Draft | None:
    """Return the newest draft in one row of `draft_columns`."""
    head_version, head_pointer, head_labels, head_confidence, version, pointer, record = columns
    if head_version is not None and (pointer is None or head_pointer >= pointer):
        return Draft(tuple(msgspec.json.decode(head_labels)), head_version, head_confidence)
    if not record or not version:
        return None
    dtype = record_dtype(project.is_multilabel, (len(record) - 4) * 8)
    found = unpack(np.frombuffer(record, dtype)[0], project.labels, project.is_multilabel)
    return Draft(found[0], version, found[1]) if found else None
