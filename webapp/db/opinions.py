"""Opinions: who has which item for an opinion of one's own, what was said, and when an item has all it wants.

Owns the tables `rounds` (an item that wants `wanted` people: `taken` of them have it or gave theirs, `given` gave it) and
`opinions` (one row an item and person, so that nobody gets an item twice: a lease until it is answered, the opinion afterwards).
Must never show one person's opinion to another, nor decide on a label: `webapp.people` does. Called inside write transactions.
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
from webapp.db.leases import Leased, Note
from webapp.db.projects import Project
from webapp.db.revisions import BULK
from webapp.kinds.values import Value, decode_more, encode_more

OUT, GIVEN, SKIPPED, RETURNED = 0, 1, 2, 3  # an opinion; RETURNED: it waits for its author to think again
WANTED, FULL, READY, DECIDED, DISPUTED = 0, 1, 2, 3, 4  # a round; FULL: enough people have it; READY: all have answered
OVERLAP, BLIND, GOLD, AUDIT, AGAIN = "overlap", "blind", "gold", "audit", "again"
UNDRAFTED = (BLIND, AUDIT)  # what is looked at without the draft


class Opinion(msgspec.Struct, frozen=True):
    """One person's opinion on one item, or the lease under which it is asked for (`expires_at` is then not None)."""

    id: int
    item: int
    user_id: int
    purpose: str
    state: int
    lease_id: str
    expires_at: float | None
    labels: tuple[str, ...]
    value: str | None
    is_right: bool | None
    seconds: float | None
    draft: tuple[str, ...] | None
    draft_version: str | None
    draft_confidence: float | None
    draft_value: str | None
    key: str | None
    at: float

    @property
    def said(self) -> Value:
        """Return what was said."""
        return decode_more(self.labels, self.value)


class Round(msgspec.Struct, frozen=True):
    """How many people an item wants, how many have it, and how many have said something."""

    id: int
    item: int
    purpose: str
    state: int
    wanted: int
    taken: int
    given: int
    agreement: float | None
    job_id: int | None


_O, _R = t.opinions.c, t.rounds.c
OPINION = [_O[f.name] for f in msgspec.structs.fields(Opinion)]
_ROUND = [_R[f.name] for f in msgspec.structs.fields(Round)]


def text_of(labels: Sequence[str]) -> str:
    """Return labels as the database keeps them."""
    return msgspec.json.encode(list(labels)).decode()


def read_opinion(project: Project, row: Any) -> Opinion:
    """Return one row of `opinions`, its labels and those of its draft as they are called now."""
    values = dict(zip((f.name for f in msgspec.structs.fields(Opinion)), row, strict=True))
    said = project.read_value(values["labels"], values["value"])
    values |= {"labels": said.labels, "value": encode_more(said)}
    if values["draft"]:
        draft = project.read_value(values["draft"], values["draft_value"])
        values |= {"draft": draft.labels, "draft_value": encode_more(draft)}
    return Opinion(**values)


def _one(tx: Tx, project: Project, *where: sa.ColumnElement[bool]) -> Opinion | None:
    row = tx.execute(sa.select(*OPINION).where(*where)).first()
    return read_opinion(project, row) if row else None


def find_by_lease(tx: Tx, project: Project, lease_id: str) -> Opinion | None:
    """Return the opinion that is, or was, asked for under a lease."""
    return _one(tx, project, _O.lease_id == lease_id, _O.project_id == project.id)


def find_by_key(tx: Tx, project: Project, key: str) -> Opinion | None:
    """Return the opinion that a client sent under an idempotency key."""
    return _one(tx, project, _O.project_id == project.id, _O.key == key)


def find_own(tx: Tx, project: Project, item: int, user_id: int) -> Opinion | None:
    """Return one person's row of an item."""
    return _one(tx, project, _O.item == item, _O.user_id == user_id)


def opinions_of(tx: Tx, project: Project, item: int) -> list[Opinion]:
    """Return what people have said of an item, the earliest first."""
    rows = tx.execute(sa.select(*OPINION).where(_O.item == item, _O.state == GIVEN).order_by(_O.at, _O.id))
    return [read_opinion(project, row) for row in rows]


def hold_round(tx: Tx, item: int) -> Round | None:
    """Lock an item's round until the end of the transaction and return it."""
    query = sa.select(*_ROUND).where(_R.item == item)
    row = tx.execute(query.with_for_update() if tx.dialect.name == "postgresql" else query).first()
    return Round(*row) if row else None


def change_round(tx: Tx, item: int, **values: object) -> None:
    """Set columns of a round."""
    tx.execute(t.rounds.update().where(_R.item == item).values(**values))


