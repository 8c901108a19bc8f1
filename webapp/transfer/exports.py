"""Exports in the background, as the API asks for them: queued, listed, cancelled, found when they are done.

Called by the export views.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labelloop.errors import NotFoundError
from webapp.db import export_jobs
from webapp.db.engine import Database
from webapp.db.export_jobs import ExportJob
from webapp.db.projects import Project
from webapp.transfer.exporter import FILE, drop_files, folder_of
from webapp.transfer.formats import EXPORTS, ExportFormat, check_export


def queue_export(database: Database, project: Project, user_id: int, form: str, options: Mapping[str, Any]) -> ExportJob:
    """Queue an export. Raises InvalidInputError for a format that cannot carry the project's labels."""
    check_export(project, form)
    with database.write() as tx:
        return export_jobs.add_job(tx, project.id, user_id, form, options, time.time())


def list_exports(database: Database, project: Project) -> tuple[ExportJob, ...]:
    """Return the newest exports."""
    with database.read() as tx:
        return export_jobs.list_jobs(tx, project.id)


def show_export(database: Database, project: Project, job_id: int) -> ExportJob:
    """Return one export. Raises NotFoundError."""
    with database.read() as tx:
        return export_jobs.find_job(tx, project.id, job_id)


def end_export(database: Database, folder: Path, project: Project, job_id: int) -> ExportJob:
    """Cancel an export that has not ended, forget one that has; return it as it was or has become. Raises NotFoundError."""
    with database.write() as tx:
        job = export_jobs.find_job(tx, project.id, job_id)
        if job.state == "running":  # its process sees it at the next page, and takes its files away
            export_jobs.cancel_job(tx, project.id, job_id, time.time())
            return export_jobs.find_job(tx, project.id, job_id)
        export_jobs.drop_job(tx, project.id, job_id)
    drop_files(folder, job_id)
    return job


def file_of(database: Database, folder: Path, project: Project, job_id: int) -> tuple[Path, ExportFormat, float]:
    """Return the file of an export that is done, its format, and when it was made. Raises NotFoundError."""
    job = show_export(database, project, job_id)
    path = folder_of(folder, job.id) / FILE
    if job.state != "done" or not path.is_file():
        raise NotFoundError(f"export {job_id} has no file: it is {job.state}")
    return path, EXPORTS[job.format], job.updated_at
