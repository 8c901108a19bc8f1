"""Work on whole projects that no person waits for: labels written anew, copies filled, deleted projects really dropped.

Owns the pace: each step is one short transaction, so that annotators never wait behind it, and moves the job's place with what it
did. Needs no cluster. Called by the pilot's upkeep thread.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from labelloop.errors import CancelledError, LabelloopError, NotReadyError, RetryableError
from webapp.db import dropping, events, imports, project_jobs, projects, relabelling
from webapp.db.engine import Database
from webapp.db.project_jobs import ProjectJob
from webapp.db.projects import Project, Which
from webapp.media import MediaStore
from webapp.pilot.copying import fill_copy
from webapp.transfer.drops import drop_upload

logger = logging.getLogger(__name__)
AT_ONCE = 500  # items a transaction: whoever labels on SQLite waits for the one that runs
SETTLE_S = 1.0  # requests that began under the names of before have ended by then


class Upkeep:
    """`keep_s`: how long a deleted project can come back. `ended` set = stop after the present step."""

    def __init__(self, database: Database, media: MediaStore, keep_s: float, ended: threading.Event) -> None:
        self._database = database
        self._media = media
        self._keep_s = keep_s
        self._ended = ended

    def cycle(self) -> None:
        """Do every job that waits, one a project, then drop what was deleted long ago."""
        with self._database.read() as tx:
            jobs = project_jobs.live_jobs(tx)
        for job in jobs:
            if job.created_at <= time.time() - SETTLE_S:
                self._run(job)
        self._drop_deleted()

    def _run(self, job: ProjectJob) -> None:
        with self._database.read() as tx:
            project = projects.project_by_id(tx, job.project_id)
        if project is None:
            return
        try:
            done = self._copy(project, job) if job.kind == "copy" else self._relabel(project, job)
            self._end(project, done, "done", "")
        except CancelledError as exc:
            logger.info("%s: %s", project.slug, exc)
        except RetryableError:
            raise
        except LabelloopError as exc:
            logger.error("%s: %s fails: %s", project.slug, job.kind, exc)
            self._end(project, job, "failed", str(exc))

    def _check_stop(self) -> None:
        if self._ended.is_set():
            raise NotReadyError("the pilot stops; the work goes on when it starts again")

    def _end(self, project: Project, job: ProjectJob, state: str, reason: str) -> None:
        now = time.time()
        with self._database.write() as tx:
            project_jobs.move_job(tx, job.id, now, state=state, reason=reason)
            said = f"{job.kind}: {job.changed} items changed" + (f": {reason}" if reason else "")
            events.add_event(tx, project.id, "labels" if job.kind != "copy" else "project", said, job.user_id, now)
        logger.info("%s: %s", project.slug, said)

    # ------------------------------------------------------------ labels

    def _relabel(self, project: Project, job: ProjectJob) -> ProjectJob:
        """Walk over all labelled items: people's, then those of rules."""
        is_merge_undone = job.kind == "undo" and job.detail["of"] == "merge"
        undone = int(job.detail["undoes"]) if is_merge_undone else None
        change = relabelling.as_before if is_merge_undone else relabelling.as_now
        for state in relabelling.STATES:
            if job.phase and state < int(job.phase):
                continue
            if job.phase != str(state):
                job = self._move(job, phase=str(state), place=-1)
            while True:
                self._check_stop()
                with self._database.read() as tx:
                    chunk = relabelling.next_chunk(tx, project, state, job.place, AT_ONCE, undone)
                if not chunk.n:
                    break
                now = time.time()
                with self._database.write() as tx:
                    n = relabelling.rewrite(tx, project, chunk.numbers, job.id, change, now) if chunk.numbers else 0
                    moved = {"place": chunk.place, "done": job.done + chunk.n, "changed": job.changed + n}
                    job = project_jobs.move_job(tx, job.id, now, state="running", **moved)
        with self._database.write() as tx:
            relabelling.move_votes(tx, project)
        return job

    def _move(self, job: ProjectJob, **changes: object) -> ProjectJob:
        with self._database.write() as tx:
            return project_jobs.move_job(tx, job.id, time.time(), state="running", **changes)

    # ------------------------------------------------------------ copies

    def _copy(self, project: Project, job: ProjectJob) -> ProjectJob:
        return fill_copy(self._database, self._media, project, job, self._check_stop)

    # ------------------------------------------------------------ deleted projects

    def _drop_deleted(self) -> None:
        before = time.time() - self._keep_s
        with self._database.read() as tx:
            gone = [one for one in projects.list_projects(tx, which=Which.DELETED) if (one.deleted_at or 0.0) <= before]
        for project in gone:
            with self._database.read() as tx:
                uploads = [Path(job.path) for job in imports.list_jobs(tx, project.id, 10_000) if job.path]
            for path in uploads:
                drop_upload(path)
            self._media.drop(project.slug)
            while dropping.drop_some(self._database, project.id):
                self._check_stop()
            logger.info("project %s, deleted %.0f s ago, is gone", project.slug, time.time() - (project.deleted_at or 0.0))
