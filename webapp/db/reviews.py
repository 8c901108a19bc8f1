"""Reviews: labels that a reviewer shall look at, who looks at them now, and everything that reviewers did.

Owns the tables `reviews` (one row an item: the last question about it) and `review_steps` (the history, only ever added to). Must
never write a label. Called by `webapp.people` inside write transactions.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from webapp.db import leases
from webapp.db import tables as t
from webapp.db.engine import Tx
from webapp.db.leases import Leased
from webapp.db.projects import Project
from webapp.kinds.values import Value, decode_more, encode_more

WAITING, BACK, ACCEPTED, CORRECTED = "waiting", "returned", "accepted", "corrected"
REASONS = ("dispute", "corrections", "share", "all", "returned", "left", "asked")
_V, _S = t.reviews.c, t.review_steps.c


class Review(msgspec.Struct, frozen=True):
    """The last question about an item's label. `author_id` None = several people said it; `labels`, `value`: what was said."""

    item: int
    state: str
    reason: str
    author_id: int | None
    labels: tuple[str, ...]
    value: str | None
    agreement: float | None
    lease_id: str | None
    holder_id: int | None
    expires_at: float | None
    at: float

    @property
    def said(self) -> Value:
        """Return the value that is asked about."""
        return decode_more(self.labels, self.value)


class Step(msgspec.Struct, frozen=True):
    """What a reviewer did: accept, correct, return or reopen."""

    by: str
    action: str
    said: Value
    comment: str
    at: float


_REVIEW = [_V[f.name] for f in msgspec.structs.fields(Review)]


def _review(project: Project, row: Any) -> Review:
    """Return one row of `reviews`, its labels as they are called now."""
    values = list(row)
    said = project.read_value(values[4], values[5])
    values[4:6] = said.labels, encode_more(said)
    return Review(*values)


def _text(labels: Sequence[str]) -> str:
    return msgspec.json.encode(list(labels)).decode()


def ask(
    tx: Tx, project_id: int, item: int, reason: str, author_id: int | None, said: Value, agreement: float | None, now: float
) -> None:
    """Put a label before the reviewers, in place of an older question about the item."""
    values: dict[str, Any] = {"state": WAITING, "reason": reason, "author_id": author_id, "agreement": agreement, "at": now}
    values |= {"labels": _text(said.labels), "value": encode_more(said), "lease_id": None, "holder_id": None, "expires_at": None}
    if not tx.execute(t.reviews.update().where(_V.item == item).values(**values)).rowcount:
        tx.execute(t.reviews.insert().values(item=item, project_id=project_id, **values))


def hold_review(tx: Tx, project: Project, item: int) -> Review | None:
    """Lock the question about an item and return it."""
    query = sa.select(*_REVIEW).where(_V.item == item)
    row = tx.execute(query.with_for_update() if tx.dialect.name == "postgresql" else query).first()
    return _review(project, row) if row else None


def is_decided(tx: Tx, item: int) -> bool:
    """Return whether a reviewer has accepted or corrected the item's label."""
    return tx.execute(sa.select(_V.state).where(_V.item == item)).scalar() in (ACCEPTED, CORRECTED)


def drop_question(tx: Tx, item: int, states: Sequence[str] = (WAITING,)) -> None:
    """Forget a question in one of these states, that nobody has answered: what it was about has changed."""
    tx.execute(t.reviews.delete().where(_V.item == item, _V.state.in_(list(states))))


def change_review(tx: Tx, item: int, **values: object) -> None:
    """Set columns of a question."""
    tx.execute(t.reviews.update().where(_V.item == item).values(**values))


def release_of(tx: Tx, project_id: int, user_id: int) -> None:
    """Let others review what `user_id` has in hand."""
    mine = (_V.project_id == project_id, _V.holder_id == user_id)
    tx.execute(t.reviews.update().where(*mine).values(lease_id=None, holder_id=None, expires_at=None))


def take(
    tx: Tx, project: Project, user_id: int, n: int, now: float, lease_s: float, reason: str, holding: Sequence[str]
) -> list[tuple[Leased, Review]]:
    """Lease up to `n` waiting questions, the oldest first: never about a label that `user_id` gave alone."""
    source = leases.join_shown(t.reviews.join(t.items, t.items.c.id == _V.item))
    is_free = sa.or_(_V.expires_at.is_(None), _V.expires_at <= now, _V.holder_id == user_id)
    query = sa.select(*_REVIEW, *leases.item_columns()).select_from(source)
    query = query.where(_V.project_id == project.id, _V.state == WAITING, is_free, t.items.c.item_id.not_in(list(holding)))
    query = query.where(sa.or_(_V.author_id.is_(None), _V.author_id != user_id))
    if reason:
        query = query.where(_V.reason == reason)
    rows = tx.execute(query.order_by(_V.at, _V.item).limit(n).with_for_update(of=t.reviews, skip_locked=True)).all()
    return [_lease(tx, project, user_id, row, now + lease_s) for row in rows]


