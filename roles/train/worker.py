"""The train worker: takes hints from the train master's queue and hands them to the runner.

Owns the Celery task of hints, which is acknowledged before it does anything and is over at once: no training is ever a Celery task.
Must never import a model library. Called by `scripts.start_train`.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from datastore_layout.root import open_root
from labelloop.errors import LabelloopError
from labelloop.messages import RoleConfig, decode
from labelloop.queues import run_queue
from labelloop.settings import Settings, environment_of
from roles.celery_app import ALLOCATOR_ENVIRONMENT, make_app, run_worker, threads_for
from roles.hints import RUN_TASK, RunHint
from roles.train.runner import Runner

logger = logging.getLogger(__name__)

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


def child_environment(settings: Settings, slots: int) -> dict[str, str]:
    """Return the environment of training children: ours, their settings, allocator and share of the cores.

    Threads that wait must not spin: measured on two busy cores, a small CNN's step takes 23 ms so, and 130 ms with spinning.
    """
    threads = {name: str(threads_for(slots)) for name in _THREAD_VARIABLES}
    return {**os.environ, **environment_of(settings), **ALLOCATOR_ENVIRONMENT, **threads, "OMP_WAIT_POLICY": "PASSIVE"}


def run_train_worker(config: RoleConfig, config_file: Path, settings: Settings) -> int:
    """Take hints until SIGTERM; return the exit status. Raises NotReadyError when the datastore is not mounted."""
    root = open_root(Path(config.datastore_root), config.cluster_id)
    slots = max(1, config.concurrency)
    runner = Runner(root, config_file, child_environment(settings, slots), settings.train, slots)
    app = make_app(config, settings, "labelloop-train")

    def take(data: bytes) -> None:
        try:
            runner.offer(decode(RunHint, data))
        except LabelloopError as exc:
            logger.error("a hint that cannot be read is dropped: %s", exc)

    task: Any = app.task(name=RUN_TASK, acks_late=False, ignore_result=True)
    task(take)
    runner.start()
    try:
        return run_worker(app, [run_queue(config.master_host)], 1, "solo", f"train@{config.node}")
    finally:
        runner.close()
