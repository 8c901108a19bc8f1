"""What a project's page says: counts, corrections, curve, version, what comes next and what is wrong.

Owns the sentences about trouble. Must never ask the cluster: it reads what the pilot last wrote. Called by the status endpoint and
the pages.
"""

from __future__ import annotations

import time

import msgspec

from labelloop.errors import UnreachableError
from labelloop.messages import ProgressReply, RunView
from webapp.db import live, outbox, project_jobs, rankings, scores, tallies
from webapp.db.engine import Database, Tx
from webapp.db.outbox import Failure
from webapp.db.projects import Project
from webapp.projects.outlook import Outlook, bounds_of, chance_of, look_ahead
from webapp.projects.service import NOT_LEARNED
from webapp.queue import RankedQueue

PILOT_SILENT_S = 15.0


class VersionShare(msgspec.Struct, frozen=True):
    """How often the drafts of one version were corrected, and how long people took over them: `seconds` in all for `timed` labels.
    Version '' = labels that were given without a draft."""

    version: str
    drafted: int
    corrected: int
    timed: int = 0
    seconds: float = 0.0


class Work(msgspec.Struct, frozen=True):
    """What goes on in the background for a whole project: 'rename', 'merge', 'undo' (of labels) or 'copy'; `share` in [0, 1]."""

    kind: str
    share: float


class Status(msgspec.Struct, frozen=True):
    """A project at this moment. `outbox` labels are not in the cluster's log yet, the oldest for `outbox_age_s` seconds.
    `labels` are people's; `rule_labels` items have one that only rules gave, and `rules_outbox` of those are on their way.

    `curve_bounds` are the 95 % bounds of the curve's accuracies, None where the size of the held-out part is not known; `chance` is
    how often guessing is right. `labels_per_hour` is people's pace of the last half hour, `left_s` the time left at that pace.
    `spread`: how many items people gave each label. `agreement` is that of drafts with people, `people_agreement` that of
    people among each other.

    `labels_sent` are in the log; at `next_training_at` of them the next training starts (0 = unknown). `drafts_version` is the
    version whose drafts are complete, `is_ordered` whether the queue stands in the order of that version, which was made by
    `ordered_by`; `ordering_problem` says why not by the project's own strategy ('' = it was). `stop` says why
    labelling may stop, `trouble` what keeps the loop from turning; '' = go on, and nothing.
    """

    slug: str
    is_learned: bool
    items: int
    labels: int
    rule_labels: int
    rules_outbox: int
    drafted: int
    corrected: int
    corrections_per_100: list[float]
    corrections_by_version: list[VersionShare]
    curve: list[tuple[int, float]]
    curve_bounds: list[tuple[float, float] | None]
    chance: float | None
    labels_per_hour: float | None
    left_s: float | None
    spread: list[tuple[str, int]]
    accuracy: float | None
    serving: str
    pointer: int
    drafts_version: str
    is_ordered: bool
    ordering: str
    ordered_by: str
    ordering_problem: str
    queued: int | None
    next_training: str
    next_training_at: int
    labels_sent: int
    stop: str
    comparer: str
    agreement: float | None
    people_agreement: float | None
    run: RunView | None
    runs_seen: int
    outbox: int
    outbox_age_s: float
    failed: list[Failure]
    trouble: str
    work: Work | None
    is_paused: bool
    is_archived: bool
    spec_revision: int
    opened_revision: int


def read_status(database: Database, queue: RankedQueue, project: Project) -> Status:
    """Return the status of a project."""
    now = time.time()
    with database.read() as tx:
        total = tallies.total(tx, project.id)
    outlook = look_ahead(database, project, total)
    with database.read() as tx:
        return _status(tx, queue, project, now, outlook)


