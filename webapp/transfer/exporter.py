"""Runs exports: claims one, writes it page by page with a checkpoint each, until none is left.

Owns where exports lie: `<state>/exports/<number>/`, the parts while it grows and the file `export` when it is done. Must never be
in a web process. Called by `labelloop export-worker`, which the pilot starts when an export waits, and by the benchmarks.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec

from labelloop.errors import ConflictError, LabelloopError, RetryableError
from webapp.db import events, export_jobs, export_rows, projects
from webapp.db.engine import Database
from webapp.db.export_jobs import ExportJob
from webapp.db.exports import names_of_users
from webapp.db.items import BEGUN, LABELLED, OPEN, RULED
from webapp.db.projects import Project
from webapp.media import MediaStore
from webapp.transfer.beat import beating
from webapp.transfer.formats import writer_of
from webapp.transfer.writers.base import Plan, Writer
from webapp.transfer.writers.parts import Parts

logger = logging.getLogger(__name__)
STALE_S = 15.0
DEFECT = "the app has a defect with what is in this project, its log has the details: tell whoever runs the app"
STATES = {"labelled": (LABELLED,), "rules": (RULED,), "all": (LABELLED, RULED, BEGUN, OPEN)}
FILE = "export"


class Place(msgspec.Struct):
    """A checkpoint: which state of items (by number in `STATES`), behind which position, how long each part is."""

    state: int = 0
    after: int = -1
    done: int = 0
    total: int = -1
    lengths: dict[str, int] = {}
    writer: dict[str, Any] = {}


class Exporter:
    """One process that exports into `folder`."""

    def __init__(self, database: Database, media: MediaStore, folder: Path) -> None:
        self._database = database
        self._media = media
        self._folder = folder
        self._owner = secrets.token_hex(8)

    def run_all(self) -> int:
        """Run exports until none waits; return how many were run."""
        done = 0
        while self.run_next():
            done += 1
        return done

    def run_next(self) -> bool:
        """Run the oldest export that waits, or that a dead process left; False = there is none."""
        now = time.time()
        with self._database.write() as tx:
            job = export_jobs.claim_job(tx, self._owner, now - STALE_S, now)
            project = projects.project_by_id(tx, job.project_id) if job else None
        if job is None or project is None:
            return False
        try:
            with beating(lambda: self._touch(job)):
                size_bytes = self._run(job, project)
        except ConflictError as exc:
            logger.info("export %d of %s stops: %s", job.id, project.slug, exc)
            self._drop_if_cancelled(job)
        except RetryableError as exc:
            logger.warning("export %d of %s stops and goes on later: %s", job.id, project.slug, exc)
            return False
        except LabelloopError as exc:
            self._finish(job, project, "failed", str(exc), 0)
        except Exception:  # the task's shell: an item that shows a defect must not be exported anew for ever
            logger.exception("export %d of %s: a defect", job.id, project.slug)
            self._finish(job, project, "failed", DEFECT, 0)
        else:
            self._finish(job, project, "done", "", size_bytes)
        return True

    def _run(self, job: ExportJob, project: Project) -> int:
        """Write page by page, then make the file; return its size in bytes."""
        folder = folder_of(self._folder, job.id)
        place = msgspec.json.decode(job.place, type=Place) if job.place else Place()
        parts = Parts(folder, place.lengths)
        try:
            writer = writer_of(job.format)(Plan(project, self._media, job.options), parts, place.writer)
            self._write_pages(job, project, writer, place)
            made = folder / f"{FILE}.part"
            writer.finish(made)
        finally:
            parts.close()
        made.rename(folder / FILE)
        for path in folder.iterdir():
            if path.name != FILE:
                path.unlink()
        return (folder / FILE).stat().st_size

    def _write_pages(self, job: ExportJob, project: Project, writer: Writer, place: Place) -> None:
        states, names = STATES[str(job.options.get("which") or "labelled")], names_of_users(self._database)
        drafts = writer.plan.wants("with_drafts")
        if place.total < 0:
            with self._database.read() as tx:
                place.total = export_rows.count_items(tx, project.id, states)
        while place.state < len(states):
            with self._database.read() as tx:
                page = export_rows.page_after(tx, project, states[place.state], place.after, writer.page, names, drafts)
            if page:
                writer.write(page)
                place.after, place.done = page[-1].position, place.done + len(page)
            if len(page) < writer.page:
                place.state, place.after = place.state + 1, -1
            self._keep(job, writer, place)

    def _keep(self, job: ExportJob, writer: Writer, place: Place) -> None:
        """Make what was written and how far it goes one: the files first, then their lengths."""
        place.lengths, place.writer = writer.parts.checkpoint(), writer.state()
        text, problems, now = msgspec.json.encode(place).decode(), writer.problems, time.time()
        with self._database.write() as tx:
            export_jobs.advance(tx, job.id, self._owner, text, place.done, place.total, problems, now)
        writer.problems = []

    def _touch(self, job: ExportJob) -> None:
        with self._database.write() as tx:
            export_jobs.touch(tx, job.id, self._owner, time.time())

    def _finish(self, job: ExportJob, project: Project, state: str, reason: str, size_bytes: int) -> None:
        now = time.time()
        try:
            with self._database.write() as tx:
                export_jobs.finish_job(tx, job.id, self._owner, state, reason, size_bytes, now)
                text = f"{job.format}: {state}" + (f": {reason}" if reason else f", {size_bytes} bytes")
                events.add_event(tx, project.id, "export", text, job.user_id, now)
        except ConflictError:
            self._drop_if_cancelled(job)
            return
        if state == "failed":
            drop_files(self._folder, job.id)

    def _drop_if_cancelled(self, job: ExportJob) -> None:
        with self._database.read() as tx:
            is_gone = job.id not in export_jobs.live_ids(tx)
            is_gone = is_gone or export_jobs.find_job(tx, job.project_id, job.id).state == "cancelled"
        if is_gone:
            drop_files(self._folder, job.id)

    def sweep(self, keep_s: float) -> None:
        """Forget exports that ended long ago, and delete files that no export knows."""
        before = time.time() - keep_s
        with self._database.write() as tx:
            for project_id, job_id in export_jobs.ended_before(tx, before):
                export_jobs.drop_job(tx, project_id, job_id)
            known = export_jobs.live_ids(tx)
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if path.name.isdigit() and int(path.name) not in known:
                shutil.rmtree(path, ignore_errors=True)


def folder_of(folder: Path, job_id: int) -> Path:
    """Return where one export lies."""
    return folder / str(job_id)


def drop_files(folder: Path, job_id: int) -> None:
    """Delete an export's files."""
    shutil.rmtree(folder_of(folder, job_id), ignore_errors=True)
