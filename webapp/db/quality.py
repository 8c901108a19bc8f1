"""What the figures of quality are made of: opinions, consensus labels, times, known answers; and labels that differ from drafts.

Owns no table: it reads those of labelling and of people at work, the newest rows up to a limit. Called by
`webapp.people.quality` and `webapp.people.differences`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from webapp.db import leases, opinions
from webapp.db import tables as t
from webapp.db.engine import Tx
from webapp.db.items import LABELLED
from webapp.db.leases import Leased
from webapp.db.opinions import BLIND, DECIDED, GIVEN, GOLD, OVERLAP
from webapp.db.projects import Project
from webapp.kinds.values import Value

MOST_OPINIONS = 200_000
MOST_LABELS = 50_000
_A, _O, _R = t.annotations.c, t.opinions.c, t.rounds.c


class Said(msgspec.Struct, frozen=True):
    """One person's opinion on one item."""

    item: int
    user_id: int
    said: Value


def opinions_given(tx: Tx, project: Project, most: int = MOST_OPINIONS) -> list[Said]:
    """Return the newest `most` opinions that were asked of several people."""
    query = sa.select(_O.item, _O.user_id, _O.labels, _O.value)
    query = query.where(_O.project_id == project.id, _O.state == GIVEN, _O.purpose.in_((OVERLAP, BLIND)))
    rows = tx.execute(query.order_by(_O.id.desc()).limit(most))
    return [Said(row[0], row[1], project.read_value(row[2], row[3])) for row in rows]


def decided_labels(tx: Tx, project: Project) -> dict[int, Value]:
    """Return the labels of items that several people gave their opinion on and that are decided, by the item's number."""
    query = sa.select(_R.item, _A.labels, _A.value).join(t.items, t.items.c.id == _R.item)
    query = query.join(t.annotations, _A.id == t.items.c.annotation_id)
    query = query.where(_R.project_id == project.id, _R.state == DECIDED, _R.purpose.in_((OVERLAP, BLIND)))
    return {row[0]: project.read_value(row[1], row[2]) for row in tx.execute(query.order_by(_R.id.desc()).limit(MOST_OPINIONS))}


def gold_scores(tx: Tx, project_id: int) -> dict[int, tuple[int, int]]:
    """Return of each person the known answers that were right, and all of them."""
    query = sa.select(_O.user_id, sa.func.sum(sa.case((_O.is_right, 1), else_=0)), sa.func.count())
    query = query.where(_O.project_id == project_id, _O.purpose == GOLD, _O.state == GIVEN).group_by(_O.user_id)
    return {row[0]: (int(row[1] or 0), int(row[2])) for row in tx.execute(query)}


def times(tx: Tx, project_id: int) -> list[tuple[int, float | None, float]]:
    """Return (person, seconds, when) of the newest labels and opinions, up to `MOST_LABELS` of each."""
    alone = sa.select(_A.user_id, _A.seconds, _A.created_at).where(
        _A.project_id == project_id, _A.source == "person", sa.not_(_A.is_deleted), _A.job_id.is_(None)
    )
    several = sa.select(_O.user_id, _O.seconds, _O.at).where(_O.project_id == project_id, _O.state == GIVEN, _O.purpose != BLIND)
    rows = list(tx.execute(alone.order_by(_A.id.desc()).limit(MOST_LABELS)))
    rows += list(tx.execute(several.order_by(_O.id.desc()).limit(MOST_LABELS)))
    return [(row[0], row[1], row[2]) for row in rows]


# ---------------------------------------------------------------- differences


class Labelled(msgspec.Struct, frozen=True):
    """A labelled item: its label, the draft its person saw, who gave it."""

    item: Leased
    said: Value
    user_id: int
    source: str
    draft: tuple[str, ...] | None
    draft_version: str | None
    place: int


def labelled_after(tx: Tx, project: Project, after: int, n: int) -> list[Labelled]:
    """Return up to `n` labelled items behind a position, with the draft that is newest now."""
    source = leases.join_shown(t.items.join(t.annotations, _A.id == t.items.c.annotation_id))
    own = [t.items.c.position, _A.labels, _A.value, _A.user_id, _A.source, _A.draft, _A.draft_version]
    query = sa.select(*own, *leases.item_columns()).select_from(source)
    query = query.where(t.items.c.project_id == project.id, t.items.c.state == LABELLED, t.items.c.position > after)
    rows = tx.execute(query.order_by(t.items.c.position).limit(n))
    return [_labelled(project, row) for row in rows]


def _labelled(project: Project, row: Sequence[Any]) -> Labelled:
    place, labels, more, user_id, source, draft, version = row[:7]
    seen = project.read_value(draft, None).labels if draft else None
    said = project.read_value(labels, more)
    return Labelled(leases.read_leased(project, row[7:], 0.0), said, user_id, source, seen, version, place)


def disputed_after(tx: Tx, project: Project, after: int, n: int) -> list[tuple[int, float, Leased]]:
    """Return up to `n` items that people differ on behind a round: (round, agreement, item)."""
    source = leases.join_shown(t.rounds.join(t.items, t.items.c.id == _R.item))
    query = sa.select(_R.id, _R.agreement, *leases.item_columns()).select_from(source)
    query = query.where(_R.project_id == project.id, _R.state >= DECIDED, _R.id > after, _R.agreement < 1)
    query = query.where(_R.purpose.in_((OVERLAP, BLIND))).order_by(_R.id).limit(n)
    return [(row[0], row[1], leases.read_leased(project, row[2:], 0.0)) for row in tx.execute(query)]


def opinions_on(tx: Tx, project: Project, numbers: Sequence[int]) -> list[opinions.Opinion]:
    """Return all opinions on some items."""
    query = sa.select(*opinions.OPINION).where(_O.item.in_(list(numbers)), _O.state == GIVEN, _O.purpose.in_((OVERLAP, BLIND)))
    return [opinions.read_opinion(project, row) for row in tx.execute(query.order_by(_O.id))]
