"""Which annotation of Label Studio became which of ours.

Owns the table `label_studio_annotations`: Label Studio names a deleted annotation by its number alone. Called by
`webapp.labelstudio.service` inside a write transaction.
"""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from webapp.db.engine import Tx
from webapp.db.tables import items
from webapp.db.tables import label_studio_annotations as links


class Link(msgspec.Struct, frozen=True):
    """One annotation there, and here the item it is of and the newest revision it made. `updated_at`: their clock."""

    item_id: str
    annotation_id: int
    updated_at: float


def find_link(tx: Tx, project_id: int, number: int) -> Link | None:
    """Return what their annotation `number` became, None when it is not known."""
    query = sa.select(links.c.item_id, links.c.annotation_id, links.c.updated_at)
    row = tx.execute(query.where(links.c.project_id == project_id, links.c.number == number)).first()
    return Link(*row) if row else None


def keep_link(tx: Tx, project_id: int, number: int, link: Link) -> None:
    """Write down, or over, what their annotation `number` became."""
    drop_link(tx, project_id, number)
    tx.execute(links.insert().values(project_id=project_id, number=number, **msgspec.structs.asdict(link)))


def drop_link(tx: Tx, project_id: int, number: int) -> None:
    """Forget their annotation `number`."""
    tx.execute(links.delete().where(links.c.project_id == project_id, links.c.number == number))


def current_annotation(tx: Tx, project_id: int, item_id: str) -> int | None:
    """Return the number of the annotation that is an item's label now, None when it has none."""
    query = sa.select(items.c.annotation_id).where(items.c.project_id == project_id, items.c.item_id == item_id)
    return tx.execute(query).scalar()
