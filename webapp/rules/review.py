"""Reviewing labels of rules: the next items to look at, with what the rules say of each.

Owns which items come (most doubtful first, of one rule, or those that rules fight over). Must never save an answer: those of
people go the way of all labels. Called by the rules endpoints.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from labelloop.errors import NotFoundError
from webapp.db import rule_labels, rule_reviews, rule_sets
from webapp.db.engine import Database, Tx
from webapp.db.leases import Leased
from webapp.db.projects import Project
from webapp.rules import wording


class Reviewed(msgspec.Struct, frozen=True):
    """An item in somebody's hands, and what each rule that votes says of it: (rule, label)."""

    item: Leased
    votes: tuple[tuple[str, str], ...]


def take(
    database: Database, project: Project, user_id: int, n: int, by: str, rule: str, holding: Sequence[str] | None, lease_s: float
) -> tuple[Reviewed, ...]:
    """Lease up to `n` items that only rules have labelled: `by` 'doubt', 'conflict' (they fight) or 'rule' (the one called `rule`
    votes). With `holding` one's own other leases count as free. Raises NotFoundError for a rule that was not applied."""
    now = time.time()
    with database.write() as tx:
        names = _names(tx, project, rule_reviews.jobs_with_votes(tx, project.id))
        got = rule_reviews.take_ruled(
            *(tx, project, user_id, n, now, lease_s),
            holding=holding,
            is_conflict=by == "conflict",
            columns=_columns(names, rule) if by == "rule" else None,
        )
        votes = rule_labels.votes_of(tx, [one.number for one in got])
    return tuple(Reviewed(one, _named(project, names, votes.get(one.number))) for one in got)


def _names(tx: Tx, project: Project, job_ids: set[int]) -> dict[int, tuple[str, ...]]:
    return {job_id: wording.names_of(job.rules) for job_id, job in rule_sets.jobs_by_id(tx, project.id, job_ids).items()}


def _columns(names: dict[int, tuple[str, ...]], rule: str) -> dict[int, int]:
    found = {job_id: of.index(rule) for job_id, of in names.items() if rule in of}
    if not found:
        raise NotFoundError(f"no rule called {rule!r} was applied: apply the rules first")
    return found


def _named(project: Project, names: dict[int, tuple[str, ...]], found: Any) -> tuple[tuple[str, str], ...]:
    if found is None:
        return ()
    job_id, votes = found[0], found[1].tolist()
    return tuple((name, project.label_of(vote)) for name, vote in zip(names.get(job_id, ()), votes, strict=False) if vote >= 0)
