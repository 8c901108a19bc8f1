"""Applies a project's rules to all its items: votes in chunks, one label model, labels in bulk.

Owns the order of these steps. Each step is one transaction that also moves the job's place, so a pilot that is killed goes on where
it was. Must never apply a rule or weigh a vote itself, and never touch what people labelled. Called by the pilot, one project at a
time a thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import msgspec
import numpy as np

from labelloop import messages as m
from labelloop.errors import CancelledError, InvalidInputError, LabelloopError, NotFoundError, NotReadyError, RetryableError
from webapp.cluster_door import ClusterDoor
from webapp.db import events, projects, rule_labels, rule_sets
from webapp.db.engine import Database
from webapp.db.items import StoredItem, link_of
from webapp.db.projects import Project
from webapp.db.rule_labels import Verdict, Votes, Written
from webapp.db.rule_sets import RuleJob
from webapp.rules import wording
from webapp.rules.preview import read_array

logger = logging.getLogger(__name__)
VOTED_AT_ONCE = 2000
WRITTEN_AT_ONCE = 1000
MOST_BYTES = 64 * 2**20  # of links in one call
MOST_WEIGHED = 10_000_000  # votes, or probabilities, in one call
DEADLINE_S = 120.0


class RuleRunner:
    """Runs the jobs of `rule_jobs`. `ended` set = stop after the present step."""

    def __init__(self, database: Database, cluster: ClusterDoor, ended: threading.Event) -> None:
        self._database = database
        self._cluster = cluster
        self._ended = ended

    def cycle(self, project: Project) -> bool:
        """Run the project's job to its end; return whether there was one. Raises RetryableError when it goes on later."""
        with self._database.read() as tx:
            job = rule_sets.live_job(tx, project.id)
        if job is None:
            return False
        try:
            self._run(project, self._move(job, state="running"))
        except CancelledError as exc:
            logger.info("%s: %s", project.slug, exc)
        except RetryableError as exc:
            self._move(job, reason=f"waits: {exc}")
            raise
        except LabelloopError as exc:
            self._end(project, job, "failed", str(exc))
        return True

    def _run(self, project: Project, job: RuleJob) -> None:
        if job.phase == "votes":
            job = self._vote(project, job)
        if job.phase == "labels":
            job = self._label(project, job)
        job = self._withdraw(project, job)
        self._end(project, job, "done", "")

    def _move(self, job: RuleJob, **changes: object) -> RuleJob:
        with self._database.write() as tx:
            return rule_sets.move_job(tx, job.id, time.time(), **changes)

    def _end(self, project: Project, job: RuleJob, state: str, reason: str) -> None:
        now = time.time()
        with self._database.write() as tx:
            ended = rule_sets.move_job(tx, job.id, now, state=state, reason=reason)
            counts = f"{ended.labelled} items labelled anew, {ended.kept} as before, {ended.withdrawn} labels withdrawn"
            events.add_event(tx, project.id, "rules", f"rules: {counts}" + (f": {reason}" if reason else ""), job.user_id, now)
        logger.info("%s: rules %s: %s %s", project.slug, state, counts, reason)

    def _check_stop(self) -> None:
        if self._ended.is_set():
            raise NotReadyError("the pilot stops; the rules go on when it starts again")

    # ------------------------------------------------------------ votes

    def _vote(self, project: Project, job: RuleJob) -> RuleJob:
        """Ask for the votes on every item, chunk by chunk, by position."""
        rules = wording.encode_rules(project, job.rules)
        while True:
            self._check_stop()
            with self._database.read() as tx:
                chunk = _cut(project, rule_labels.items_after(tx, project.id, job.place, VOTED_AT_ONCE))
            if not chunk:
                return self._move(job, phase="labels", place=-1, done=job.total // 2, reason="")
            reply = self._ask(project, m.RulesRequest(task=project.slug, rules=rules, items=_items_of(project, chunk)))
            votes = read_array(reply.votes)
            with self._database.write() as tx:
                rule_labels.save_votes(tx, project.id, job.id, [item.number for item in chunk], votes)
                done, failed = job.done + len(chunk), job.failed + len(reply.failed)
                place = chunk[-1].position
                job = rule_sets.move_job(tx, job.id, time.time(), place=place, done=done, failed=failed, reason="")

    def _ask(self, project: Project, request: m.RulesRequest) -> m.RulesReply:
        try:
            return self._cluster.inference().apply_rules(request, deadline_s=DEADLINE_S)
        except NotFoundError as exc:
            raise self._reopened(project) from exc

    def _reopened(self, project: Project) -> RetryableError:
        with self._database.write() as tx:
            projects.mark_opened(tx, project.id, 0)
        return NotReadyError(f"the cluster does not know task {project.slug!r}: it is opened again")

    # ------------------------------------------------------------ labels

    def _label(self, project: Project, job: RuleJob) -> RuleJob:
        """Weigh all votes, then write labels by item number; the label model is the same again after a restart."""
        names = wording.names_of(job.rules)
        with self._database.read() as tx:
            voted = rule_labels.read_votes(tx, project, job.id, len(names))
        if not len(voted.numbers):
            raise InvalidInputError("no rule votes for any item: write a rule that fires")
        proba, job = self._weigh(project, job, names, voted)
        half, n = job.total // 2, len(voted.numbers)
        start = int(np.searchsorted(voted.numbers, job.place, side="right"))
        for at in range(start, n, WRITTEN_AT_ONCE):
            self._check_stop()
            rows = range(at, min(at + WRITTEN_AT_ONCE, n))
            verdicts = {int(voted.numbers[i]): verdict_of(proba[i], job.least_confidence) for i in rows}
            done = half + half * rows.stop // n
            job = self._write(project, job, verdicts, place=int(voted.numbers[rows.stop - 1]), done=done)
        return self._move(job, phase="withdraw", place=-1)

    def _weigh(self, project: Project, job: RuleJob, names: tuple[str, ...], voted: Votes) -> tuple[np.ndarray, RuleJob]:
        """Return the probabilities (n, n_labels) of the items; more than one call takes are weighed in equal shares of all."""
        n, k = len(voted.numbers), len(project.numbered)
        parts = max(1, -(-n * max(len(names), k) // MOST_WEIGHED))
        proba = np.zeros((n, k), np.float32)
        for part in range(parts):
            reply = self._weigh_part(project, job, names, voted.votes[part::parts], voted.known[part::parts])
            if reply.method == "none":
                raise InvalidInputError(reply.reason)
            said = read_array(reply.proba)
            proba[part::parts, : said.shape[1]] = np.where(read_array(reply.is_covered)[:, None], said, 0)
        views = [msgspec.to_builtins(view) for view in reply.rules]
        return proba, self._move(job, views=views, reason="")

    def _weigh_part(
        self, project: Project, job: RuleJob, names: tuple[str, ...], votes: np.ndarray, known: np.ndarray
    ) -> m.RulesReply:
        has_known = bool((known >= 0).any()) and job.method != "matrix-completion"
        request = m.VotesRequest(
            task=project.slug, names=names, votes=_array(votes), known=_array(known) if has_known else None, method=job.method
        )
        try:
            return self._cluster.inference().weigh_votes(request, deadline_s=DEADLINE_S)
        except NotFoundError as exc:
            raise self._reopened(project) from exc

    def _write(self, project: Project, job: RuleJob, verdicts: dict[int, Verdict | None], **moved: int) -> RuleJob:
        now = time.time()
        with self._database.write() as tx:
            written = rule_labels.write_labels(tx, project, job.user_id, verdicts, now)
            return rule_sets.move_job(tx, job.id, now, **_added(job, written), **moved)

    # ------------------------------------------------------------ what falls away

    def _withdraw(self, project: Project, job: RuleJob) -> RuleJob:
        """Take the labels of items that no rule of this job votes for; all of them when the job is to withdraw."""
        but = job.id if job.kind == "apply" else None
        while True:
            self._check_stop()
            with self._database.read() as tx:
                rows = rule_labels.ruled_after(tx, project.id, job.place, WRITTEN_AT_ONCE, but)
            if not rows:
                break
            done = job.done + (len(rows) if but is None else 0)
            job = self._write(project, job, dict.fromkeys((number for number, _ in rows)), place=rows[-1][1], done=done)
        with self._database.write() as tx:
            rule_labels.drop_votes(tx, project.id, but)
        return job


def verdict_of(proba: np.ndarray, least: float) -> Verdict | None:
    """Return the label of one item's probabilities (n_labels,), None where none is likely enough."""
    said = int(proba.argmax())
    confidence = float(proba[said])
    if confidence <= 0 or confidence < least:
        return None
    return Verdict(said, round(confidence, 6), np.ascontiguousarray(proba / proba.sum(), "<f4").tobytes())


def _added(job: RuleJob, written: Written) -> dict[str, int]:
    counts = msgspec.structs.asdict(written)
    return {name: getattr(job, name) + counts[name] for name in counts}


def _cut(project: Project, found: list[StoredItem]) -> list[StoredItem]:
    """Return the first of the items, as many as one call may carry; always one."""
    size = 0
    for at, item in enumerate(found):
        size += len(item.link or "") + 2 * len(item.content or "")
        if size > MOST_BYTES and at:
            return found[:at]
    return found


def _items_of(project: Project, chunk: Sequence[StoredItem]) -> tuple[m.Item, ...]:
    return tuple(m.Item(item_id=i.item_id, link=link_of(project.category, i.link, i.content)) for i in chunk)


def _array(values: np.ndarray) -> m.Array:
    values = np.ascontiguousarray(values, "<i2")
    return m.Array(dtype="int16", shape=values.shape, data=values.tobytes())
