"""Takes labels from the outbox to train_rpc, and rows out of the outbox when the cluster's label log has them.

Owns batches: a batch id is written down before the batch is sent and never changes what it stands for, so that sending it twice is
harmless. Must never drop a row: it ends as done, or as failed with the cluster's reason. Called by the pilot's relay thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np

from labelloop import messages as m
from labelloop.errors import LabelloopError, NotFoundError, RetryableError
from labelloop.settings import PilotSettings
from webapp.cluster_door import ClusterDoor
from webapp.db import events, outbox, projects
from webapp.db.engine import Database
from webapp.db.items import link_of
from webapp.db.outbox import Row
from webapp.db.projects import Project
from webapp.db.revisions import NEW, NOBODY, RULES_NEW, RULES_SENT, SENT
from webapp.kinds.values import decode_more
from webapp.pilot.regions import draft_regions_of, regions_of
from webapp.projects.service import spec_of

logger = logging.getLogger(__name__)
RETRY_S = 1.0
CHECKED_AT_ONCE = 1000
RULES_IN_FLIGHT = 4000  # labels of rules that may be on their way: the cluster's intake stays free for people's


class Relay:
    """One outbox. `cycle` is called every `pilot.poll_s`; `check` every `pilot.progress_s` for projects with rows on their way."""

    def __init__(self, database: Database, cluster: ClusterDoor, settings: PilotSettings) -> None:
        self._database = database
        self._cluster = cluster
        self._settings = settings
        self._not_before_s: dict[int, float] = {}
        self._waits: dict[int, str] = {}  # what each project's page says holds its labels

    def cycle(self) -> int:
        """Send what is new and what must go again; return how many batches went."""
        with self._database.read() as tx:
            waiting = sorted({one for state in (NEW, SENT, RULES_NEW, RULES_SENT) for one in outbox.projects_with(tx, state)})
        return sum(self._relay(project_id) for project_id in waiting if self._may_try(project_id))

    def _may_try(self, project_id: int) -> bool:
        return time.monotonic() >= self._not_before_s.get(project_id, float("-inf"))

    def _relay(self, project_id: int) -> int:
        with self._database.read() as tx:
            project = projects.project_by_id(tx, project_id)
        if project is None or not project.is_learned:
            return 0
        try:
            self.open_task(project)
            master = self._cluster.topology().train_rpc
            batches = self._bind_new(project) + self._due(project, master)
            for batch_id in dict.fromkeys(batches):
                self._send(project, batch_id)
        except RetryableError as exc:
            self._not_before_s[project_id] = time.monotonic() + RETRY_S
            self._note_wait(project, f"labels wait: {exc}")
            return 0
        self._not_before_s.pop(project_id, None)
        if project_id in self._waits:
            self._note_wait(project, "")
        return len(batches)

    def _note_wait(self, project: Project, reason: str) -> None:
        """Tell the project's page what holds its labels, when that changes."""
        if self._waits.get(project.id, "") == reason:
            return
        with self._database.write() as tx:
            outbox.note_wait(tx, project.id, reason)
        if reason:
            self._waits[project.id] = reason
            logger.warning("%s: %s", project.slug, reason)
        else:
            del self._waits[project.id]
            logger.info("%s: labels go on", project.slug)

    def open_task(self, project: Project) -> None:
        """Tell the cluster what the project is, when it has changed."""
        if project.opened_revision == project.spec_revision:
            return
        reply = self._cluster.registry().open_task(m.OpenTaskRequest(spec=spec_of(project)))
        with self._database.write() as tx:
            projects.mark_opened(tx, project.id, project.spec_revision)
        logger.info("task %s is open in revision %d", project.slug, reply.revision)

    def _bind_new(self, project: Project) -> list[str]:
        """Write down the next batch of people's new rows, then one of rules' where not too many are on their way."""
        most = self._settings.batch_labels
        with self._database.read() as tx:
            rows = outbox.rows_in(tx, project.id, NEW, most)
            room = RULES_IN_FLIGHT - outbox.waiting(tx, project.id, (RULES_SENT,), RULES_IN_FLIGHT)
            by_rules = outbox.rows_in(tx, project.id, RULES_NEW, min(most, room)) if room > 0 else []
        return self._bind(project, rows, SENT) + self._bind(project, by_rules, RULES_SENT)

    def _bind(self, project: Project, rows: Sequence[Row], state: int) -> list[str]:
        if not rows:
            return []
        batch_id = f"web-{project.id}-{rows[0].id}-{len(rows)}-{int(time.time() * 1000):x}"
        with self._database.write() as tx:
            outbox.bind_batch(tx, [row.id for row in rows], batch_id, time.time(), state)
        return [batch_id]

    def _due(self, project: Project, master: str) -> list[str]:
        now = time.time()
        with self._database.read() as tx:
            return outbox.batches_to_send(tx, project.id, master, now - RETRY_S, now - self._settings.resend_after_s)

    def _send(self, project: Project, batch_id: str) -> None:
        with self._database.read() as tx:
            rows = outbox.rows_of_batch(tx, project.id, batch_id)
        master = self._cluster.topology().train_rpc
        request = m.SubmitRequest(task=project.slug, batch_id=batch_id, samples=tuple(sample_of(project, row) for row in rows))
        try:
            reply = self._cluster.train().submit(request)
        except NotFoundError as exc:
            self._reopen(project, exc)
            return
        except RetryableError:
            raise
        except LabelloopError as exc:
            self._refuse(project, [(row.id, str(exc)) for row in rows], str(exc))
            return
        with self._database.write() as tx:
            outbox.touch_batch(tx, project.id, batch_id, master, time.time())
        if reply.rejected:
            reasons = {(error.item_id, error.revision): error.reason for error in reply.rejected}
            bad = [(row.id, reasons[row.item_id, row.revision]) for row in rows if (row.item_id, row.revision) in reasons]
            self._refuse(project, bad, reply.rejected[0].reason)

    def _reopen(self, project: Project, exc: NotFoundError) -> None:
        logger.warning("the cluster does not know task %s, opening it again: %s", project.slug, exc)
        with self._database.write() as tx:
            projects.mark_opened(tx, project.id, 0)
        self._not_before_s[project.id] = time.monotonic() + RETRY_S

    def _refuse(self, project: Project, reasons: Sequence[tuple[int, str]], first: str) -> None:
        logger.error("the cluster refuses %d labels of %s: %s", len(reasons), project.slug, first)
        now = time.time()
        with self._database.write() as tx:
            outbox.mark_failed(tx, reasons)
            text = f"the cluster refuses {len(reasons)} label{'s' if len(reasons) > 1 else ''}: {first}"
            events.add_event(tx, project.id, "refused", text, None, now)

    def sent_rows(self, project_id: int) -> list[Row]:
        """Return the oldest rows that are on their way, people's first."""
        with self._database.read() as tx:
            rows = outbox.rows_in(tx, project_id, SENT, CHECKED_AT_ONCE)
            return rows + outbox.rows_in(tx, project_id, RULES_SENT, CHECKED_AT_ONCE - len(rows))

    def settle(self, project: Project, rows: Sequence[Row], states: Sequence[m.ItemState]) -> None:
        """Take out what the label log has, mark what it refuses, send again what the cluster never heard of."""
        of = {(state.item_id, state.revision): state for state in states}
        pairs = [(row, of[row.item_id, row.revision]) for row in rows if (row.item_id, row.revision) in of]
        done = [row.id for row, state in pairs if state.state == "done"]
        failed = [(row.id, state.reason) for row, state in pairs if state.state == "failed"]
        lost = {row.batch_id for row, state in pairs if state.state == "unknown" and row.master and row.batch_id}
        if done or lost:
            with self._database.write() as tx:
                outbox.mark_done(tx, done)
                for batch_id in lost:
                    outbox.touch_batch(tx, project.id, batch_id, "", 0.0)
        if failed:
            self._refuse(project, failed, failed[0][1])


