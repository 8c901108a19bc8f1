"""What a fault may not do: the judgement over records of what was sent, answered and found afterwards; pure.

Owns the rules of "nothing is lost". Must never talk to a cluster: the flow and the reader of the datastore make the records. Called
by `scripts.chaos.trial` and by the tests, which feed it lost, doubled and unanswered items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec


class LabelSeen(msgspec.Struct, frozen=True):
    """One label: as it was sent, or as the merged label log has it."""

    item_id: str
    revision: int
    labels: tuple[str, ...]


class CallSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One answered `predict`: what was asked, and the ids that its answer held, good and failed."""

    asked: tuple[str, ...]
    answered: tuple[str, ...]
    failed: tuple[str, ...]
    version: str


class ChunkSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One chunk of a job's results: the ids it answers, good and failed, and the version it names."""

    chunk: int
    item_ids: tuple[str, ...]
    failed: tuple[str, ...]
    version: str


class JobSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted job: what was asked, the pages as the client got them, and all pages read once more at the end."""

    job_id: str
    asked: tuple[str, ...]
    pages: tuple[ChunkSeen, ...]
    again: tuple[ChunkSeen, ...]
    is_complete: bool


class Records(msgspec.Struct, frozen=True, kw_only=True):
    """All that one trial left.

    `acknowledged`: labels whose submit was answered, or that the outbox saw in the log; `offered`: every label that was ever sent,
    answered or not; `log`: the merged view of the label log, one entry a row; `told_labels`: how many labels the train
    master says it has, -1 = not asked. `unanswered_calls` are the ids of predict calls that never got an
    answer; `may_fail` are items that are poison on purpose; `errors` are permanent errors that clients got.
    """

    acknowledged: tuple[LabelSeen, ...]
    offered: tuple[LabelSeen, ...]
    log: tuple[LabelSeen, ...]
    calls: tuple[CallSeen, ...]
    jobs: tuple[JobSeen, ...]
    told_labels: int = -1
    unanswered_calls: tuple[str, ...] = ()
    may_fail: frozenset[str] = frozenset()
    errors: tuple[str, ...] = ()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Ids by what went wrong with them; all empty = nothing was lost. `wrong` holds sentences."""

    lost: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Return whether nothing at all went wrong."""
        return not (self.lost or self.doubled or self.unanswered or self.wrong)


def judge(records: Records) -> Verdict:
    """Return what went wrong with labels, calls and jobs."""
    parts = [_judge_labels(records), _judge_calls(records), *(_judge_job(job, records.may_fail) for job in records.jobs)]
    return Verdict(
        lost=_joined(part.lost for part in parts),
        doubled=_joined(part.doubled for part in parts),
        unanswered=_joined(part.unanswered for part in parts),
        wrong=_joined(part.wrong for part in parts) + records.errors,
    )


def _judge_labels(records: Records) -> Verdict:
    """Every acknowledged label is in the merged log once, with its content; nothing is there that was never sent."""
    found = Counter((row.item_id, row.revision) for row in records.log)
    content = {(row.item_id, row.revision): row.labels for row in records.log}
    offered = {(row.item_id, row.revision): row.labels for row in records.offered}
    wanted = {(row.item_id, row.revision) for row in records.acknowledged}
    newest = _newest_revisions(records.offered)
    lost = [item for item, revision in wanted if (item, revision) not in found and newest[item] == revision]
    doubled = [item for (item, _), n in found.items() if n > 1]
    doubled += [item for item, n in Counter(row.item_id for row in records.log).items() if n > 1 and item not in doubled]
    wrong = [f"the log holds a label of {item!r} that nobody sent" for item, revision in found if (item, revision) not in offered]
    wrong += [
        f"the log says {content[key]} of {key[0]!r}, sent was {offered[key]}"
        for key in found
        if key in offered and offered[key] != content[key]
    ]
    if records.told_labels not in (-1, len(records.log)):
        wrong.append(f"the train master says {records.told_labels} labels, the log has {len(records.log)}")
    return Verdict(lost=tuple(sorted(lost)), doubled=tuple(sorted(doubled)), wrong=tuple(sorted(wrong)))


def _newest_revisions(rows: Iterable[LabelSeen]) -> Mapping[str, int]:
    newest: dict[str, int] = {}
    for row in rows:
        newest[row.item_id] = max(row.revision, newest.get(row.item_id, row.revision))
    return newest


def _judge_calls(records: Records) -> Verdict:
    """An answered call answers exactly what it was asked, each item once, and names its version."""
    parts = [
        _judge_answers(call.asked, call.answered, call.failed, (call.version,), "a predict call", records.may_fail)
        for call in records.calls
    ]
    unanswered = _joined(part.unanswered for part in parts) + records.unanswered_calls
    return Verdict(
        unanswered=unanswered, doubled=_joined(part.doubled for part in parts), wrong=_joined(part.wrong for part in parts)
    )


def _judge_job(job: JobSeen, may_fail: frozenset[str]) -> Verdict:
    """A job answers each of its items in exactly one chunk, under one version, and says the same when it is read again."""
    answered = tuple(item for page in job.pages for item in (*page.item_ids, *page.failed))
    failed = tuple(item for page in job.pages for item in page.failed)
    versions = tuple(page.version for page in job.pages)
    what = f"job {job.job_id!r}"
    verdict = _judge_answers(job.asked, answered, failed, versions, what, may_fail)
    wrong = list(verdict.wrong)
    if not job.is_complete:
        wrong.append(f"{what} never became complete")
    if job.is_complete and job.again != job.pages:
        wrong.append(f"{what} answers otherwise when its pages are read again")
    if len(set(versions)) > 1:
        wrong.append(f"{what} mixes the versions {sorted(set(versions))}")
    return msgspec.structs.replace(verdict, wrong=tuple(wrong))


def _judge_answers(
    asked: tuple[str, ...],
    answered: tuple[str, ...],
    failed: tuple[str, ...],
    versions: tuple[str, ...],
    what: str,
    may: frozenset[str],
) -> Verdict:
    found = Counter(answered)
    wrong = [f"{what} answers {item!r}, which nobody asked" for item in found if item not in set(asked)]
    wrong += [f"{what} answers {item!r} as failed" for item in failed if item not in may]
    wrong += [f"{what} names no version"] if not all(versions) else []
    return Verdict(
        unanswered=tuple(item for item in asked if not found[item]),
        doubled=tuple(item for item, n in found.items() if n > 1),
        wrong=tuple(wrong),
    )


def _joined(parts: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(item for part in parts for item in part)