def take_one(tx: Tx, project: Project, user_id: int, item: int, expires_at: float) -> list[tuple[Leased, Review]]:
    """Lease the question about one item to a reviewer, whoever gave the label."""
    source = leases.join_shown(t.reviews.join(t.items, t.items.c.id == _V.item))
    query = sa.select(*_REVIEW, *leases.item_columns()).select_from(source).where(_V.item == item)
    return [_lease(tx, project, user_id, row, expires_at) for row in tx.execute(query)]


def _lease(tx: Tx, project: Project, user_id: int, row: Any, expires_at: float) -> tuple[Leased, Review]:
    found = _review(project, row[: len(_REVIEW)])
    one = leases.read_leased(project, row[len(_REVIEW) :], expires_at)
    change_review(tx, found.item, lease_id=one.lease_id, holder_id=user_id, expires_at=expires_at)
    return one, found


def lease_again(tx: Tx, item: int, user_id: int, expires_at: float) -> str:
    """Put a decided question before its reviewer again; return the lease."""
    lease = secrets.token_urlsafe(12)
    change_review(tx, item, state=WAITING, lease_id=lease, holder_id=user_id, expires_at=expires_at)
    return lease


def extend(tx: Tx, project_id: int, user_id: int, lease_ids: Sequence[str], expires_at: float) -> None:
    """Move the end of a reviewer's leases."""
    mine = (_V.project_id == project_id, _V.holder_id == user_id, _V.lease_id.in_(lease_ids))
    tx.execute(t.reviews.update().where(*mine).values(expires_at=expires_at))


def add_step(tx: Tx, project_id: int, review: Review, user_id: int, action: str, said: Value, comment: str, now: float) -> None:
    """Write down what a reviewer did."""
    values = {"labels": _text(said.labels), "value": encode_more(said), "comment": comment, "at": now, "action": action}
    known = {"project_id": project_id, "item": review.item, "user_id": user_id, "author_id": review.author_id}
    tx.execute(t.review_steps.insert().values(**known, **values))


def steps_of(tx: Tx, project: Project, numbers: Sequence[int]) -> dict[int, list[Step]]:
    """Return what reviewers did with items, by number, the oldest first."""
    query = sa.select(_S.item, t.users.c.name, _S.action, _S.labels, _S.value, _S.comment, _S.at)
    rows = tx.execute(query.join(t.users, t.users.c.id == _S.user_id).where(_S.item.in_(list(numbers))).order_by(_S.id))
    found: dict[int, list[Step]] = {}
    for item, by, action, labels, value, comment, at in rows:
        found.setdefault(item, []).append(Step(by, action, project.read_value(labels, value), comment, at))
    return found


def counts(tx: Tx, project_id: int) -> dict[str, int]:
    """Return how many questions wait for a reviewer, by reason, and how many labels are with their authors ('back')."""
    query = sa.select(_V.state, _V.reason, sa.func.count()).where(_V.project_id == project_id, _V.state.in_((WAITING, BACK)))
    found: dict[str, int] = {}
    for state, reason, n in tx.execute(query.group_by(_V.state, _V.reason)):
        name = "back" if state == BACK else reason
        found[name] = found.get(name, 0) + int(n)
    return found


def judged_by_author(tx: Tx, project_id: int) -> dict[int, tuple[int, int, int]]:
    """Return of each author how many labels were accepted, corrected and returned, in steps."""
    query = sa.select(_S.author_id, _S.action, sa.func.count()).where(_S.project_id == project_id, _S.author_id.is_not(None))
    found: dict[int, list[int]] = {}
    for author, action, n in tx.execute(query.group_by(_S.author_id, _S.action)):
        if action in ("accept", "correct", "return"):
            found.setdefault(author, [0, 0, 0])[("accept", "correct", "return").index(action)] = int(n)
    return {author: (a, b, c) for author, (a, b, c) in found.items()}


def mark_errands(tx: Tx, project_id: int, has_errands: bool) -> None:
    """Note on the project whether something waits for somebody in person."""
    tx.execute(t.projects.update().where(t.projects.c.id == project_id).values(has_errands=has_errands))