def sample_of(project: Project, row: Row) -> m.Sample:
    """Return the sample of an outbox row: always the same bytes for the same row.

    Marks go as regions. "None of the labels" withdraws the item where an item takes exactly one label, for then there is nothing to
    learn from it; elsewhere it says that nothing is there.
    """
    value = decode_more(row.labels, row.value)
    has_marks = project.kind_rules.shape is not None
    return m.Sample(
        item_id=row.item_id,
        link=link_of(project.category, row.link, row.content),
        labels=() if has_marks else row.labels,
        revision=row.revision,
        annotator=row.source if row.source in NOBODY else row.annotator,
        draft=_draft_of(project, row) if row.draft is not None else None,
        is_deleted=row.is_deleted or (value.is_none and project.kind_rules.is_single),
        regions=regions_of(value),
        proba=_proba_of(project, row.proba) if row.proba else (),
    )


def _draft_of(project: Project, row: Row) -> m.Draft:
    version, labels = row.draft_version or "", row.draft or ()
    if project.kind_rules.shape is None:
        return m.Draft(labels=labels, version=version)
    return m.Draft(labels=(), version=version, regions=draft_regions_of(decode_more(labels, row.draft_value)))


def _proba_of(project: Project, stored: bytes) -> tuple[float, ...]:
    """Return one probability a label of the project; labels that were added since have 0."""
    known = np.frombuffer(stored, "<f4").tolist()
    return tuple(known + [0.0] * (len(project.numbered) - len(known)))
