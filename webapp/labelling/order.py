"""Fill the ranked queue from the database: after a new ranking, after a flush, when its head runs short.

Owns the way from a stored ranking to the queue. Must never be on an annotator's path: it runs in the background or in the pilot.
The queue is a bounded head (`QUEUE_ITEMS`): ranked items first, with the very scores of the ranking, then the rest by position.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from webapp.db import leases, rankings
from webapp.db.engine import Database
from webapp.queue import RankedQueue

logger = logging.getLogger(__name__)
QUEUE_ITEMS = 50_000


def rebuild(database: Database, queue: RankedQueue, project_id: int) -> int:
    """Replace the project's queue by what the database says now; return how many items stand in it."""
    queue.begin_build(project_id)
    with database.read() as tx:
        ranking = rankings.read_ranking(tx, project_id)
        out = leases.live_leases(tx, project_id, time.time())
        free = rankings.still_free(tx, project_id, ranking.item_ids) if ranking else set()
        rest = rankings.first_open(tx, project_id, max(QUEUE_ITEMS - len(free), 0) + len(free))
    order: list[tuple[str, float]] = []
    if ranking is not None:
        pairs = zip(ranking.item_ids, ranking.scores.tolist(), strict=True)
        order = [(item_id, score) for item_id, score in pairs if item_id in free]
    order += _below(rest, free, order[-1][1] if order else 0.0)
    generation = f"{ranking.generation if ranking else 0}-{time.time_ns()}"
    queue.swap(project_id, generation, order)
    scores = dict(order)
    for item_id, expires_at in out.items():
        queue.hold(project_id, item_id, expires_at, scores.get(item_id, 0.0))
    logger.info("project %d: the queue is built anew with %d items, %d of them ranked", project_id, len(order), len(free))
    return len(order)


def _below(rest: list[str], ranked: set[str], lowest: float) -> Iterator[tuple[str, float]]:
    place = lowest
    for item_id in rest:
        if item_id not in ranked:
            place -= 1.0
            yield item_id, place


def rebuild_if_allowed(database: Database, queue: RankedQueue, project_id: int) -> bool:
    """Rebuild unless another process does it at this moment; return whether it was done here."""
    if not queue.may_rebuild(project_id):
        return False
    try:
        rebuild(database, queue, project_id)
    finally:
        queue.end_rebuild(project_id)
    return True
