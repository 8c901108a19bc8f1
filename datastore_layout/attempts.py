"""One attempt at a run: its lease, checkpoints, metrics and log, all below its own folder.

Owns `Snapshot/run-<n>/attempt-<k>/{start, leases, checkpoints, metrics, log}` (`ranks` owns what is of several
processes). Must never write into another attempt's folder.
An attempt is claimed by mkdir, has one writer, and stops when it sees a higher one. A lease is a counter: who watches it judges
its age by his own monotonic clock. Called by the train role; its names are offered by `runs`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from datastore_layout import files
from datastore_layout.envelope import seal, unseal
from datastore_layout.root import TaskFolder
from labelloop.errors import IntegrityError, InvalidInputError, NotFoundError
from labelloop.ids import parse_token
from labelloop.messages import Message

logger = logging.getLogger(__name__)

SUMS = "checksums"
PACKED = "packed"
_KEPT_LEASES = 3


class MetricsPoint(Message, frozen=True, kw_only=True):
    """What a training said of itself after `step`; `loss` None = it has none."""

    step: int
    loss: float | None = None
    metrics: dict[str, float] = {}


class MetricsPack(Message, frozen=True, kw_only=True):
    """All points of a finished attempt in one file."""

    points: tuple[MetricsPoint, ...]


class Start(Message, frozen=True, kw_only=True):
    """The checkpoint an attempt starts from; attempt 0 = from the beginning."""

    attempt: int = 0
    step: int = 0


class CheckpointSums(Message, frozen=True, kw_only=True):
    """SHA-256 of each file of a checkpoint."""

    sums: dict[str, str]


class Checkpoint(Message, frozen=True, kw_only=True):
    """One complete checkpoint: a folder of files below `path`."""

    attempt: int
    step: int
    path: Path

    def files(self) -> dict[str, bytes]:
        """Return all files by name, each checked against its SHA-256. Raises NotFoundError, IntegrityError."""
        sums = unseal("checkpoint", files.read_file(self.path / SUMS), CheckpointSums, self.path / SUMS).sums
        return {name: self._checked(name, expected) for name, expected in sums.items()}

    def _checked(self, name: str, expected: str) -> bytes:
        path = self.path / name
        with files.reading(path):
            data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != expected:
            raise IntegrityError(f"{path} does not match its SHA-256: the checkpoint is refused")
        return data


def run_names(run: int) -> tuple[str, str]:
    """Return where a run lies, below the task. Raises InvalidInputError for a number below 1."""
    if run < 1:
        raise InvalidInputError(f"run {run} is no number of a run: they start at 1")
    return ("Snapshot", f"run-{int(run)}")


def claim_attempt(folder: TaskFolder, run: int, k: int, start_checkpoint: Checkpoint | None = None) -> Attempt | None:
    """Claim attempt `k` of a run by mkdir and record the checkpoint it starts from; None when somebody else has it.

    Raises NotFoundError when the run does not exist, InvalidInputError for k below 1, StorageFullError.
    """
    if k < 1:
        raise InvalidInputError(f"attempt {k} of run {run} is no number of an attempt: they start at 1")
    if not files.exists(folder.below(*run_names(run), "run")):
        raise NotFoundError(f"run {run} of task {folder.task!r} does not exist")
    attempt = Attempt(folder, run, k)
    if not files.claim_dir(folder.ready(*run_names(run)) / f"attempt-{k}"):
        return None
    start = Start() if start_checkpoint is None else Start(attempt=start_checkpoint.attempt, step=start_checkpoint.step)
    files.create_exclusive(attempt.path / "start", *seal("start", start, is_text=True))
    return attempt


def latest_attempt(folder: TaskFolder, run: int) -> int:
    """Return the highest attempt of a run that was claimed, 0 = none."""
    return max(files.list_numbers(folder.below(*run_names(run)), "attempt-"), default=0)


class Attempt:
    """The folder of one attempt. `claim_attempt` makes it; anybody may open it to read. One thread of one process writes."""

    def __init__(self, folder: TaskFolder, run: int, k: int) -> None:
        self.folder = folder
        self.run = run
        self.k = k
        self._names = (*run_names(run), f"attempt-{int(k)}")
        self.path = folder.below(*self._names)
        self._lease = -1
        self._next: dict[str, int] = {}
        self._points: dict[str, tuple[MetricsPoint, ...]] = {}

    def start_checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint this attempt was claimed to start from, None = from the beginning. Raises IntegrityError."""
        path = self.path / "start"
        try:
            start = unseal("start", files.read_file(path), Start, path)
        except NotFoundError:  # its owner died between the two steps of claiming
            return None
        if not start.attempt:
            return None
        return checkpoint_at(self.folder, self.run, start.attempt, start.step)

    def is_latest(self) -> bool:
        """Return whether no higher attempt was claimed; an attempt that is not the latest must stop."""
        return latest_attempt(self.folder, self.run) <= self.k

    def renew_lease(self) -> bool:
        """Raise the lease counter by one; False (and nothing written) when a higher attempt exists. Raises StorageFullError."""
        if not self.is_latest():
            return False
        where = self.folder.ready(*self._names, "leases")
        if self._lease < 0:
            self._lease = self.lease_counter()
        self._lease += 1
        files.create_mark(where / str(self._lease))
        for old in files.list_numbers(where)[:-_KEPT_LEASES]:
            files.remove_file(where / str(old))
        return True

    def lease_counter(self) -> int:
        """Return the lease counter, 0 = never renewed."""
        return max(files.list_numbers(self.path / "leases"), default=0)

    def save_checkpoint(self, step: int, contents: Mapping[str, bytes]) -> Checkpoint:
        """Save a checkpoint of `step`, complete or not visible at all; a step that is saved already stays as it is.

        Raises InvalidInputError on a file name that is no token, StorageFullError.
        """
        if step < 0 or SUMS in contents:
            raise InvalidInputError(f"checkpoint of step {step} with files {sorted(contents)}: step >= 0, no file {SUMS!r}")
        where = self.folder.ready(*self._names, "checkpoints")
        beside = files.beside_name(where)
        files.claim_dir(beside)
        try:
            for name, data in contents.items():
                files.write_new(beside / parse_token(name, "checkpoint file"), [data])
            sums = CheckpointSums(sums={name: hashlib.sha256(data).hexdigest() for name, data in contents.items()})
            files.write_new(beside / SUMS, seal("checkpoint", sums, is_text=True))
            files.publish_dir(beside, where / f"step-{int(step)}")
        except Exception:
            files.discard_tree(beside)
            raise
        return checkpoint_at(self.folder, self.run, self.k, step)

    def prune_checkpoints(self, keep: Collection[int]) -> None:
        """Remove this attempt's checkpoints of all steps but those in `keep` and the newest."""
        where = self.path / "checkpoints"
        for step in files.list_numbers(where, "step-")[:-1]:
            if step not in keep:
                files.remove_dir(where / f"step-{step}")

    def write_metrics(self, step: int, loss: float | None, metrics: Mapping[str, float] | None = None) -> None:
        """Append one point, durable. Raises StorageFullError."""
        point = MetricsPoint(step=step, loss=loss, metrics=dict(metrics or {}))
        self.append("metrics", *seal("metrics", point, is_text=True))

    def read_metrics(self) -> tuple[MetricsPoint, ...]:
        """Return all points in the order they were written; keep the object to read new ones only. Raises IntegrityError."""
        where = self.path / "metrics"
        names = files.list_names(where)
        if PACKED in names:
            names = [PACKED]
        for name in names:
            if name not in self._points:
                self._read_points(where / name)
        order = [PACKED] if PACKED in self._points else sorted(self._points, key=int)
        return tuple(point for name in order for point in self._points[name])

    def append_log(self, text: str) -> None:
        """Append `text` (whole lines; many in one call, for each call is a file) to the log. Raises StorageFullError."""
        if text:
            self.append("log", text.encode("utf-8", "replace"))

    def read_log(self) -> str:
        """Return the whole log."""
        where = self.path / "log"
        names = files.list_names(where)
        order: list[str] = [PACKED] if PACKED in names else [str(n) for n in files.list_numbers(where)]
        found = []
        for name in order:
            try:
                found.append(files.read_file(where / name).decode("utf-8", "replace"))
            except NotFoundError:  # packed or removed since the listing
                continue
        return "".join(found)

    def append(self, kind: str, *parts: bytes) -> None:
        """Write the next numbered file of `kind`, durable. Raises StorageFullError."""
        where = self.folder.ready(*self._names, kind)
        if kind not in self._next:
            self._next[kind] = max(files.list_numbers(where), default=0) + 1
        while not files.create_exclusive(where / str(self._next[kind]), *parts):
            self._next[kind] += 1
        self._next[kind] += 1

    def _read_points(self, path: Path) -> None:
        try:
            data = files.read_file(path)
        except NotFoundError:  # packed since the listing, or half visible
            return
        if path.name == PACKED:
            self._points = {PACKED: unseal("metrics-pack", data, MetricsPack, path).points}
        elif path.name.isdigit():
            self._points[path.name] = (unseal("metrics", data, MetricsPoint, path),)


