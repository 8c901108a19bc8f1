"""Invitations and links for a new password in the database.

Owns the table `tickets`. Must never see a code in the clear: hashes come in, hashes are compared. Called by
`webapp.accounts.tickets`.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import sqlalchemy as sa

from webapp.db.engine import Tx
from webapp.db.tables import projects, tickets

Kind = Literal["invitation", "reset"]


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """One code that is good for a while: an invitation (`project` '' = to the app alone) or a new password for `user_id`."""

    id: int
    kind: Kind
    user_id: int | None
    project_id: int | None
    project: str
    role: str
    made_by: str
    uses_left: int
    created_at: float
    expires_at: float


_TICKET = sa.select(
    tickets.c.id,
    tickets.c.kind,
    tickets.c.user_id,
    tickets.c.project_id,
    sa.func.coalesce(projects.c.slug, "").label("project"),
    tickets.c.role,
    tickets.c.made_by,
    tickets.c.uses_left,
    tickets.c.created_at,
    tickets.c.expires_at,
).outerjoin_from(tickets, projects, tickets.c.project_id == projects.c.id)


def add_ticket(
    tx: Tx,
    kind: Kind,
    code_hash: str,
    made_by: str,
    now: float,
    expires_at: float,
    uses: int = 1,
    user_id: int | None = None,
    project_id: int | None = None,
    role: str = "",
) -> Ticket:
    """Store the hash of a new code; an earlier link for a new password of the same account ends."""
    if user_id is not None:
        tx.execute(tickets.delete().where(tickets.c.user_id == user_id, tickets.c.kind == kind))
    row = tickets.insert().values(
        kind=kind,
        hash=code_hash,
        user_id=user_id,
        project_id=project_id,
        role=role,
        made_by=made_by,
        uses_left=uses,
        created_at=now,
        expires_at=expires_at,
    )
    number = tx.execute(row.returning(tickets.c.id)).scalar_one()
    return _one(tx, tickets.c.id == number)


def _one(tx: Tx, *where: sa.ColumnElement[bool]) -> Ticket:
    return Ticket(**tx.execute(_TICKET.where(*where)).mappings().one())


def find_ticket(tx: Tx, kind: Kind, code_hash: str, now: float) -> Ticket | None:
    """Return the code with this hash while it is good."""
    query = _TICKET.where(tickets.c.kind == kind, tickets.c.hash == code_hash, tickets.c.expires_at > now, tickets.c.uses_left > 0)
    row = tx.execute(query).mappings().first()
    return Ticket(**row) if row else None


def spend_ticket(tx: Tx, ticket_id: int) -> bool:
    """Use a code once; False when another was quicker with its last use."""
    used = tickets.update().where(tickets.c.id == ticket_id, tickets.c.uses_left > 0).values(uses_left=tickets.c.uses_left - 1)
    return bool(tx.execute(used).rowcount)


def list_invitations(tx: Tx, now: float, project_id: int | None = None) -> tuple[Ticket, ...]:
    """Return the invitations that are good, newest first; of one project, or all."""
    query = _TICKET.where(tickets.c.kind == "invitation", tickets.c.expires_at > now, tickets.c.uses_left > 0)
    if project_id is not None:
        query = query.where(tickets.c.project_id == project_id)
    return tuple(Ticket(**row) for row in tx.execute(query.order_by(tickets.c.id.desc())).mappings())


def find_invitation(tx: Tx, ticket_id: int) -> Ticket | None:
    """Return an invitation by its number, good or not."""
    row = tx.execute(_TICKET.where(tickets.c.id == ticket_id, tickets.c.kind == "invitation")).mappings().first()
    return Ticket(**row) if row else None


def drop_ticket(tx: Tx, ticket_id: int) -> None:
    """Take a code back."""
    tx.execute(tickets.delete().where(tickets.c.id == ticket_id))


def drop_stale(tx: Tx, now: float) -> None:
    """Delete codes that are good for nothing any more."""
    tx.execute(tickets.delete().where(sa.or_(tickets.c.expires_at <= now, tickets.c.uses_left <= 0)))
