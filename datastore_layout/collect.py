"""Garbage collection: what may be removed, and removing it so that no reader sees half of anything.

Owns the decision (`choose_versions`, pure) and the order of removal. Must never remove what is current, running, the parent of
something running, or named by a job that is kept. Called by the train master now and then, one task at a time; a second one
elsewhere is harmless. Ages are judged by the file system's own clock.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from datastore_layout import files
from datastore_layout.attempts import PACKED, Attempt, MetricsPack, run_names
from datastore_layout.compaction import compact_labels, compact_shards
from datastore_layout.envelope import seal
from datastore_layout.intake_files import list_intake
from datastore_layout.jobs import done_chunks, list_jobs, read_job_head
from datastore_layout.labels import LabelLog
from datastore_layout.models import PREFIX, list_versions, pointer_history, read_manifest
from datastore_layout.root import TaskFolder
from datastore_layout.runs import list_runs, read_finish, read_run
from labelloop.errors import IntegrityError, NotFoundError
from labelloop.messages import Message

logger = logging.getLogger(__name__)

RUBBISH_S = 3600.0
_KEPT_TRAINING_SETS = 3
_COLLECTED = "collected"


class Collected(Message, frozen=True, kw_only=True):
    """What one call removed or joined."""

    versions: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    runs: tuple[int, ...] = ()
    intake: int = 0
    rubbish: int = 0
    joined_segments: int = 0
    joined_shards: int = 0


def collect_garbage(
    folder: TaskFolder, keep_versions: int, keep_jobs_s: float, now: float | None = None, segments: Collection[str] | None = None
) -> Collected:
    """Remove what is over, and join what became many small files.

    Versions: the newest `keep_versions` stay besides the protected ones. Jobs: finished ones stay `keep_jobs_s`. Intake
    batches go once the label log has them. Finished runs keep their spec, end, metrics and log, packed, and lose their checkpoints.
    `now` is seconds since 1970 by the file system's clock, None (best) = ask it. `segments` are the batches in the label log
    where the caller knows them; None = read the log when there are batches.

    Raises NotReadyError or ConflictError when the root is not ours, IntegrityError naming a damaged file, StorageFullError.
    """
    folder.root.check()
    if not files.exists(folder.path):
        return Collected()
    now = files.clock_s(folder.path) if now is None else now
    jobs = _collect_jobs(folder, keep_jobs_s, now)
    return Collected(
        jobs=jobs,
        versions=_collect_versions(folder, keep_versions),
        runs=_collect_runs(folder),
        intake=_collect_intake(folder, segments),
        joined_segments=compact_labels(folder),
        joined_shards=sum(compact_shards(folder, encoder) for encoder in list_encoders(folder)),
        rubbish=_collect_rubbish(folder, now - RUBBISH_S),
    )


def list_encoders(folder: TaskFolder) -> tuple[str, ...]:
    """Return the encoders that the task has shards of, sorted."""
    return tuple(files.list_names(folder.below("Preprocess", "shards")))


# ---------------------------------------------------------------- versions


def choose_versions(versions: Sequence[str], keep: int, protected: Collection[str]) -> tuple[str, ...]:
    """Return which of `versions` (oldest first) may go: all but the newest `keep` of those that are not `protected`."""
    free = [version for version in versions if version not in protected]
    return tuple(free[: max(0, len(free) - max(0, keep))])


def protected_versions(folder: TaskFolder) -> frozenset[str]:
    """Return the versions that must stay: the serving one, the one before it (rollback), parents of runs that have not ended,
    and what jobs on disk are pinned to."""
    serving = list(dict.fromkeys(pointer.version for pointer in reversed(pointer_history(folder))))
    found = set(serving[:2])
    for run in list_runs(folder):
        if read_finish(folder, run) is None:
            found.add(read_run(folder, run).start_version)
    for job in list_jobs(folder):
        try:
            found.add(read_job_head(folder, job).version)
        except NotFoundError:  # collected by somebody else
            continue
    return frozenset(found)


def _collect_versions(folder: TaskFolder, keep: int) -> tuple[str, ...]:
    """Hide what may go. It is removed as rubbish an hour later, and comes back if somebody promotes it in the same moment."""
    removed = []
    for version in choose_versions(list_versions(folder), keep, protected_versions(folder)):
        path = folder.below("Inference", version)
        if not _is_of_a_living_run(folder, version) and files.hide_dir(path, _hidden_version(path)):
            removed.append(version)
    _drop_verdicts(folder)
    protected = protected_versions(folder)
    restored = [version for version in _hidden_versions(folder) if version in protected]
    for version in restored:
        path = folder.below("Inference", version)
        files.publish_dir(_hidden_version(path), path)
    return tuple(version for version in removed if version not in restored)


def _drop_verdicts(folder: TaskFolder) -> None:
    """Remove the verdicts of versions that are gone; listed before the versions, for a verdict follows its version."""
    where = folder.below("Inference", "verdicts")
    verdicts = files.list_names(where)
    for version in set(verdicts) - {*list_versions(folder), *_hidden_versions(folder)}:
        files.remove_file(where / version)


def _hidden_version(path: Path) -> Path:
    return path.with_name(f"{files.RUBBISH}{path.name}")


def _hidden_versions(folder: TaskFolder) -> list[str]:
    prefix = f"{files.RUBBISH}{PREFIX}"
    names = files.list_all_names(folder.below("Inference"))
    return [name.removeprefix(files.RUBBISH) for name in names if name.startswith(prefix)]


def _is_of_a_living_run(folder: TaskFolder, version: str) -> bool:
    try:
        run = read_manifest(folder, version).run
    except (NotFoundError, IntegrityError):  # gone, or refused by everybody
        return False
    return run in list_runs(folder) and read_finish(folder, run) is None


# ---------------------------------------------------------------- jobs, runs, intake


def _collect_jobs(folder: TaskFolder, keep_jobs_s: float, now: float) -> tuple[str, ...]:
    removed = []
    for job in list_jobs(folder):
        path = folder.below("Preprocess", "jobs", job)
        try:
            n_chunks = read_job_head(folder, job).n_chunks
        except NotFoundError:  # collected by somebody else
            continue
        is_over = len(done_chunks(folder, job)) >= n_chunks
        if is_over and _newest_s([path, path / "job", path / "results"]) <= now - keep_jobs_s and files.remove_dir(path):
            removed.append(job)
    return tuple(removed)


def _newest_s(paths: Iterable[Path]) -> float:
    return max((when for path in paths if (when := files.modified_s(path)) is not None), default=0.0)


def _collect_runs(folder: TaskFolder) -> tuple[int, ...]:
    over = [run for run in list_runs(folder) if read_finish(folder, run) is not None]
    for run in over[:-_KEPT_TRAINING_SETS]:
        files.remove_file(folder.below(*run_names(run), "training-set"))
    packed = []
    for run in over:
        path = folder.below(*run_names(run))
        if files.exists(path / _COLLECTED):
            continue
        for k in files.list_numbers(path, "attempt-"):
            _pack_attempt(folder, run, k)
        files.create_mark(path / _COLLECTED)
        packed.append(run)
    return tuple(packed)


def _pack_attempt(folder: TaskFolder, run: int, k: int) -> None:
    attempt = Attempt(folder, run, k)
    for name in ("checkpoints", "leases"):
        files.remove_dir(attempt.path / name)
    points, log = attempt.read_metrics(), attempt.read_log().encode()
    if points:
        _replace(attempt.path / "metrics", seal("metrics-pack", MetricsPack(points=points), is_text=True))
    if log:
        _replace(attempt.path / "log", (log,))


def _replace(where: Path, parts: tuple[bytes, ...]) -> None:
    if not files.create_exclusive(where / PACKED, *parts):
        parts = ()  # packed by a call that died before it removed the rest
    for number in files.list_numbers(where):
        files.remove_file(where / str(number))


def _collect_intake(folder: TaskFolder, segments: Collection[str] | None) -> int:
    batches = list_intake(folder)
    if batches and segments is None:
        log = LabelLog(folder)
        log.refresh()
        segments = log.segments
    done = [batch for batch in batches if batch in (segments or ())]
    for batch in done:
        files.remove_file(folder.below("Preprocess", "intake", batch))
    return len(done)


# ---------------------------------------------------------------- rubbish


def _collect_rubbish(folder: TaskFolder, before_s: float) -> int:
    """Remove what processes that died left before `before_s`: hidden names, features without index, jobs that never
    were, progress of batches that are done."""
    found = list(_hidden_below(folder.path))
    jobs = folder.below("Preprocess", "jobs")
    found += [jobs / name for name in files.list_names(jobs) if not files.exists(jobs / name / "job")]
    found += _stale_progress(folder)
    for encoder in list_encoders(folder):
        indexed = set(files.list_names(folder.below("Preprocess", "shards", encoder)))
        where = folder.below("Preprocess", f"features-{encoder}")
        found += [where / name for name in files.list_names(where) if name.removesuffix(".f32") not in indexed]
    removed = 0
    for path in found:
        when = files.modified_s(path)
        if when is not None and when <= before_s:
            files.remove_hidden(path)
            removed += 1
    return removed


def _stale_progress(folder: TaskFolder) -> list[Path]:
    """Return the progress of batches that are no longer waiting; listed before the batches, which come first."""
    where = folder.below("Preprocess", "progress")
    names = files.list_names(where)
    waiting = set(list_intake(folder))
    return [where / name for name in names if name.partition("~")[0] not in waiting]


def _hidden_below(path: Path) -> Iterable[Path]:
    for name in files.list_all_names(path):
        inner = path / name
        if name.startswith((files.BESIDE, files.RUBBISH)):
            yield inner
        elif files.is_real_dir(inner):
            yield from _hidden_below(inner)


__all__ = ["Collected", "choose_versions", "collect_garbage", "list_encoders", "protected_versions"]
