"""Labels that rules gave: the votes on each item, and the annotations made of them in bulk.

Owns the table `rule_votes` and the annotations whose source is 'rules'. Must never touch an item that a person has labelled, nor a
lease: whoever has an item in hand keeps it. `said` is the number of the label that rules gave last, `confidence` how sure they are
while that label stands, `checked` what a person said of it. Called by the pilot's rule runner and by `webapp.rules`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa

from webapp.db import tables as t
from webapp.db import tallies
from webapp.db.engine import Tx
from webapp.db.items import LABELLED, OPEN, RULED, STORED, StoredItem
from webapp.db.projects import Project
from webapp.db.revisions import RULES, RULES_NEW

SAME = 0.005  # a label whose confidence moved by less is left as it is


class Verdict(msgspec.Struct, frozen=True):
    """What the label model says of an item: the number of the likeliest label and `proba` (n_labels,) float32, as bytes."""

    said: int
    confidence: float
    proba: bytes


class Written(msgspec.Struct, frozen=True):
    """What writing a chunk did, in items."""

    labelled: int = 0
    kept: int = 0
    withdrawn: int = 0
    unsure: int = 0


class Votes(msgspec.Struct, frozen=True):
    """Votes on the items called `numbers`: (n, m) int16; `known` (n,) are people's labels by number, -1 = none."""

    numbers: np.ndarray
    votes: np.ndarray
    known: np.ndarray


_STATES = (OPEN, LABELLED, RULED)
_SEGMENTS = 20
_V = t.rule_votes.c


def items_after(tx: Tx, project_id: int, position: int, n: int) -> list[StoredItem]:
    """Return up to `n` items of any state behind a position, by position."""
    found: list[StoredItem] = []
    for state in _STATES:  # one state a query, for the index
        query = sa.select(*STORED).where(
            t.items.c.project_id == project_id, t.items.c.state == state, t.items.c.position > position
        )
        found += [StoredItem(*row) for row in tx.execute(query.order_by(t.items.c.position).limit(n))]
    return sorted(found, key=lambda item: item.position)[:n]


