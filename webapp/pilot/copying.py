"""Fills a copy of a project with the items of its source, and on wish with what people said of them.

Owns nothing: the copy is told apart by its own id. An uploaded file is linked, not doubled. Must never copy drafts, leases or
labels of rules: the copy's own cluster task makes its own. Called by the pilot's upkeep.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from labelloop.errors import NotFoundError
from webapp.db import copies, items, project_jobs, projects
from webapp.db.engine import Database
from webapp.db.items import LABELLED, OPEN, RULED, NewItem
from webapp.db.project_jobs import ProjectJob
from webapp.db.projects import Project
from webapp.media import MediaStore

AT_ONCE = 1000
_STATES = (OPEN, LABELLED, RULED)


def fill_copy(database: Database, media: MediaStore, copy: Project, job: ProjectJob, check_stop: Callable[[], None]) -> ProjectJob:
    """Copy chunk by chunk until the end and return the job. Raises NotFoundError when the source is gone."""
    with database.read() as tx:
        source = projects.project_by_id(tx, int(job.detail["source"]))
    if source is None:
        raise NotFoundError("the project that was to be copied is gone")
    for state in _STATES:
        if job.phase and state < int(job.phase):
            continue
        while True:
            check_stop()
            place = job.place if job.phase == str(state) else -1
            with database.read() as tx:
                found = items.page_items(tx, source.id, state, place, AT_ONCE)
                said = copies.labels_of(tx, [one.number for one in found]) if state == LABELLED and job.detail["labels"] else {}
            new = [NewItem(one.item_id, media.take_over(source.slug, copy.slug, one.link), one.content, one.name) for one in found]
            now = time.time()
            with database.write() as tx:
                changed = job.changed + items.add_items(tx, copy, new, job.user_id, now)
                copies.add_labels(tx, copy, {one.item_id: said[one.number] for one in found if one.number in said}, now)
                moved = {"phase": str(state), "place": found[-1].position if found else -1, "done": job.done + len(found)}
                job = project_jobs.move_job(tx, job.id, now, state="running", changed=changed, **moved)
            if not found:
                break
    return job
