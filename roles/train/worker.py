"""The train worker: takes hints from the train master's queue and hands them to the runner.

Owns the Celery tasks of hints, acknowledged before they do anything and over at once: no training is ever a Celery task.
Must never import a model library. Called by `scripts.start_train`.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from datastore_layout.root import open_root
from labelloop.errors import LabelloopError
from labelloop.messages import RoleConfig, decode
from labelloop.nodefiles import read_machines, why_alone
from labelloop.queues import rank_queue, run_queue
from labelloop.settings import Settings, environment_of
from roles.activity import Activity
from roles.celery_app import ALLOCATOR_ENVIRONMENT, make_app, run_worker, send, threads_for
from roles.hints import RANK_TASK, RUN_TASK, RankHint, RunHint
from roles.train.hinter import Hinter
from roles.train.runner import Runner

logger = logging.getLogger(__name__)

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


def child_environment(settings: Settings, slots: int) -> dict[str, str]:
    """Return the environment of training children: ours, their settings, allocator and share of the cores.

    Threads that wait must not spin: measured on two busy cores, a small CNN's step takes 23 ms so, and 130 ms with spinning.
    torch's store asks for the name of each address it connects to, only to log it, and gives up the connection when that takes
    longer than its own deadline: a name server that does not answer may cost it a second, not glibc's ten.
    """
    threads = {name: str(threads_for(slots)) for name in _THREAD_VARIABLES}
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "TORCH_CPP_LOG_LEVEL": "ERROR"}  # a lost peer is told by us, without C++ frames
    names = {"RES_OPTIONS": "timeout:1 attempts:1"}
    return {**names, **os.environ, **environment_of(settings), **ALLOCATOR_ENVIRONMENT, **threads, **quiet}


def next_taker(hint: RunHint, node: str, good: Sequence[str]) -> str:
    """Return which of the `good` train nodes a hint goes to that `node` has no room for; '' = all have passed it, it stays."""
    passed = {*hint.passed, node}
    return next((name for name in good if name not in passed), "")


def run_train_worker(config: RoleConfig, config_file: Path, settings: Settings) -> int:
    """Take hints until SIGTERM; return the exit status. Raises NotReadyError when the datastore is not mounted."""
    root = open_root(Path(config.datastore_root), config.cluster_id)
    slots = max(1, config.concurrency)
    app = make_app(config, settings, "labelloop-train")
    hinter = Hinter(functools.partial(send, app), config.master_host)
    activity = Activity(config.state_dir, "train-worker")
    runner = Runner(
        root, config_file, child_environment(settings, slots), settings.train, slots, call=hinter.rank, say=activity.say
    )

    def take_run(data: bytes) -> None:
        hint = decode(RunHint, data)
        if why := why_alone(Path(config.state_dir)):
            logger.info("the hint of run %d is dropped, the sweep gives another: %s", hint.run, why)
            return
        good = [machine.hostname for machine in read_machines(Path(config.state_dir)).of("train")]
        is_out = bool(good) and config.node not in good  # its order to end, or to come back, is on its way
        if (is_out or runner.is_full()) and (node := next_taker(hint, config.node, good)):
            hinter.pass_on(msgspec.structs.replace(hint, passed=(*hint.passed, config.node)), node)
        else:
            runner.offer(hint)

    for name, take in ((RUN_TASK, take_run), (RANK_TASK, lambda data: runner.offer_rank(decode(RankHint, data)))):
        task: Any = app.task(name=name, acks_late=False, ignore_result=True)
        task(_shell(take))
    hinter.start()
    runner.start()
    queues = [run_queue(config.master_host), rank_queue(config.node)]
    try:
        return run_worker(app, queues, 1, "solo", f"train@{config.node}")
    finally:
        runner.close()
        hinter.close()


def _shell(take: Callable[[bytes], None]) -> Callable[[bytes], None]:
    def shell(data: bytes) -> None:
        try:
            take(data)
        except LabelloopError as exc:
            logger.error("a hint that cannot be read is dropped: %s", exc)

    return shell
