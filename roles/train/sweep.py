"""The train master's sweep: each cycle starts from what is and does what is missing.

Owns the one thread that follows all tasks: new log rows, batches to hint again, runs to start, take over or fail.
Must never train, nor answer a call. Started by the train_rpc process, exactly once; `wake` makes the next cycle come at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from datastore_layout.models import current
from datastore_layout.root import Root
from datastore_layout.runs import Attempt, cancel_reason, finish, latest_attempt, read_finish
from labelloop.errors import LabelloopError
from labelloop.logs import log_context
from labelloop.settings import Settings
from roles.train.comparer import ComparerView, Comparison, agreement, compare
from roles.train.hinter import Hinter
from roles.train.launch import launch
from roles.train.policy import Decision, PolicyView, fewest_classes, labels_to_next, next_training, stop_reason
from roles.train.run_watch import RunWatch, Step, attempts_allowed, next_step
from roles.train.task_state import TaskState, TaskView
from roles.train.tasks import Followed, Tasks

logger = logging.getLogger(__name__)

IDLE_LOOK_S = 1.0
FIND_S = 2.0
LONGEST_PAUSE_S = 60.0
BUSY_S = 2.0


class Sweep:
    """See the module. `clock` is monotonic seconds; `why_alone` says why this master may start no run, '' = it may."""

    def __init__(
        self,
        root: Root,
        tasks: Tasks,
        hinter: Hinter,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        why_alone: Callable[[], str] = lambda: "",
    ) -> None:
        self._why_alone = why_alone
        self._root = root
        self._tasks = tasks
        self._hinter = hinter
        self._settings = settings
        self._clock = clock
        self._wake = threading.Event()
        self._is_ending = False
        self._found_s = float("-inf")
        self._trouble: dict[str, str] = {}
        self._thread = threading.Thread(target=self._work, name="sweep", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Make the next cycle come at once."""
        self._wake.set()

    def close(self) -> None:
        """End the thread after its cycle."""
        self._is_ending = True
        self._wake.set()
        self._thread.join(timeout=10)

    def _work(self) -> None:
        while not self._is_ending:
            self._wake.wait(self._settings.train.sweep_s)
            self._wake.clear()
            try:
                self.cycle()
            except Exception:
                logger.exception("sweep: a cycle failed, the next one starts from what is")
                self._wake.wait(1.0)

    def cycle(self) -> None:
        """Do one round over all tasks. A task in trouble never stops the others."""
        now_s = self._clock()
        if not self._is_root_there():
            return
        if now_s - self._found_s >= IDLE_LOOK_S:
            self._found_s = now_s
            self._tasks.find_new()
        for followed in self._tasks.all():
            if now_s >= followed.next_look_s or followed.is_awake:
                self._guarded(followed, now_s)

    def _is_root_there(self) -> bool:
        try:
            self._root.check()
        except LabelloopError as exc:
            self._say("", f"the datastore is not there, nothing is decided: {exc}")
            return False
        self._say("", "")
        return True

    def _guarded(self, followed: Followed, now_s: float) -> None:
        task = followed.state.spec.task
        with log_context(task=task):
            try:
                self._sweep(followed, now_s)
            except LabelloopError as exc:
                self._say(task, f"sweep of {task}: {exc}")
                followed.next_look_s = now_s + IDLE_LOOK_S
            else:
                self._say(task, "")

    def _say(self, about: str, trouble: str) -> None:
        if trouble and self._trouble.get(about) != trouble:
            logger.warning("%s", trouble)
        self._trouble[about] = trouble

    # ------------------------------------------------------------ one task

    def _sweep(self, followed: Followed, now_s: float) -> None:
        state = followed.state
        followed.is_awake = False
        if now_s - followed.found_s >= FIND_S:
            followed.found_s = now_s
            state.reload_spec()
            state.find_waiting(now_s)
        if state.refresh():
            followed.busy_until_s = now_s + BUSY_S
        for batch in state.due_batches(now_s, LONGEST_PAUSE_S):
            self._hinter.intake(state.spec.task, batch)
        for watch in tuple(state.live):
            self._follow_run(state, watch, now_s)
        self._decide(followed, now_s)
        is_busy = bool(state.waiting or state.live) or now_s < followed.busy_until_s
        followed.next_look_s = now_s if is_busy else now_s + IDLE_LOOK_S

    def _follow_run(self, state: TaskState, watch: RunWatch, now_s: float) -> None:
        settings, folder = self._settings.train, state.folder
        if (end := read_finish(folder, watch.run)) is not None:
            state.live.remove(watch)
            waited_s = (watch.claimed_s or now_s) - watch.since_s
            logger.info(
                "run %d %s after %.2f s (%.2f s until claimed): %s",
                watch.run,
                end.state,
                now_s - watch.since_s,
                waited_s,
                end.reason,
            )
            return
        attempt = latest_attempt(folder, watch.run)
        lease = Attempt(folder, watch.run, attempt).lease_counter() if attempt else 0
        watch.see(attempt, lease, now_s)
        cancel = cancel_reason(folder, watch.run)
        most = settings.attempts if attempt < settings.attempts else attempts_allowed(folder, watch.run, settings.attempts)
        step, reason = next_step(watch.look(now_s, cancel, most, settings.lease_s, settings.requeue_after_s))
        if step is Step.CANCEL:
            finish(folder, watch.run, "cancelled", reason)
        elif step is Step.FAIL:
            logger.error("run %d failed: %s", watch.run, reason)
            finish(folder, watch.run, "failed", reason)
        elif step is Step.HINT and not self._why_alone():
            (logger.warning if watch.hinted else logger.debug)("run %d is hinted: %s", watch.run, reason)
            self._hinter.run(state.spec.task, watch.run, watch.attempt + 1)
            watch.note_hint(now_s)

    def _decide(self, followed: Followed, now_s: float) -> None:
        state = followed.state
        pointer = current(state.folder)
        comparer = self._comparer_view(state, pointer.version if pointer else "")
        comparison, comparison_reason = compare(comparer)
        view = self._policy_view(state, comparison, comparison_reason, now_s)
        decision, reason = next_training(view)
        if decision is Decision.TRAIN:
            decision, reason = self._train(state, reason, now_s)
        if decision is not followed.decision:
            logger.info("%s: %s", decision.value, reason)
            followed.decision = decision
        state.view = TaskView(
            labels_to_next=labels_to_next(view) if decision is not Decision.RUNNING else 0,
            next_training=reason,
            stop=stop_reason(view),
            comparer=comparison_reason,
            agreement=agreement(comparer).share,
            pointer=pointer,
            run=followed.run_view(now_s),
        )

    def _train(self, state: TaskState, reason: str, now_s: float) -> tuple[Decision, str]:
        try:
            watch = launch(state, reason, now_s)
        except LabelloopError as exc:
            return Decision.BLOCKED, str(exc) if str(exc).startswith("blocked") else f"blocked: {exc}"
        self._hinter.run(state.spec.task, watch.run, 1)
        watch.note_hint(now_s)
        return Decision.RUNNING, f"training now: run {watch.run}"

    def _comparer_view(self, state: TaskState, serving: str) -> ComparerView:
        return ComparerView(
            drafted=state.tally.drafted,
            serving=serving,
            target=state.spec.extra.target,
            window=self._settings.train.comparer_labels,
            is_on=state.spec.extra.is_comparer_on,
        )

    def _policy_view(self, state: TaskState, comparison: Comparison, comparison_reason: str, now_s: float) -> PolicyView:
        settings, tally, extra = self._settings.train, state.tally, state.spec.extra
        return PolicyView(
            labels=tally.labels,
            classes=tally.classes,
            fewest_classes=fewest_classes(state.spec),
            held_out=tally.held_out,
            new_labels=tally.new_labels,
            last_labels=state.last_labels,
            weak_labels=tally.weak_labels,
            new_weak=tally.new_weak,
            waiting=len(state.waiting),
            live_run=state.live[0].run if state.live else 0,
            comparison=comparison,
            comparison_reason=comparison_reason,
            blocked=self._why_blocked(state, now_s),
            stalled=self._why_stalled(state, now_s),
            budget=extra.budget,
            retrain_labels=extra.retrain_labels,
            first_labels=settings.first_labels,
            growth=settings.growth,
            least_new_labels=settings.least_new_labels,
        )

    def _why_blocked(self, state: TaskState, now_s: float) -> str:
        if alone := self._why_alone():
            return alone
        patience_s = 2 * self._settings.train.requeue_after_s
        unclaimed = [watch.run for watch in state.live if not watch.attempt and now_s - watch.since_s > patience_s]
        return f"blocked: run {unclaimed[0]} waits for a train worker that is free" if unclaimed else ""

    def _why_stalled(self, state: TaskState, now_s: float) -> str:
        if state.oldest_wait_s(now_s) <= 4 * self._settings.train.requeue_after_s:
            return ""
        return f"blocked: labels wait for a data worker (batches: {len(state.waiting)})"
