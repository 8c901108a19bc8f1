"""Runs and versions as people see them, read from the datastore and remembered once they cannot change.

Owns the shape of RunView and VersionView. Must never write. Called by the handlers and the sweep; thread-safe, for what it keeps is
immutable and a doubled read is harmless.
"""

from __future__ import annotations

from msgspec.structs import replace

from datastore_layout.models import Pointer, Verdict, current, list_versions, pointer_history, read_manifest, read_verdict
from datastore_layout.ranks import Generation, read_generations
from datastore_layout.root import TaskFolder
from datastore_layout.runs import (
    Attempt,
    MetricsPoint,
    RunSpec,
    cancel_reason,
    latest_attempt,
    list_runs,
    read_finish,
    read_run,
    read_run_metrics,
)
from labelloop.errors import IntegrityError, NotFoundError
from labelloop.messages import ModelsReply, RankView, RunLogReply, RunView, VersionView

STEPS = "steps"  # the metric that carries a run's total number of steps
_MOST_RUNS = 50


class Views:
    """The views of one task."""

    def __init__(self, folder: TaskFolder) -> None:
        self._folder = folder
        self._ended: dict[int, RunView] = {}
        self._versions: dict[str, VersionView] = {}

    def run(self, run: int, seconds: float = 0.0) -> RunView:
        """Return one run; `seconds` is how long a live one has run by the caller's clock. Raises NotFoundError, IntegrityError."""
        if run in self._ended:
            return self._ended[run]
        spec = read_run(self._folder, run)
        end = read_finish(self._folder, run)  # before the points: they are complete once there is an end
        attempt = latest_attempt(self._folder, run)
        view = _of_points(spec, attempt, read_run_metrics(self._folder, run))
        view = replace(view, ranks=_ranks(read_generations(self._folder, run)))
        if end is None:
            state = "running" if attempt else "queued"
            return replace(view, state=state, seconds=seconds, reason=cancel_reason(self._folder, run) or spec.reason)
        view = replace(view, state=end.state, seconds=end.seconds, reason=end.reason, version=end.version)
        self._ended[run] = view
        return view

    def log(self, run: int, lines: int) -> RunLogReply:
        """Return the last `lines` lines of the newest attempt's log. Raises NotFoundError, IntegrityError."""
        read_run(self._folder, run)
        attempt = latest_attempt(self._folder, run)
        text = Attempt(self._folder, run, attempt).read_log() if attempt else ""
        return RunLogReply(text="".join(text.splitlines(keepends=True)[-lines:]), attempt=attempt)

    def models(self) -> ModelsReply:
        """Return all versions and the newest runs, both newest first. Raises IntegrityError."""
        pointer = current(self._folder)
        served = {one.version for one in pointer_history(self._folder)}
        versions = [self._version(name, pointer, served) for name in reversed(list_versions(self._folder))]
        runs = [self.run(run) for run in reversed(list_runs(self._folder)[-_MOST_RUNS:])]
        return ModelsReply(
            task=self._folder.task,
            serving=pointer.version if pointer else "",
            pointer=pointer.number if pointer else 0,
            versions=tuple(view for view in versions if view is not None),
            runs=tuple(runs),
        )

    def _version(self, name: str, pointer: Pointer | None, served: set[str]) -> VersionView | None:
        is_serving = pointer is not None and pointer.version == name
        kept = self._versions.get(name)
        if kept is None:
            kept = self._read_version(name)
        if kept is None:
            return None
        return replace(kept, is_serving=is_serving, was_served=kept.was_served or name in served)

    def _read_version(self, name: str) -> VersionView | None:
        try:
            manifest = read_manifest(self._folder, name)
            verdict: Verdict | None = read_verdict(self._folder, name)
        except NotFoundError:  # collected since the listing
            return None
        except IntegrityError as exc:
            return VersionView(version=name, run=0, algorithm="", encoder="", labels=0, reason=str(exc))
        view = VersionView(
            version=name,
            run=manifest.run,
            algorithm=manifest.algorithm,
            encoder=manifest.encoder,
            labels=manifest.n_labels,
            metrics=manifest.metrics,
            parent=manifest.parent,
            was_served=verdict.is_served if verdict else False,
            reason=verdict.reason if verdict else "published, not judged yet",
            created=manifest.created,
            seconds=manifest.seconds,
        )
        if verdict is not None:
            self._versions[name] = view
        return view


def _ranks(generations: tuple[tuple[int, Generation], ...]) -> tuple[RankView, ...]:
    return tuple(
        RankView(
            attempt=attempt,
            generation=one.number,
            rank=rank.rank,
            node=rank.node,
            hostname=rank.hostname,
            pid=rank.pid,
            steps=rank.steps,
            items=rank.items,
            reason=one.reason,
        )
        for attempt, one in generations
        for rank in one.ranks
    )


def _of_points(spec: RunSpec, attempt: int, points: tuple[MetricsPoint, ...]) -> RunView:
    losses = tuple((point.step, point.loss) for point in points if point.loss is not None)
    measured = [point.metrics for point in points if point.metrics.keys() - {STEPS}]
    steps = max((int(point.metrics.get(STEPS, 0)) for point in points), default=0)
    return RunView(
        run=spec.run,
        attempt=attempt,
        state="queued",
        algorithm=spec.algorithm,
        encoder=spec.encoder,
        labels=spec.n_labels,
        step=points[-1].step if points else 0,
        steps=steps,
        loss=losses[-1][1] if losses else None,
        losses=losses,
        metrics={name: value for name, value in (measured[-1] if measured else {}).items() if name != STEPS},
    )
