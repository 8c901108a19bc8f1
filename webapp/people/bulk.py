"""Accepting all drafts over a confidence at once: begin, cancel, undo as a whole, and what the audit says of the error.

Owns the steps of a job and the interval of its measured error. Each step is one transaction that also moves the job's place, so
that a pilot that is killed goes on where it was. Must never accept a draft of an item that somebody has in hand. Called by the API
and, for the steps, by the pilot.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import Any

import msgspec

from labelloop.errors import CancelledError, ConflictError, InvalidInputError
from webapp.db import bulk, events, opinions, projects, reviews, tallies
from webapp.db.bulk import BulkJob
from webapp.db.engine import Database, Tx
from webapp.db.opinions import AUDIT
from webapp.db.projects import Project
from webapp.db.users import User
from webapp.projects.service import Access

logger = logging.getLogger(__name__)
AT_ONCE = 1000
SHOWN = 10
NOT_PER_LABEL = "drafts that came with an import do not say how sure each label is: they were left for people"
_Z = 1.959964  # of a 95 % interval


def accept(database: Database, access: Access, user: User, least: float, audit: int) -> BulkJob:
    """Queue the acceptance of all drafts that are at least this sure. Raises InvalidInputError, ConflictError."""
    project = access.project
    if not 0 < least <= 1:
        raise InvalidInputError(f"least_confidence {least!r}: use a share above 0 and up to 1")
    if project.work.overlap > 1:
        raise ConflictError(
            "items of this project want several people each: set the overlap to 1 before drafts are accepted unseen"
        )
    now = time.time()
    with database.write() as tx:
        count = tallies.total(tx, project.id)
        job = bulk.add_job(tx, project.id, user.id, least, audit, max(count.items - count.labels, 0), now)
        events.add_event(tx, project.id, "bulk", f"{user.name} accepts drafts from {least:.0%} on", user.id, now)
    return job


def cancel(database: Database, access: Access, job_id: int) -> BulkJob:
    """End a job; what it accepted so far stays until it is undone. Raises NotFoundError, ConflictError."""
    with database.write() as tx:
        return bulk.turn_job(tx, access.project.id, job_id, "cancelled", ("waiting", "running"), time.time())


def undo(database: Database, access: Access, user: User, job_id: int) -> BulkJob:
    """Take back every label of a job that no person has touched since. Raises NotFoundError, ConflictError."""
    now = time.time()
    with database.write() as tx:
        if bulk.live_job(tx, access.project.id) is not None:
            raise ConflictError("drafts are being accepted already: wait for the end, or cancel it")
        job = bulk.turn_job(tx, access.project.id, job_id, "undoing", ("done", "cancelled", "failed"), now, place=-1)
        events.add_event(tx, access.project.id, "bulk", f"{user.name} takes {job.accepted} accepted drafts back", user.id, now)
    return job


def read_jobs(database: Database, project: Project) -> list[dict[str, Any]]:
    """Return the newest jobs, each with what its audit found."""
    with database.read() as tx:
        return [job_reply(job, bulk.audited(tx, job.id)) for job in bulk.last_jobs(tx, project.id, SHOWN)]


def job_reply(job: BulkJob, audited: tuple[int, int, int] = (0, 0, 0)) -> dict[str, Any]:
    """Return a job as JSON shows it; `error` is the share of wrong labels in the audit, with its 95 % interval."""
    drawn, looked, wrong = audited
    low, high = interval(wrong, looked)
    shown = {name: value for name, value in msgspec.structs.asdict(job).items() if name not in ("project_id", "place", "user_id")}
    share = 1.0 if job.state not in bulk.LIVE else min(job.done / job.total, 1.0) if job.total else 0.0
    error = {
        "drawn": drawn,
        "looked": looked,
        "wrong": wrong,
        "share": wrong / looked if looked else None,
        "low": low,
        "high": high,
    }
    return shown | {"share": round(share, 4), "error": error}


def interval(wrong: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, Journal of the American Statistical Association 1927); (0, 1) without any."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = wrong / n, _Z**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, round(middle - half, 6)), min(1.0, round(middle + half, 6))


# ---------------------------------------------------------------- the steps, in the pilot


class BulkRunner:
    """Runs the jobs of all projects, one step after the other. `ended` set = stop after the present step."""

    def __init__(self, database: Database, ended: threading.Event) -> None:
        self._database = database
        self._ended = ended

    def cycle(self) -> bool:
        """Take the job of each project that has one to its end; return whether there was one."""
        with self._database.read() as tx:
            waiting = bulk.projects_with_jobs(tx)
        for project_id in waiting:
            with self._database.read() as tx:
                project, job = projects.project_by_id(tx, project_id), bulk.live_job(tx, project_id)
            if project is not None and job is not None:
                self._run(project, job)
        return bool(waiting)

    def _run(self, project: Project, job: BulkJob) -> None:
        try:
            if job.state == "waiting":
                with self._database.write() as tx:
                    job = bulk.move_job(tx, job, time.time(), state="running")
            step = self._undo if job.state == "undoing" else self._accept
            going: BulkJob | None = job
            while going is not None and not self._ended.is_set():
                going = step(project, going)
        except CancelledError as exc:
            logger.info("%s: %s", project.slug, exc)

    def _accept(self, project: Project, job: BulkJob) -> BulkJob | None:
        """Accept the next chunk; None = the job has ended."""
        now = time.time()
        with self._database.write() as tx:
            page = bulk.drafts_after(tx, project, job.place, AT_ONCE, now)
            if not page:
                self._finish(tx, project, job, now)
                return None
            sure = [one for _, one in page if one.draft is not None and one.draft.confidence >= job.least_confidence]
            known = [one for one in sure if not project.is_multilabel or (one.draft is not None and one.draft.is_of_model)]
            n = bulk.accept(tx, project, job, known, now)
            counts = {"place": page[-1][0], "done": job.done + len(page), "accepted": job.accepted + n}
            reason = NOT_PER_LABEL if len(known) < len(sure) else job.reason
            return bulk.move_job(tx, job, now, reason=reason, **counts)

    def _finish(self, tx: Tx, project: Project, job: BulkJob, now: float) -> None:
        """Draw the audit: these items go to people like all others, without their draft."""
        drawn = bulk.draw_audit(tx, job, job.audit, job.id)
        rows = [{"item": n, "purpose": AUDIT, "wanted": 1, "taken": 0, "given": 0, "job_id": job.id} for n in drawn]
        opinions.drop_rounds(tx, drawn)
        opinions.add_rounds(tx, project.id, rows, now)
        bulk.move_job(tx, job, now, state="done", done=job.total)
        if drawn:
            reviews.mark_errands(tx, project.id, True)
        text = f"{job.accepted} drafts accepted, {len(drawn)} of them go to people for the audit"
        events.add_event(tx, project.id, "bulk", text, job.user_id, now)
        logger.info("%s: %s", project.slug, text)

    def _undo(self, project: Project, job: BulkJob) -> BulkJob | None:
        now = time.time()
        with self._database.write() as tx:
            kept, last = bulk.still_accepted(tx, job, job.place, AT_ONCE)
            if last < 0:
                bulk.move_job(tx, job, now, state="undone", place=-1)
                text = f"{job.withdrawn} accepted drafts were taken back"
                events.add_event(tx, project.id, "bulk", text, job.user_id, now)
                return None
            bulk.withdraw(tx, project, job, kept, now)
            bulk.drop_items(tx, job, last)
            return bulk.move_job(tx, job, now, place=last, withdrawn=job.withdrawn + len(kept))