def list_checkpoints(folder: TaskFolder, run: int) -> tuple[Checkpoint, ...]:
    """Return the checkpoints of all attempts at a run, by step, then attempt, rising."""
    attempts = files.list_numbers(folder.below(*run_names(run)), "attempt-")
    found = [
        checkpoint_at(folder, run, k, step)
        for k in attempts
        for step in files.list_numbers(folder.below(*run_names(run), f"attempt-{k}", "checkpoints"), "step-")
    ]
    return tuple(sorted(found, key=lambda c: (c.step, c.attempt)))


def newest_checkpoint(folder: TaskFolder, run: int) -> Checkpoint | None:
    """Return the checkpoint of the highest step that is whole, None when there is none.

    A damaged one is passed over with an error in the log: the step before it is as good a place to go on from.
    """
    for checkpoint in reversed(list_checkpoints(folder, run)):
        try:
            checkpoint.files()
        except (IntegrityError, NotFoundError) as exc:
            logger.error("checkpoint passed over: %s", exc)
            continue
        return checkpoint
    return None


def read_run_metrics(folder: TaskFolder, run: int) -> tuple[MetricsPoint, ...]:
    """Return the points of all attempts at a run by rising step; of two for one step the later attempt's holds."""
    by_step: dict[int, MetricsPoint] = {}
    for k in files.list_numbers(folder.below(*run_names(run)), "attempt-"):
        by_step.update({point.step: point for point in Attempt(folder, run, k).read_metrics()})
    return tuple(by_step[step] for step in sorted(by_step))


def checkpoint_at(folder: TaskFolder, run: int, attempt: int, step: int) -> Checkpoint:
    """Return the checkpoint of that attempt and step, whether it is there or not."""
    path = folder.below(*run_names(run), f"attempt-{attempt}", "checkpoints", f"step-{int(step)}")
    return Checkpoint(attempt=attempt, step=step, path=path)
