"""Consensus by a model of all people: whose opinion counts for more is learned from the whole project, beside the path.

Owns when that is done and what becomes of items that are ready. Must never hold up an annotator: the pilot calls it. Majorities are
decided at once, in `webapp.people.desk`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np

from webapp.db import opinions, projects, quality
from webapp.db.engine import Database
from webapp.db.projects import Project
from webapp.db.quality import Said
from webapp.people import desk
from webapp.people.consensus import Verdict

logger = logging.getLogger(__name__)
AT_ONCE = 500


class Settler:
    """Decides on items of projects whose consensus is learned."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def cycle(self) -> int:
        """Decide on everything that has all its opinions; return how many items."""
        with self._database.read() as tx:
            found = [projects.project_by_id(tx, project_id) for project_id in opinions.projects_ready(tx)]
        ready = [project for project in found if project is not None]
        return sum(self._settle(project) for project in ready)

    def _settle(self, project: Project) -> int:
        with self._database.read() as tx:
            numbers = opinions.rounds_ready(tx, project.id, AT_ONCE)
            said = quality.opinions_given(tx, project)
        verdicts = learn(project, said)
        for number in numbers:
            with self._database.write() as tx:
                found = opinions.hold_round(tx, number)
                if found is None or found.state >= opinions.DECIDED or found.given < found.wanted:
                    continue
                given = opinions.opinions_of(tx, project, number)
                desk.settle(tx, project, found, given, verdicts.get(number) or desk.majority(project, given), time.time())
        if numbers:
            logger.info("%s: %d items decided by %s", project.slug, len(numbers), project.work.consensus)
        return len(numbers)


def learn(project: Project, said: Sequence[Said]) -> dict[int, Verdict]:
    """Return a verdict an item by the project's method; the agreement is the probability of its label."""
    from learning.crowd import aggregate, crowd_labels  # SciPy: only where a consensus is learned

    named = [one for one in said if one.said.labels]
    if not named:
        return {}
    items, at = np.unique([one.item for one in named], return_inverse=True)
    _, who = np.unique([one.user_id for one in named], return_inverse=True)
    classes = [project.labels.index(one.said.labels[0]) for one in named]
    found = aggregate(project.work.consensus, crowd_labels(at, who, classes, n_classes=len(project.labels)))
    by_label = {(one.item, one.said.labels[0]): one.said for one in named}
    out: dict[int, Verdict] = {}
    for number, row in zip(items.tolist(), found.posteriors, strict=True):
        best = np.argsort(-row)[:2]
        value = by_label.get((number, project.labels[int(best[0])]))
        if value is not None:
            is_clear = len(best) == 1 or bool(row[best[0]] > row[best[1]] + 1e-9)
            out[number] = Verdict(value, float(row[best[0]]), is_clear)
    return out