def spread_items(tx: Tx, project: Project, states: tuple[int, ...], n: int) -> list[StoredItem]:
    """Return up to `n` items in these states from `_SEGMENTS` places of the project, each a short walk along the index; where
    they stand too close together for that, the first ones as well."""
    walks = [(project.next_position * at // _SEGMENTS, -(-n // _SEGMENTS)) for at in range(_SEGMENTS)]
    found: dict[int, StoredItem] = {}
    for start, share in [*walks, (0, n)]:
        if share == n and len(found) >= n:
            break
        for state in states:
            is_next = sa.and_(t.items.c.project_id == project.id, t.items.c.state == state, t.items.c.position >= start)
            for row in tx.execute(sa.select(*STORED).where(is_next).order_by(t.items.c.position).limit(share)):
                found[row[0]] = StoredItem(*row)
    by_position = sorted(found.values(), key=lambda item: item.position)
    return [by_position[i * len(by_position) // n] for i in range(n)] if len(by_position) > n else by_position


def known_labels(tx: Tx, project: Project, numbers: Sequence[int]) -> dict[int, str]:
    """Return what people said of those of the items that they labelled, by the item's number."""
    query = (
        sa.select(t.items.c.id, t.annotations.c.labels)
        .join(t.annotations, t.annotations.c.id == t.items.c.annotation_id)
        .where(t.items.c.state == LABELLED, t.items.c.id.in_([int(number) for number in numbers]))
    )
    return {row[0]: labels[0] for row in tx.execute(query) if (labels := msgspec.json.decode(row[1]))}


# ---------------------------------------------------------------- votes


def save_votes(tx: Tx, project_id: int, job_id: int, numbers: Sequence[int], votes: np.ndarray) -> None:
    """Store the votes (n, m) int16 of a chunk; items without a vote have no row.

    What people checked stays counted where the votes are what they were.
    """
    is_covered = (votes >= 0).any(axis=1)
    low, high = np.where(votes < 0, np.int16(32767), votes).min(axis=1), votes.max(axis=1)
    rows = [
        {"item": numbers[int(i)], "project_id": project_id, "job_id": job_id, "votes": votes[i].astype("<i2").tobytes()}
        | {"is_conflict": bool(low[i] < high[i])}
        for i in np.flatnonzero(is_covered)
    ]
    if rows:
        tx.execute(_UPSERT, rows)


_UPSERT = sa.text(
    "INSERT INTO rule_votes (item, project_id, job_id, votes, is_conflict) "
    "VALUES (:item, :project_id, :job_id, :votes, :is_conflict) ON CONFLICT (item) DO UPDATE SET "
    "said = CASE WHEN rule_votes.confidence IS NOT NULL OR rule_votes.votes = excluded.votes THEN rule_votes.said END, "
    "checked = CASE WHEN rule_votes.votes = excluded.votes THEN rule_votes.checked END, "
    "job_id = excluded.job_id, votes = excluded.votes, is_conflict = excluded.is_conflict"
)


def read_votes(tx: Tx, project: Project, job_id: int, n_rules: int) -> Votes:
    """Return every vote of a job, by item number, with what people said of the items."""
    query = (
        sa.select(_V.item, _V.votes, t.items.c.state, t.annotations.c.labels)
        .join(t.items, t.items.c.id == _V.item)
        .outerjoin(t.annotations, t.annotations.c.id == t.items.c.annotation_id)
        .where(_V.project_id == project.id, _V.job_id == job_id)
        .order_by(_V.item)
    )
    place = project.label_set.numbers
    numbers, blobs, known = [], [], []
    for number, blob, state, labels in tx.execute(query):
        numbers.append(number)
        blobs.append(bytes(blob))
        given = msgspec.json.decode(labels) if state == LABELLED and labels else []
        known.append(place.get(given[0], -1) if given else -1)
    votes = np.frombuffer(b"".join(blobs), "<i2").reshape(len(blobs), n_rules)
    return Votes(np.array(numbers, np.int64), votes, np.array(known, np.int16))


def votes_of(tx: Tx, numbers: Sequence[int]) -> dict[int, tuple[int, np.ndarray, int | None, float | None]]:
    """Return (job, votes (m,), label said, confidence) of each of the items that rules voted on."""
    query = sa.select(_V.item, _V.job_id, _V.votes, _V.said, _V.confidence).where(_V.item.in_([int(n) for n in numbers]))
    return {row[0]: (row[1], np.frombuffer(bytes(row[2]), "<i2"), row[3], row[4]) for row in tx.execute(query)}


def checked(tx: Tx, project_id: int, most: int = 20_000) -> list[tuple[int, np.ndarray, int, str]]:
    """Return (job, votes, label said, what a person said) of the labels that people looked at, up to `most`."""
    query = sa.select(_V.job_id, _V.votes, _V.said, _V.checked).where(_V.project_id == project_id, _V.checked.is_not(None))
    rows = tx.execute(query.limit(most))
    return [(row[0], np.frombuffer(bytes(row[1]), "<i2"), row[2], row[3]) for row in rows if row[2] is not None]


# ---------------------------------------------------------------- labels


_BEHIND = (
    sa.select(t.items.c.id, t.items.c.state, t.items.c.revision, _V.said, _V.confidence)
    .select_from(t.items.outerjoin(t.rule_votes, _V.item == t.items.c.id))
    .where(t.items.c.id.in_(sa.bindparam("numbers", expanding=True)))
    .order_by(t.items.c.id)
    .with_for_update(of=t.items)
)
_MOVE = (
    t.items.update()
    .where(t.items.c.id == sa.bindparam("number"))
    .values(state=sa.bindparam("new_state"), revision=sa.bindparam("new_revision"), annotation_id=sa.bindparam("current"))
)
_SAY = (
    t.rule_votes.update()
    .where(_V.item == sa.bindparam("number"))
    .values(said=sa.bindparam("new_said"), confidence=sa.bindparam("new_confidence"), checked=None)
)


def write_labels(tx: Tx, project: Project, user_id: int, verdicts: Mapping[int, Verdict | None], now: float) -> Written:
    """Give each item the label of its verdict, or take the label of rules from it (None), by new revisions.

    An item that a person has labelled stays as it is, and so does a label that has not changed.
    """
    if not verdicts:
        return Written()
    new: list[tuple[int, int, Verdict | None]] = []
    kept = unsure = 0
    for number, state, revision, said, confidence in tx.execute(_BEHIND, {"numbers": list(verdicts)}).all():
        verdict = verdicts[number]
        if state == LABELLED:
            continue
        if verdict is None and state == OPEN:
            unsure += 1
        elif (
            verdict is not None
            and state == RULED
            and _same(project, said, verdict)
            and abs((confidence or 0) - verdict.confidence) < SAME
        ):
            kept += 1
        else:
            unsure += verdict is None
            new.append((number, revision + 1, verdict))
    were_ruled = _add_revisions(tx, project, user_id, new, now)
    labelled = sum(verdict is not None for _, _, verdict in new)
    tallies.add_ruled(tx, project.id, labelled - were_ruled)
    return Written(labelled=labelled, kept=kept, withdrawn=len(new) - labelled, unsure=unsure)


def _same(project: Project, said: int | None, verdict: Verdict) -> bool:
    now = project.label_set.resolved
    return said is not None and now[said] == now[verdict.said]


def _add_revisions(tx: Tx, project: Project, user_id: int, new: Sequence[tuple[int, int, Verdict | None]], now: float) -> int:
    """Write annotations, outbox rows and the items' states; return how many of the items rules had labelled before."""
    if not new:
        return 0
    numbers = [number for number, _, _ in new]
    ruled = sa.select(sa.func.count()).where(t.items.c.id.in_(numbers), t.items.c.state == RULED)
    were_ruled = int(tx.execute(ruled).scalar_one())
    tx.execute(t.annotations.insert(), [_annotation(project, user_id, *one, now) for one in new])
    query = sa.select(t.annotations.c.item, sa.func.max(t.annotations.c.id)).where(t.annotations.c.item.in_(numbers))
    made = {row[0]: row[1] for row in tx.execute(query.group_by(t.annotations.c.item))}
    fixed = {"project_id": project.id, "state": RULES_NEW, "attempts": 0, "created_at": now}
    tx.execute(t.outbox.insert(), [{"annotation_id": made[number], **fixed} for number in numbers])
    tx.execute(_MOVE, [_moved(number, revision, made[number], verdict) for number, revision, verdict in new])
    tx.execute(_SAY, [_said(number, verdict) for number, _, verdict in new])
    return were_ruled


def _annotation(project: Project, user_id: int, number: int, revision: int, verdict: Verdict | None, now: float) -> dict[str, Any]:
    return {
        "project_id": project.id,
        "item": number,
        "revision": revision,
        "labels": msgspec.json.encode([project.label_of(verdict.said)] if verdict else []).decode(),
        "is_deleted": verdict is None,
        "user_id": user_id,
        "is_corrected": False,
        "window_no": 0,
        "created_at": now,
        "source": RULES,
        "proba": verdict.proba if verdict else None,
    }


def _moved(number: int, revision: int, annotation: int, verdict: Verdict | None) -> dict[str, Any]:
    state, current = (OPEN, None) if verdict is None else (RULED, annotation)
    return {"number": number, "new_state": state, "new_revision": revision, "current": current}


def _said(number: int, verdict: Verdict | None) -> dict[str, Any]:
    return {
        "number": number,
        "new_said": None if verdict is None else verdict.said,
        "new_confidence": None if verdict is None else verdict.confidence,
    }


def ruled_after(tx: Tx, project_id: int, position: int, n: int, but_job: int | None = None) -> list[tuple[int, int]]:
    """Return (number, position) of up to `n` items behind a position whose label is of rules; with `but_job` only those that this
    job has not voted on."""
    query = sa.select(t.items.c.id, t.items.c.position).where(
        t.items.c.project_id == project_id, t.items.c.state == RULED, t.items.c.position > position
    )
    if but_job is not None:
        query = query.outerjoin(t.rule_votes, _V.item == t.items.c.id).where(sa.or_(_V.item.is_(None), _V.job_id != but_job))
    return [(row[0], row[1]) for row in tx.execute(query.order_by(t.items.c.position).limit(n))]


def drop_votes(tx: Tx, project_id: int, but_job: int | None = None) -> None:
    """Forget votes: all, or those that job did not make."""
    query = t.rule_votes.delete().where(_V.project_id == project_id)
    tx.execute(query if but_job is None else query.where(_V.job_id != but_job))
