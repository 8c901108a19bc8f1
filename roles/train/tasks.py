"""The tasks that train_rpc follows, opened once and kept.

Owns the table from name to state. Must never decide. Called by the handlers (any thread) and the sweep.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from datastore_layout.root import Root, list_tasks, task_folder
from labelloop.errors import LabelloopError
from labelloop.messages import RunView
from labelloop.settings import TrainSettings
from roles.train.launch import resume
from roles.train.policy import Decision
from roles.train.task_state import TaskState
from roles.train.views import Views

logger = logging.getLogger(__name__)

LIVE_VIEW_S = 0.2


class Followed:
    """One task with what the sweep remembers about it between two cycles; `is_awake` makes the next cycle look at once."""

    def __init__(self, state: TaskState) -> None:
        self.state = state
        self.views = Views(state.folder)
        self.is_awake = True
        self.next_look_s = self.found_s = self.busy_until_s = float("-inf")
        self.decision: Decision | None = None
        self._run_view: RunView | None = None
        self._viewed_s = float("-inf")

    def run_view(self, now_s: float) -> RunView | None:
        """Return the live run, else the newest one, read again a few times a second while it lives."""
        live = self.state.live[0] if self.state.live else None
        newest = live.run if live is not None else self.state.newest_run
        is_same = self._run_view is not None and self._run_view.run == newest
        is_over = is_same and self._run_view is not None and self._run_view.state not in ("queued", "running")
        if not newest or is_over or (live is not None and is_same and now_s - self._viewed_s < LIVE_VIEW_S):
            return self._run_view
        self._viewed_s = now_s
        self._run_view = self.views.run(newest, now_s - live.since_s if live is not None else 0.0)
        return self._run_view


class Tasks:
    """See the module."""

    def __init__(self, root: Root, settings: TrainSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._opening: dict[str, threading.Lock] = {}
        self._followed: dict[str, Followed] = {}

    def get(self, task: str) -> Followed:
        """Return a task, opening it at its first use. Raises NotFoundError (never opened), InvalidInputError, IntegrityError."""
        found = self._followed.get(task)
        if found is not None:
            return found
        folder = task_folder(self._root, task)
        with self._lock:
            opening = self._opening.setdefault(task, threading.Lock())
        with opening:
            if task not in self._followed:
                self._followed[task] = self._open(TaskState(folder, self._settings))
            return self._followed[task]

    def _open(self, state: TaskState) -> Followed:
        now_s = self._clock()
        state.refresh()
        state.find_waiting(now_s)
        resume(state, now_s)
        followed = Followed(state)
        logger.info(
            "task %s is followed: %d labels, %d batches wait, %d runs live",
            state.spec.task,
            state.tally.labels + state.tally.weak_labels,
            len(state.waiting),
            len(state.live),
        )
        return followed

    def find_new(self) -> None:
        """Open the tasks that appeared in the datastore; one that cannot be read is left for the next look."""
        for task in list_tasks(self._root):
            if task not in self._followed:
                try:
                    self.get(task)
                except LabelloopError as exc:
                    logger.warning("task %s cannot be followed: %s", task, exc)

    def all(self) -> tuple[Followed, ...]:
        """Return all tasks opened so far."""
        return tuple(self._followed.values())
