"""Collects rubbish and joins small files, task by task, beside the sweep so that no label waits for it.

Owns one thread. Must never decide what may go: `datastore_layout.collect` does. Started by the train_rpc process, exactly once.
"""

from __future__ import annotations

import logging
import threading

from datastore_layout.collect import collect_garbage
from labelloop.errors import LabelloopError
from labelloop.logs import log_context
from labelloop.settings import Settings
from roles.train.task_state import TaskState
from roles.train.tasks import Tasks

logger = logging.getLogger(__name__)

ROUND_S = 60.0


class Collector:
    """See the module."""

    def __init__(self, tasks: Tasks, settings: Settings) -> None:
        self._tasks = tasks
        self._settings = settings
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="collector", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread after the task it is at."""
        self._end.set()
        self._thread.join(timeout=10)

    def _work(self) -> None:
        while not self._end.wait(ROUND_S):
            for followed in self._tasks.all():
                if self._end.is_set():
                    return
                with log_context(task=followed.state.spec.task):
                    try:
                        self.collect(followed.state)
                    except LabelloopError as exc:
                        logger.warning("rubbish is left for the next round: %s", exc)
                    except Exception:
                        logger.exception("collecting failed, the next round starts from what is")

    def collect(self, state: TaskState) -> None:
        """Collect one task."""
        keep = self._settings.train.keep_versions, self._settings.inference.keep_jobs_s
        found = collect_garbage(state.folder, *keep, segments=state.log.segments)
        if found.versions or found.jobs or found.runs:
            logger.info("collected %d versions, %d jobs, %d runs", len(found.versions), len(found.jobs), len(found.runs))
