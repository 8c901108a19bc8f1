"""Watches the cluster: its topology, each project's progress and versions; writes them where the pages read.

Owns the tables behind the live page and the pilot's heartbeat. Must never wait for one project longer than a call's deadline.
Called by the pilot's watch thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import msgspec

from labelloop import messages as m
from labelloop.errors import LabelloopError
from labelloop.settings import PilotSettings
from webapp.cluster_door import ClusterDoor
from webapp.db import events, leases, live, outbox, projects, readings
from webapp.db.engine import Database, Tx
from webapp.db.projects import Project, Which
from webapp.db.revisions import RULES_SENT, SENT
from webapp.pilot.relay import Relay

logger = logging.getLogger(__name__)
HEARTBEAT_S = 1.0
IDLE_POLL_S = 1.0
BUSY_FOR_S = 30.0
DEADLINE_S = 5.0
SWEEP_S = 60.0
_LEASES_KEPT_S = 3600.0


class Watch:
    """What the cluster last said. `latest` is read by the scoring threads."""

    def __init__(self, database: Database, cluster: ClusterDoor, relay: Relay, settings: PilotSettings) -> None:
        self._database = database
        self._cluster = cluster
        self._relay = relay
        self._settings = settings
        self._latest: dict[int, m.ProgressReply] = {}
        self._problems: dict[int, str] = {}
        self._asked_s: dict[int, float] = {}
        self._busy_until_s: dict[int, float] = {}
        self._beat_s = float("-inf")
        self._swept_s = float("-inf")
        self._sentence = ""

    @property
    def latest(self) -> Mapping[int, m.ProgressReply]:
        """The last progress of each project, by its number."""
        return self._latest

    def cycle(self) -> None:
        """Beat, then look at every project whose turn it is."""
        now_s = time.monotonic()
        if now_s - self._beat_s >= HEARTBEAT_S:
            self._beat_s = now_s
            self._beat()
        with self._database.read() as tx:
            known = projects.list_projects(tx)
            archived = projects.list_projects(tx, which=Which.ARCHIVED)
            on_their_way = {one for state in (SENT, RULES_SENT) for one in outbox.projects_with(tx, state)}
        for project in (*known, *(one for one in archived if one.id in on_their_way)):
            is_busy = project.id in on_their_way or now_s < self._busy_until_s.get(project.id, float("-inf"))
            pause_s = self._settings.progress_s if is_busy else IDLE_POLL_S
            if project.opened_revision and now_s - self._asked_s.get(project.id, float("-inf")) >= pause_s:
                self._asked_s[project.id] = now_s
                self._look(project)

    def _beat(self) -> None:
        sentence, is_connected = describe(self._cluster)
        now = time.time()
        with self._database.write() as tx:
            live.save_pilot(tx, sentence, is_connected, now)
            if time.monotonic() - self._swept_s >= SWEEP_S:
                self._swept_s = time.monotonic()
                leases.drop_expired(tx, now - _LEASES_KEPT_S)
        if sentence != self._sentence:
            self._sentence = sentence
            logger.info("cluster: %s", sentence)

    def _look(self, project: Project) -> None:
        rows = self._relay.sent_rows(project.id)
        keys = tuple(m.ItemKey(item_id=row.item_id, revision=row.revision) for row in rows)
        try:
            progress = self._cluster.train().progress(m.ProgressRequest(task=project.slug, items=keys), deadline_s=DEADLINE_S)
        except LabelloopError as exc:
            self._note_problem(project, str(exc))
            return
        self._relay.settle(project, rows, progress.states)
        self._take(project, msgspec.structs.replace(progress, states=()))
        if rows or progress.run is not None or progress.waiting_batches:
            self._busy_until_s[project.id] = time.monotonic() + BUSY_FOR_S

    def _note_problem(self, project: Project, problem: str) -> None:
        if self._problems.get(project.id) == problem:
            return
        self._problems[project.id] = problem
        logger.warning("no news of %s: %s", project.slug, problem)
        with self._database.write() as tx:
            live.save_live(tx, project.id, None, problem, time.time())

    def _take(self, project: Project, progress: m.ProgressReply) -> None:
        before = self._latest.get(project.id)
        if before == progress and not self._problems.get(project.id):
            return
        self._problems.pop(project.id, None)
        models = self._ask_models(project) if _is_new_round(before, progress) else None
        with self._database.write() as tx:
            live.save_live(tx, project.id, progress, "", time.time())
            self._save_runs(tx, project, models, progress.run)
            if models is not None:
                live.save_versions(tx, project.id, models.versions)
            if progress.stop and (before.stop if before else progress.stop) != progress.stop:
                events.add_event(tx, project.id, "stop", progress.stop, None, time.time())
            if before is not None and before.serving != progress.serving:
                text = f"version {progress.serving} serves now" if progress.serving else "no version serves any more"
                events.add_event(tx, project.id, "version", text, None, time.time(), {"version": progress.serving})
            if before is not None and before.next_training != progress.next_training:
                events.add_event(tx, project.id, "policy", progress.next_training, None, time.time())
        self._latest[project.id] = progress

    def _save_runs(self, tx: Tx, project: Project, models: m.ModelsReply | None, running: m.RunView | None) -> None:
        """Keep the runs, and tell of those that have ended. Must come before the versions are saved: see `readings.save_runs`."""
        now = time.time()
        if running is not None and models is None:
            readings.save_live_run(tx, project.id, running, now)
        for run in readings.save_runs(tx, project.id, models.runs, now) if models is not None else ():
            detail = {"run": run.run, "state": run.state, "version": run.version, "labels": run.labels, "metrics": run.metrics}
            events.add_event(tx, project.id, "training", f"training {run.run} is {run.state}: {run.reason}", None, now, detail)

    def _ask_models(self, project: Project) -> m.ModelsReply | None:
        try:
            return self._cluster.train().models(m.TaskRequest(task=project.slug), deadline_s=DEADLINE_S)
        except LabelloopError as exc:
            logger.warning("no versions of %s: %s", project.slug, exc)
            return None


def _is_new_round(before: m.ProgressReply | None, now: m.ProgressReply) -> bool:
    """Return whether the list of versions may have changed: at the start, with the pointer, and when a run began or ended."""
    if before is None or before.pointer != now.pointer or before.serving != now.serving:
        return True
    return (before.run and (before.run.run, before.run.state)) != (now.run and (now.run.run, now.run.state))


def describe(cluster: ClusterDoor) -> tuple[str, bool]:
    """Return what the cluster lacks as a sentence, and whether labels and drafts can flow."""
    try:
        topology = cluster.topology()
    except LabelloopError as exc:
        return f"the cluster does not answer, so labels wait here: {exc}", False
    missing = [role for role, found in (("train", topology.train_rpc), ("inference", topology.inference_rpc)) if not found]
    if missing:
        why = "; ".join(topology.warnings)
        return f"no {' and no '.join(missing)} node is online" + (f": {why}" if why else ""), False
    return "; ".join(topology.warnings) or "all is well", True