def _status(tx: Tx, queue: RankedQueue, project: Project, now: float, outlook: Outlook) -> Status:
    total = tallies.total(tx, project.id)
    seen = live.read_live(tx, project.id)
    progress = seen.progress if seen and seen.progress else ProgressReply(task=project.slug)
    oldest = outbox.oldest_waiting(tx, project.id)
    versions = live.read_versions(tx, project.id)
    ranking, scored = rankings.ranking_head(tx, project.id), scores.read_scored(tx, project.id)
    return Status(
        slug=project.slug,
        is_learned=project.is_learned,
        items=total.items,
        labels=total.labels,
        rule_labels=tallies.ruled(tx, project.id),
        rules_outbox=outbox.waiting(tx, project.id, outbox.OF_RULES),
        drafted=total.drafted,
        corrected=total.corrected,
        corrections_per_100=_windows(tx, project.id),
        corrections_by_version=_by_version(tx, project.id, total),
        curve=live.curve(tx, project.id),
        curve_bounds=bounds_of(versions),
        chance=chance_of(project),
        labels_per_hour=outlook.labels_per_hour,
        left_s=outlook.left_s,
        spread=outlook.spread,
        accuracy=next((live.accuracy_of(v) for v in versions if v.version == progress.serving), None),
        serving=progress.serving,
        pointer=progress.pointer,
        drafts_version=scored.version,
        is_ordered=ranking is not None and scored.is_ordered and ranking.version == progress.serving,
        ordering=ranking.reason if ranking else "",
        ordered_by=ranking.strategy if ranking else "",
        ordering_problem=scored.problem,
        queued=_queued(queue, project.id),
        next_training=progress.next_training if project.is_learned else NOT_LEARNED,
        next_training_at=progress.labels + progress.labels_to_next if progress.labels_to_next > 0 else 0,
        labels_sent=progress.labels,
        stop=_stop(project, total.labels) or progress.stop,
        comparer=progress.comparer,
        agreement=progress.agreement,
        people_agreement=outlook.people_agreement,
        run=progress.run,
        runs_seen=progress.run.run if progress.run else len(versions),
        outbox=outbox.waiting(tx, project.id),
        outbox_age_s=round(now - oldest, 3) if oldest is not None else 0.0,
        failed=list(outbox.failures(tx, project.id, 20)),
        trouble=_trouble(tx, project, seen.problem if seen else "", now),
        work=_work(tx, project.id),
        is_paused=project.is_paused,
        is_archived=project.is_archived,
        spec_revision=project.spec_revision,
        opened_revision=project.opened_revision,
    )


def _trouble(tx: Tx, project: Project, problem: str, now: float) -> str:
    """Return what keeps the loop from turning; a project that the cluster does not learn needs neither pilot nor cluster."""
    if not project.is_learned:
        return ""
    return find_trouble(live.read_pilot(tx), now) or problem or outbox.why_waiting(tx, project.id)


def _windows(tx: Tx, project_id: int) -> list[float]:
    windows = sorted(tallies.by_key(tx, project_id, tallies.WINDOW).items(), key=lambda pair: int(pair[0]))
    return [round(100 * tally.corrected / tally.drafted, 1) for _, tally in windows if tally.drafted]


def _by_version(tx: Tx, project_id: int, total: tallies.Tally) -> list[VersionShare]:
    found = [
        VersionShare(version, tally.drafted, tally.corrected, tally.timed, round(tally.seconds, 3))
        for version, tally in sorted(tallies.by_key(tx, project_id, tallies.VERSION).items())
    ]
    timed = total.timed - sum(one.timed for one in found)
    seconds = total.seconds - sum(one.seconds for one in found)
    return [VersionShare("", 0, 0, timed, round(seconds, 3)), *found] if timed > 0 else found


def _queued(queue: RankedQueue, project_id: int) -> int | None:
    try:
        return queue.size(project_id)
    except UnreachableError:
        return None


def _work(tx: Tx, project_id: int) -> Work | None:
    jobs = [job for job in project_jobs.list_jobs(tx, project_id, 5) if job.state in project_jobs.LIVE]
    return Work(jobs[-1].kind, round(jobs[-1].share, 3)) if jobs else None


def _stop(project: Project, labels: int) -> str:
    if project.is_archived:
        return f"project {project.slug!r} is archived: bring it back to change anything"
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