def add_rounds(tx: Tx, project_id: int, rows: Sequence[dict[str, Any]], now: float) -> None:
    """Begin rounds; each row names item, purpose, wanted, taken, given (and job_id)."""
    if rows:
        fixed = {"project_id": project_id, "created_at": now}
        full = [{"job_id": None, **row, **fixed, "state": WANTED if row["taken"] < row["wanted"] else FULL} for row in rows]
        tx.execute(t.rounds.insert(), full)


# ---------------------------------------------------------------- handing out


def hand_out(tx: Tx, project: Project, user_id: int, found: Sequence[Leased], purpose: str, now: float) -> list[Leased]:
    """Write leases for opinions; what is looked at without a draft loses it here."""
    shown = [msgspec.structs.replace(one, draft=None) if purpose in UNDRAFTED else one for one in found]
    if shown:
        tx.execute(t.opinions.insert(), [_row(project.id, user_id, one, purpose, now) for one in shown])
    return list(shown)


def _row(project_id: int, user_id: int, one: Leased, purpose: str, now: float) -> dict[str, Any]:
    return {"item": one.number, "project_id": project_id, "user_id": user_id, "purpose": purpose, "state": OUT, "at": now} | _lease(
        one
    )


def _lease(one: Leased) -> dict[str, Any]:
    draft = one.draft
    return {
        "lease_id": one.lease_id,
        "expires_at": one.expires_at,
        "draft": text_of(draft.labels) if draft else None,
        "draft_version": draft.version if draft else None,
        "draft_confidence": draft.confidence if draft else None,
        "draft_value": draft.value if draft else None,
    }


def _shown(purpose: str, one: Leased) -> Leased:
    return msgspec.structs.replace(one, draft=None) if purpose in UNDRAFTED else one


def take_own(tx: Tx, project: Project, user_id: int, n: int, now: float, lease_s: float, holding: Sequence[str]) -> list[Leased]:
    """Lease again what `user_id` has in hand for an opinion, except what the client says it is `holding`."""
    source = leases.join_shown(t.opinions.join(t.items, t.items.c.id == _O.item))
    query = sa.select(_O.id, _O.purpose, *leases.item_columns()).select_from(source)
    mine = (_O.project_id == project.id, _O.user_id == user_id, _O.expires_at > now, t.items.c.item_id.not_in(list(holding)))
    rows = tx.execute(query.where(*mine).order_by(_O.expires_at, _O.id).limit(n)).all()
    return _lease_again(tx, project, user_id, rows, now + lease_s)


def _lease_again(tx: Tx, project: Project, user_id: int, rows: Sequence[Any], expires_at: float) -> list[Leased]:
    got = []
    for number, purpose, *item in rows:
        one = _shown(purpose, leases.read_leased(project, item, expires_at))
        note = note_of(tx, project, one.number, user_id) if purpose == AGAIN else None
        got.append(msgspec.structs.replace(one, note=note))
        tx.execute(t.opinions.update().where(_O.id == number).values(state=OUT, **_lease(one)))
    return got


def take_returned(tx: Tx, project: Project, user_id: int, n: int, now: float, lease_s: float) -> list[Leased]:
    """Lease what reviewers returned to `user_id`, with the comment, the oldest first."""
    source = leases.join_shown(t.opinions.join(t.items, t.items.c.id == _O.item))
    query = sa.select(_O.id, _O.purpose, *leases.item_columns()).select_from(source)
    mine = (_O.project_id == project.id, _O.user_id == user_id, _O.purpose == AGAIN, _O.state == RETURNED)
    rows = tx.execute(query.where(*mine).order_by(_O.at).limit(n)).all()
    return _lease_again(tx, project, user_id, rows, now + lease_s)


def note_of(tx: Tx, project: Project, item: int, user_id: int) -> Note | None:
    """Return what the last reviewer who returned an item wrote, with what `user_id` had said of it."""
    s = t.review_steps.c
    query = sa.select(s.comment, t.users.c.name, _O.labels, _O.value).join(t.users, t.users.c.id == s.user_id)
    query = query.join(t.opinions, sa.and_(_O.item == s.item, _O.user_id == user_id))
    row = tx.execute(query.where(s.item == item, s.action == "return").order_by(s.id.desc()).limit(1)).first()
    return Note(row[0], row[1], project.read_value(row[2], row[3])) if row else None


