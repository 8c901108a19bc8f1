"""What a project's page says: counts, corrections, curve, version, what comes next and what is wrong.

Owns the sentences about trouble. Must never ask the cluster: it reads what the pilot last wrote. Called by the status endpoint and
the pages.
"""

from __future__ import annotations

import time

import msgspec

from labelloop.errors import UnreachableError
from labelloop.messages import ProgressReply, RunView
from webapp.db import live, outbox, rankings, scores, tallies
from webapp.db.engine import Database, Tx
from webapp.db.outbox import Failure
from webapp.db.projects import Project
from webapp.queue import RankedQueue

PILOT_SILENT_S = 15.0


class VersionShare(msgspec.Struct, frozen=True):
    """How often the drafts of one version were corrected."""

    version: str
    drafted: int
    corrected: int


class Status(msgspec.Struct, frozen=True):
    """A project at this moment. `outbox` labels are not in the cluster's log yet, the oldest for `outbox_age_s` seconds.

    `labels_sent` are in the log; at `next_training_at` of them the next training starts (0 = unknown). `drafts_version` is the
    version whose drafts are complete, `is_ordered` whether the queue stands in the order of that version. `stop` says why
    labelling may stop, `trouble` what keeps the loop from turning; '' = go on, and nothing.
    """

    slug: str
    items: int
    labels: int
    drafted: int
    corrected: int
    corrections_per_100: list[float]
    corrections_by_version: list[VersionShare]
    curve: list[tuple[int, float]]
    accuracy: float | None
    serving: str
    pointer: int
    drafts_version: str
    is_ordered: bool
    ordering: str
    queued: int | None
    next_training: str
    next_training_at: int
    labels_sent: int
    stop: str
    comparer: str
    agreement: float | None
    run: RunView | None
    runs_seen: int
    outbox: int
    outbox_age_s: float
    failed: list[Failure]
    trouble: str
    is_paused: bool
    spec_revision: int
    opened_revision: int


def read_status(database: Database, queue: RankedQueue, project: Project) -> Status:
    """Return the status of a project."""
    now = time.time()
    with database.read() as tx:
        return _status(tx, queue, project, now)


def _status(tx: Tx, queue: RankedQueue, project: Project, now: float) -> Status:
    total = tallies.total(tx, project.id)
    seen = live.read_live(tx, project.id)
    progress = seen.progress if seen and seen.progress else ProgressReply(task=project.slug)
    oldest = outbox.oldest_waiting(tx, project.id)
    versions = live.read_versions(tx, project.id)
    ranking, scored = rankings.ranking_head(tx, project.id), scores.read_scored(tx, project.id)
    return Status(
        slug=project.slug,
        items=total.items,
        labels=total.labels,
        drafted=total.drafted,
        corrected=total.corrected,
        corrections_per_100=_windows(tx, project.id),
        corrections_by_version=_by_version(tx, project.id),
        curve=live.curve(tx, project.id),
        accuracy=next((v.metrics.get("accuracy") for v in versions if v.version == progress.serving), None),
        serving=progress.serving,
        pointer=progress.pointer,
        drafts_version=scored.version,
        is_ordered=ranking is not None and scored.is_ordered and ranking.version == progress.serving,
        ordering=ranking.reason if ranking else "",
        queued=_queued(queue, project.id),
        next_training=progress.next_training,
        next_training_at=progress.labels + progress.labels_to_next if progress.labels_to_next > 0 else 0,
        labels_sent=progress.labels,
        stop=_stop(project, total.labels) or progress.stop,
        comparer=progress.comparer,
        agreement=progress.agreement,
        run=progress.run,
        runs_seen=progress.run.run if progress.run else len(versions),
        outbox=outbox.waiting(tx, project.id),
        outbox_age_s=round(now - oldest, 3) if oldest is not None else 0.0,
        failed=list(outbox.failures(tx, project.id, 20)),
        trouble=find_trouble(live.read_pilot(tx), now) or (seen.problem if seen else "") or outbox.why_waiting(tx, project.id),
        is_paused=project.is_paused,
        spec_revision=project.spec_revision,
        opened_revision=project.opened_revision,
    )


def _windows(tx: Tx, project_id: int) -> list[float]:
    windows = sorted(tallies.by_key(tx, project_id, tallies.WINDOW).items(), key=lambda pair: int(pair[0]))
    return [round(100 * tally.corrected / tally.drafted, 1) for _, tally in windows if tally.drafted]


def _by_version(tx: Tx, project_id: int) -> list[VersionShare]:
    found = sorted(tallies.by_key(tx, project_id, tallies.VERSION).items())
    return [VersionShare(version, tally.drafted, tally.corrected) for version, tally in found]


def _queued(queue: RankedQueue, project_id: int) -> int | None:
    try:
        return queue.size(project_id)
    except UnreachableError:
        return None


def _stop(project: Project, labels: int) -> str:
    if project.budget and labels >= project.budget:
        return f"the labelling budget of {project.budget} labels is reached"
    return "the project is paused by its owner" if project.is_paused else ""


def find_trouble(pilot: live.PilotState | None, now: float) -> str:
    """Return what keeps labels from the cluster, '' = nothing that the pilot knows of."""
    if pilot is None:
        return "the pilot has never run, so labels wait here: start `labelloop pilot`"
    silent_s = now - pilot.at
    if silent_s > PILOT_SILENT_S:
        return f"the pilot has been silent for {silent_s:.0f} s, so labels wait here: start `labelloop pilot`"
    return "" if pilot.is_connected else pilot.sentence
