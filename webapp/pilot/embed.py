"""Sends new items to be embedded (and scored, once a model serves), and remembers which shard holds them.

Owns the way of an item into a block. Must never hold back what is scored already. Called by the pilot, one project at a time a
thread.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Mapping, Sequence

from labelloop import messages as m
from webapp.cluster_door import ClusterDoor
from webapp.db import events, items, retries, scores
from webapp.db.engine import Database
from webapp.db.items import StoredItem, link_of
from webapp.db.projects import Project
from webapp.pilot.results import answers_of, marked_drafts, read_results

logger = logging.getLogger(__name__)
BATCH_ITEMS = 2048


class Embedder:
    """Embeds what waits. `latest` is the last progress of each project."""

    def __init__(
        self, database: Database, cluster: ClusterDoor, latest: Mapping[int, m.ProgressReply], ended: threading.Event
    ) -> None:
        self._database = database
        self._cluster = cluster
        self._latest = latest
        self._ended = ended

    def cycle(self, project: Project) -> bool:
        """Embed the next items behind the project's watermark, or those that a person asked for again; False = none wait."""
        self._again(project)
        with self._database.read() as tx:
            waiting = items.open_items_after(tx, project.id, scores.read_scored(tx, project.id).position, BATCH_ITEMS)
        if not waiting:
            return False
        self.embed(project, waiting)
        with self._database.write() as tx:
            scores.change_scored(tx, project.id, position=waiting[-1].position)
        return True

    def _again(self, project: Project) -> None:
        """Try items anew that could not be read, under a new job's name: the old job would give its old answer."""
        with self._database.read() as tx:
            asked_at, wanted = retries.next_retries(tx, project.id, BATCH_ITEMS)
        if wanted:
            self.embed(project, wanted, f"again {asked_at!r}")
            with self._database.write() as tx:
                retries.drop_retries(tx, [item.number for item in wanted])

    def embed(self, project: Project, wanted: Sequence[StoredItem], again: str = "") -> int:
        """Embed items and put them into blocks as their chunks come; return how many could not be read."""
        numbers = {item.item_id: item.number for item in wanted}
        progress = self._latest.get(project.id)
        serving, pointer = (progress.serving, progress.pointer) if progress else ("", 0)
        request = m.JobRequest(
            task=project.slug,
            job_id=job_id("items", serving, [*((again,) if again else ()), *(item.item_id for item in wanted)]),
            items=messages_of(project, wanted),
        )
        failed: list[m.ItemError] = []
        for page, chunk in read_results(self._cluster, request, True, lambda: "", self._ended):
            failed += chunk.failed
            ids = [numbers.get(item_id) for item_id in chunk.item_ids]
            if not ids or None in ids:
                continue
            known = [number for number in ids if number is not None]
            with self._database.write() as tx:
                at = pointer if chunk.version and chunk.version == serving else 0
                scores.add_block(tx, project.id, chunk.shard, known, chunk.version, at, answers_of(project, page.labels, chunk))
                if at:
                    scores.save_head(tx, project.id, at, marked_drafts(project, known, page.labels, chunk))
        self._tell(project, failed)
        return len(failed)

    def _tell(self, project: Project, failed: Sequence[m.ItemError]) -> None:
        if not failed:
            return
        text = f"{len(failed)} item{'s' if len(failed) > 1 else ''} cannot be read, {failed[0].item_id}: {failed[0].reason}"
        logger.warning("%s: %s", project.slug, text)
        detail = {"items": [{"item_id": error.item_id, "reason": error.reason} for error in failed[:100]]}
        with self._database.write() as tx:
            events.add_event(tx, project.id, "unreadable", text, None, time.time(), detail)


def messages_of(project: Project, wanted: Sequence[StoredItem]) -> tuple[m.Item, ...]:
    """Return items as the cluster knows them."""
    return tuple(m.Item(item_id=i.item_id, link=link_of(project.category, i.link, i.content)) for i in wanted)


def job_id(kind: str, version: str, parts: Sequence[str]) -> str:
    """Return a name for a job that is the same for the same work, so that a pilot that was killed finds its job again."""
    digest = hashlib.blake2b("\0".join((version, *parts)).encode(), digest_size=12).hexdigest()
    return f"{kind}-{digest}"
