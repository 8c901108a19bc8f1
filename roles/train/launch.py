"""Making a run: which algorithm and encoder, which rows, and what had to be true first.

Owns the step from a decision to `Snapshot/run-<n>`. Must never train, nor talk to a broker. Called by the sweep (policy) and the
`train` handler (a person).
"""

from __future__ import annotations

import logging
import time
from typing import Any

from datastore_layout.models import current
from datastore_layout.runs import RunSpec, create_run, list_runs, read_finish
from datastore_layout.training_sets import TrainingSet, read_training_set, write_training_set
from intake.encoders import pixels_encoder
from intake.pipeline import encoder_of
from labelloop.errors import BusyError, InvalidInputError, NotReadyError
from labelloop.messages import REGION_CATEGORIES
from learning.algorithms import default_algorithm, find_algorithm
from roles.train.policy import PolicyView, fewest_classes, why_not_trainable
from roles.train.run_watch import RunWatch
from roles.train.task_state import TaskState

logger = logging.getLogger(__name__)

AUTO = ("", "auto")


def launch(
    state: TaskState, reason: str, now_s: float, algorithm: str = "", encoder: str = "", parameters: dict[str, Any] | None = None
) -> RunWatch:
    """Create a run over the labels of the moment and return the watch on it; the caller hints it.

    Empty `algorithm` and `encoder` take the task's, 'auto' the measured default. Raises BusyError while a run is live,
    NotReadyError while the labels do not suffice, InvalidInputError or NotFoundError on unknown names or parameters.
    """
    with state.refreshing:
        if state.live:
            raise BusyError(f"run {state.live[0].run} of task {state.spec.task!r} is not finished: wait for it or cancel it")
        tally = state.tally
        view = PolicyView(
            labels=tally.labels,
            classes=tally.classes,
            fewest_classes=fewest_classes(state.spec),
            held_out=tally.held_out,
            new_labels=0,
            last_labels=0,
            weak_labels=tally.weak_labels,
        )
        if missing := why_not_trainable(view):
            raise NotReadyError(missing)
        spec = _run_spec(state, reason, algorithm, encoder, parameters or {})
        run = create_run(state.folder, spec)
        freeze(state, run)
        watch = RunWatch(run, now_s, is_hinted=False)
        state.live.append(watch)
        state.newest_run = run
    logger.info("run %d of %s: %s on %s, %d labels: %s", run, state.spec.task, spec.algorithm, spec.encoder, spec.n_labels, reason)
    return watch


def _run_spec(state: TaskState, reason: str, algorithm: str, encoder: str, parameters: dict[str, Any]) -> RunSpec:
    extra, category = state.spec.extra, state.spec.category
    asked = encoder if encoder not in AUTO else encoder_of(state.folder, state.spec)
    if asked is None:
        raise NotReadyError("blocked: no item of the task has been embedded yet")
    own = next((name for name in (algorithm, extra.algorithm) if name not in AUTO), "")
    name = own or default_algorithm(category, asked, extra.kind == "multilabel")
    settings = {**(extra.parameters if extra.algorithm in (name, *AUTO) else {}), **parameters}
    chosen = find_algorithm(name)
    if (chosen.target == "regions") is not (category in REGION_CATEGORIES):
        fitting = default_algorithm(category, asked, False)
        raise InvalidInputError(f"{name} learns {chosen.target}, the task is {category}: use 'auto', which is {fitting}")
    if extra.kind == "multilabel" and not chosen.has_multilabel:
        raise InvalidInputError(f"{name} cannot learn several labels an item: use logistic-regression or linear-head")
    chosen.read_parameters(settings)
    pointer = current(state.folder)
    return RunSpec(
        algorithm=name,
        encoder=pixels_encoder(asked) if chosen.input == "pixels" else asked,
        parameters=settings,
        epoch=extra.epoch,
        seed=0,
        label_position=state.log.position,
        n_labels=state.tally.labels + state.tally.weak_labels,
        start_version=pointer.version if pointer else "",
        reason=reason,
        created=time.time(),
    )


def freeze(state: TaskState, run: int) -> None:
    """Write what the run learns from, unless an earlier process has; count new labels, and people's labels, from there."""
    with state.refreshing:
        frozen = read_training_set(state.folder, run)
        if frozen is None:
            pointer = current(state.folder)
            frozen = TrainingSet(spec=state.spec, rows=state.tally.rows, pointer=pointer.number if pointer else 0)
            write_training_set(state.folder, run, frozen)
        state.tally.begin_run({row.item_id: row.revision for row in frozen.rows})
        state.last_labels = sum(not row.proba for row in frozen.rows)


def resume(state: TaskState, now_s: float) -> None:
    """Find the runs an earlier process left behind and what the newest run learned from; they are hinted by the sweep."""
    runs = list_runs(state.folder)
    state.live = [RunWatch(run, now_s, is_hinted=False) for run in runs if read_finish(state.folder, run) is None]
    if runs:
        state.newest_run = runs[-1]
        freeze(state, runs[-1])