def take_wanted(
    tx: Tx,
    project: Project,
    user_id: int,
    n: int,
    now: float,
    lease_s: float,
    after: int,
    places: tuple[Sequence[int], int] | None = None,
) -> tuple[list[Leased], int]:
    """Lease items that want one more person who is not yet among theirs, behind round `after`, the oldest first.

    `places` (places, of): only items whose position, modulo `of`, is one of them, and audits, which are for anybody.

    Returns them with the round behind which to look the next time: those before it are not for this person now.
    """
    if n <= 0:
        return [], after
    source = leases.join_shown(t.rounds.join(t.items, t.items.c.id == _R.item))
    mine = sa.exists().where(_O.item == _R.item, _O.user_id == user_id)
    query = sa.select(_R.id, _R.purpose, *leases.item_columns()).select_from(source)
    query = query.where(_R.project_id == project.id, _R.state == WANTED, _R.id > after, _R.taken < _R.wanted, ~mine)
    if places is not None:
        query = query.where(sa.or_(_R.purpose == AUDIT, (t.items.c.position % places[1]).in_(list(places[0]))))
    rows = tx.execute(query.order_by(_R.id).limit(n).with_for_update(of=t.rounds, skip_locked=True)).all()
    if not rows:
        last = tx.execute(sa.select(sa.func.max(_R.id)).where(_R.project_id == project.id, _R.state == WANTED)).scalar()
        return [], max(after, last or 0)
    got: list[Leased] = []
    for _, purpose, *item in rows:
        one = leases.read_leased(project, item, now + lease_s)
        got += hand_out(tx, project, user_id, [one], purpose, now)
        move_taken(tx, one.number, 1)
    return got, rows[0][0] - 1


def move_taken(tx: Tx, item: int, by: int) -> None:
    """Note that `by` people more (or fewer) have an item."""
    taken = _R.taken + by
    state = sa.case((_R.state >= READY, _R.state), (taken < _R.wanted, WANTED), else_=FULL)
    tx.execute(t.rounds.update().where(_R.item == item).values(taken=taken, state=state))


def release_expired(tx: Tx, project_id: int, now: float, user_id: int | None = None) -> int:
    """Take back what people let lie (or all that `user_id` has in hand); return how much. Returned items go on waiting."""
    where = [_O.project_id == project_id, _O.expires_at.is_not(None)]
    where += [_O.expires_at <= now] if user_id is None else [_O.user_id == user_id]
    rows = tx.execute(sa.select(_O.id, _O.item, _O.purpose).where(*where).order_by(_O.item)).all()
    for number, item, purpose in rows:
        if purpose == AGAIN:
            tx.execute(t.opinions.update().where(_O.id == number).values(state=RETURNED, expires_at=None))
            continue
        gone = tx.execute(t.opinions.delete().where(_O.id == number, _O.expires_at.is_not(None))).rowcount
        if gone and purpose != GOLD:
            move_taken(tx, item, -1)
    return len(rows)


def extend(tx: Tx, project_id: int, user_id: int, lease_ids: Sequence[str], expires_at: float) -> None:
    """Move the end of `user_id`'s leases for opinions."""
    mine = (_O.project_id == project_id, _O.user_id == user_id, _O.lease_id.in_(lease_ids), _O.expires_at.is_not(None))
    tx.execute(t.opinions.update().where(*mine).values(expires_at=expires_at))


def skip(tx: Tx, project_id: int, user_id: int, lease_id: str) -> str | None:
    """Note that `user_id` has no opinion on an item; it is for others. Return its id, None = no such lease."""
    query = sa.select(_O.id, _O.item, _O.purpose, t.items.c.item_id).join(t.items, t.items.c.id == _O.item)
    mine = (_O.project_id == project_id, _O.user_id == user_id, _O.lease_id == lease_id, _O.expires_at.is_not(None))
    row = tx.execute(query.where(*mine)).first()
    if row is None:
        return None
    state = RETURNED if row[2] == AGAIN else SKIPPED
    tx.execute(t.opinions.update().where(_O.id == row[0]).values(state=state, expires_at=None, at=_O.at + 1))
    if row[2] not in (AGAIN, GOLD):
        move_taken(tx, row[1], -1)
    return str(row[3])


def forget_skips(tx: Tx, project_id: int, user_id: int) -> int:
    """Let `user_id` see again what was skipped, once nothing else is left."""
    mine = (_O.project_id == project_id, _O.user_id == user_id, _O.state == SKIPPED)
    return int(tx.execute(t.opinions.delete().where(*mine)).rowcount)


# ---------------------------------------------------------------- what was said


def save_said(
    tx: Tx,
    opinion: Opinion,
    said: Value,
    seconds: float | None,
    key: str,
    is_right: bool | None,
    now: float,
    purpose: str = "",
) -> None:
    """Write an opinion into the row of its lease; `purpose` '' = as it was."""
    values = {"labels": text_of(said.labels), "value": encode_more(said), "state": GIVEN, "expires_at": None, "at": now}
    more = {"seconds": seconds, "key": key or opinion.key, "is_right": is_right, "purpose": purpose or opinion.purpose}
    tx.execute(t.opinions.update().where(_O.id == opinion.id).values(**values, **more))


