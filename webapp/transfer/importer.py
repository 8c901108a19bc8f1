"""Runs imports: claims one, reads it in chunks, writes rows and progress in one transaction each, until none is left.

Owns the pace (rows a chunk). Must never be in a web process: it keeps a core busy. Called by `labelloop import-worker`, which the
pilot starts when an import waits, and by the benchmarks.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from labelloop.errors import ConflictError, LabelloopError, RetryableError
from webapp.db import events, export_rows, gold, imports, items, projects
from webapp.db.engine import Database
from webapp.db.imports import ImportJob, Progress, RowError
from webapp.db.items import NewItem
from webapp.db.projects import Project
from webapp.media import MediaStore
from webapp.transfer.beat import beating
from webapp.transfer.drops import drop_upload
from webapp.transfer.formats import IMPORTS
from webapp.transfer.readers import Reach, Read, Source, read_rows

logger = logging.getLogger(__name__)
CHUNK_ROWS = 5000
CHUNK_FILES = 250
STALE_S = 15.0
DEFECT = "the app has a defect with this file, its log has the details: send the file to whoever runs the app"


class Importer:
    """One process that imports. `max_item_bytes` bounds each uploaded file, `reach` what lies beyond the upload."""

    def __init__(self, database: Database, media: MediaStore, max_item_bytes: int, reach: Reach | None = None) -> None:
        self._database = database
        self._media = media
        self._max_item_bytes = max_item_bytes
        self._reach = reach or Reach()
        self._owner = secrets.token_hex(8)

    def run_all(self) -> int:
        """Run imports until none waits; return how many were run."""
        done = 0
        while self.run_next():
            done += 1
        return done

    def run_next(self) -> bool:
        """Run the oldest import that waits, or that a dead process left; False = there is none."""
        now = time.time()
        with self._database.write() as tx:
            job = imports.claim_job(tx, self._owner, now - STALE_S, now)
            project = projects.project_by_id(tx, job.project_id) if job else None
        if job is None or project is None:
            return False
        began = time.monotonic()
        try:
            with beating(lambda: self._touch(job)):
                self._run(job, project)
        except ConflictError as exc:
            logger.info("import %d of %s stops: %s", job.id, project.slug, exc)
            self._drop_if_cancelled(job)
            return True
        except RetryableError as exc:
            logger.warning("import %d of %s stops and goes on later: %s", job.id, project.slug, exc)
            return False
        except LabelloopError as exc:
            self._finish(job, project, "failed", str(exc))
        except Exception:  # the task's shell: a file that shows a defect must not be begun anew for ever
            logger.exception("import %d of %s: a defect", job.id, project.slug)
            self._finish(job, project, "failed", DEFECT)
        else:
            self._finish(job, project, "done", "")
        logger.info("import %d of %s took %.1f s", job.id, project.slug, time.monotonic() - began)
        return True

    def _run(self, job: ImportJob, project: Project) -> None:
        """Read the next chunk while the one before is written; a chunk is written only after the one before it."""
        reads = read_rows(Source(job, project, self._media, self._max_item_bytes, self._reach))
        size = CHUNK_FILES if IMPORTS[job.kind].is_files else CHUNK_ROWS
        with contextlib.closing(reads), ThreadPoolExecutor(1, thread_name_prefix="import") as writer:
            writing: Future[None] | None = None
            while chunk := list(islice(reads, size)):
                if writing is not None:
                    writing.result()
                writing = writer.submit(self._write, job, project, chunk)
            if writing is not None:
                writing.result()

    def _write(self, job: ImportJob, project: Project, chunk: list[Read]) -> None:
        new = [read.row for read in chunk if isinstance(read.row, NewItem)]
        errors = tuple(read.row for read in chunk if isinstance(read.row, RowError))
        sizes = {read.row.item_id: read.size for read in chunk if isinstance(read.row, NewItem) and read.size}
        now = time.time()
        with self._database.write() as tx:
            added = items.add_items(tx, project, new, job.user_id, now)
            gold.mark(tx, project.id, job.user_id, [one.item_id for one in new if one.is_gold], now, only_new=True)
            export_rows.keep_sizes(tx, project.id, sizes)
            progress = Progress(chunk[-1].offset, chunk[-1].line, added, len(new) - added, errors, chunk[-1].total)
            imports.advance(tx, job.id, self._owner, progress, now)

    def _touch(self, job: ImportJob) -> None:
        with self._database.write() as tx:
            imports.touch(tx, job.id, self._owner, time.time())

    def _drop_if_cancelled(self, job: ImportJob) -> None:
        with self._database.read() as tx:
            is_cancelled = imports.find_job(tx, job.project_id, job.id).state == "cancelled"
        if is_cancelled:
            drop_upload(Path(job.path))

    def _finish(self, job: ImportJob, project: Project, state: str, reason: str) -> None:
        now = time.time()
        with self._database.write() as tx:
            imports.finish_job(tx, job.id, self._owner, state, reason, now)
            ended = imports.find_job(tx, project.id, job.id)
            text = f"{job.name}: {ended.added} items added, {ended.known} were there, {ended.failed} refused" + (
                f": {reason}" if reason else ""
            )
            events.add_event(tx, project.id, "import", text, job.user_id, now)
        drop_upload(Path(job.path))
