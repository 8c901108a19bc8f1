"""The data worker: takes intake hints from the train master's data queue.

Owns the Celery task `labelloop.data.intake`, a shell around `BatchProcessor`. Must never import torch, onnxruntime or tensorflow
in the parent process: a child loads its encoder with its first batch. Started by scripts/start_data.py.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from datastore_layout.root import Root, open_root
from intake.encoders import set_threads
from labelloop.errors import LabelloopError
from labelloop.logs import log_context
from labelloop.messages import RoleConfig, decode
from labelloop.queues import data_queue
from labelloop.settings import Settings
from roles.activity import Activity
from roles.celery_app import RoleApp, make_app, run_worker, send
from roles.data.batches import BatchProcessor, Result
from roles.hints import INTAKE_TASK, IntakeHint

logger = logging.getLogger(__name__)


def make_data_app(config: RoleConfig, settings: Settings, root: Root) -> RoleApp:
    """Return the app whose one task processes intake hints."""
    app = make_app(config, settings, "data")
    queue = data_queue(config.master_host)
    activity = Activity(config.state_dir, "data-worker")

    @functools.lru_cache(maxsize=1)
    def processor() -> BatchProcessor:
        return BatchProcessor(root, settings, config.node)

    def share(hint: IntakeHint, parts: tuple[tuple[int, int], ...]) -> None:
        logger.info("batch %s: %d parts of it wait for the workers of all nodes", hint.batch_id, len(parts))
        for start, stop in parts:
            send(app, INTAKE_TASK, msgspec.structs.replace(hint, start=start, stop=stop), queue)

    @app.task(name=INTAKE_TASK)
    def intake(payload: bytes) -> None:
        try:
            hint = decode(IntakeHint, payload)
            with log_context(task=hint.task):
                activity.say(f"{hint.task}: batch {hint.batch_id}")
                parts = processor().plan(hint.task, hint.batch_id) if not hint.stop else None
                if parts is not None:
                    share(hint, parts)
                    return
                result = processor().process(hint.task, hint.batch_id, hint.start, hint.stop)
                logger.info("batch %s: %s", hint.batch_id, result.value)
                if result is Result.UNFINISHED:
                    send(app, INTAKE_TASK, hint, queue)
        except LabelloopError as exc:
            logger.warning("intake hint dropped, the sweep hints again what is still open: %s", exc)
        except Exception:
            logger.exception("a batch failed; its attempt is recorded and the sweep hints it again")
        finally:
            activity.say("")

    return app


Guest = Callable[[RoleApp, RoleConfig, Settings, Root], str]
"""Adds a task of another room to the app and returns the queue it comes from."""


def run(config: RoleConfig, settings: Settings, guests: Sequence[Guest] = ()) -> int:
    """Consume the data queue of the train master, and those of `guests` when no batch waits, until SIGTERM; return the exit status.

    Raises NotReadyError when the datastore is not mounted, ConflictError when it is another cluster's.
    """
    root = open_root(Path(config.datastore_root), config.cluster_id)
    app = make_data_app(config, settings, root)
    name = f"data@{config.node}"
    others = [add(app, config, settings, root) for add in guests]
    return run_worker(
        app, [data_queue(config.master_host), *others], max(1, config.concurrency), "prefork", name, on_child=set_threads
    )