def add_said(tx: Tx, project_id: int, item: int, user_id: int, said: Value, key: str, now: float, **more: object) -> None:
    """Write an opinion that nobody was asked for: of a script, or of a label that was given before."""
    fixed = {"purpose": OVERLAP, "lease_id": secrets.token_urlsafe(12), "expires_at": None, "state": GIVEN, "at": now}
    values = {"labels": text_of(said.labels), "value": encode_more(said), "key": key or None, **fixed, **more}
    tx.execute(t.opinions.insert().values(project_id=project_id, item=item, user_id=user_id, **values))


def reopen(tx: Tx, opinion: Opinion, lease_id: str, expires_at: float, purpose: str = "") -> None:
    """Make an opinion a lease again: its author thinks once more."""
    values: dict[str, Any] = {"state": OUT, "lease_id": lease_id, "expires_at": expires_at, "key": None, "is_right": None}
    tx.execute(t.opinions.update().where(_O.id == opinion.id).values(**values, purpose=purpose or opinion.purpose))


def send_back(tx: Tx, project_id: int, item: int, user_id: int, said: Value, now: float) -> None:
    """Let an item wait for `user_id`, who said this of it, at the head of what they get."""
    values: dict[str, Any] = {"purpose": AGAIN, "state": RETURNED, "expires_at": None, "at": now, "key": None}
    values |= {"lease_id": secrets.token_urlsafe(12), "labels": text_of(said.labels), "value": encode_more(said)}
    if not tx.execute(t.opinions.update().where(_O.item == item, _O.user_id == user_id).values(**values)).rowcount:
        tx.execute(t.opinions.insert().values(project_id=project_id, item=item, user_id=user_id, **values))


def items_of_open(tx: Tx, project_id: int, user_id: int) -> list[int]:
    """Return the items that wait for `user_id` to think again."""
    mine = (_O.project_id == project_id, _O.user_id == user_id, _O.purpose == AGAIN, _O.state.in_((RETURNED, OUT)))
    return list(tx.execute(sa.select(_O.item).where(*mine)).scalars())


def drop(tx: Tx, item: int, user_id: int) -> None:
    """Forget one person's row of an item."""
    tx.execute(t.opinions.delete().where(_O.item == item, _O.user_id == user_id))


def drop_round(tx: Tx, item: int) -> None:
    """Forget a round with all its opinions."""
    tx.execute(t.opinions.delete().where(_O.item == item, _O.purpose != GOLD))
    tx.execute(t.rounds.delete().where(_R.item == item))


def drop_rounds(tx: Tx, numbers: Sequence[int]) -> None:
    """Make room for new rounds of items that had one before; what an earlier audit heard of them goes with it."""
    tx.execute(t.opinions.delete().where(_O.item.in_(list(numbers)), _O.purpose == AUDIT))
    tx.execute(t.rounds.delete().where(_R.item.in_(list(numbers))))


def projects_ready(tx: Tx) -> list[int]:
    """Return the projects that have rounds which wait for a learned consensus."""
    return list(tx.execute(sa.select(_R.project_id).where(_R.state == READY).distinct()).scalars())


def rounds_ready(tx: Tx, project_id: int, n: int) -> list[int]:
    """Return the items of up to `n` rounds that wait for a learned consensus, the oldest first."""
    query = sa.select(_R.item).where(_R.project_id == project_id, _R.state == READY).order_by(_R.id).limit(n)
    return list(tx.execute(query).scalars())


def names_out(tx: Tx, project_id: int, user_id: int) -> list[str]:
    """Return the ids of the items that `user_id` has in hand for an opinion."""
    query = sa.select(t.items.c.item_id).join(t.opinions, _O.item == t.items.c.id)
    return list(tx.execute(query.where(_O.project_id == project_id, _O.user_id == user_id, _O.expires_at.is_not(None))).scalars())


def has_errands(tx: Tx, project_id: int) -> bool:
    """Return whether a returned item, an audit or a round that was begun waits for somebody."""
    again = sa.select(_O.id).where(_O.project_id == project_id, _O.purpose == AGAIN, _O.state.in_((RETURNED, OUT))).limit(1)
    open_rounds = (_R.project_id == project_id, _R.state.in_((WANTED, FULL)))
    return bool(tx.execute(again).first() or tx.execute(sa.select(_R.id).where(*open_rounds).limit(1)).first())


# ---------------------------------------------------------------- bulk


def said_in_bulk(tx: Tx, project: Project, item: int) -> Value | None:
    """Return the label that an item got when drafts were accepted unseen, the last one; None = never."""
    a = t.annotations.c
    query = sa.select(a.labels, a.value).where(a.item == item, a.source == BULK, sa.not_(a.is_deleted))
    row = tx.execute(query.order_by(a.revision.desc()).limit(1)).first()
    return project.read_value(row[0], row[1]) if row else None
