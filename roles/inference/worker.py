"""The Celery workers of the inference role: one process for calls that people wait for, one for chunks of jobs.

Owns the task shells, the pulse that tells the caller that a worker is still at it, and the start of both workers. Must never choose
a version, nor import numpy or a model library before its child has set its threads. Called by `scripts.start_inference`.

Two workers instead of one with two queues: a chunk of images takes seconds, and Celery does not interrupt a task for a person.
Measured figures: docs/developer/inference.md. The bulk worker runs at a lower priority of the operating system.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import signals

from labelloop import queues
from labelloop.errors import InternalError, LabelloopError, RetryableError
from labelloop.logs import set_process_context
from labelloop.messages import Message, RoleConfig, decode, encode
from labelloop.settings import Settings
from roles.activity import Activity
from roles.celery_app import RoleApp, make_app, run_worker
from roles.inference.calls import (
    CHUNKS,
    FEATURES,
    PING,
    PREDICT,
    RULES,
    WARM,
    ChunkWork,
    FeatureRows,
    PredictWork,
    Reply,
    RulesWork,
    WarmWork,
    Work,
)
from roles.inference.mailbox import post
from roles.inference.presence import worker_seat

if TYPE_CHECKING:
    from datastore_layout.root import Root

logger = logging.getLogger(__name__)

SLICE_S = 0.5
PULSE_S = 1.0
BULK_NICENESS = 2
INTERACTIVE = "interactive"
BULK = "bulk"


class Pulse:
    """Tells the callers of the orders at hand, every second, that their worker lives. One thread per child."""

    def __init__(self, app: RoleApp, worker: str) -> None:
        self._app, self._worker = app, worker
        self._at_hand: list[Work] = []
        threading.Thread(target=self._beat, name="pulse", daemon=True).start()

    @contextlib.contextmanager
    def over(self, work: Work) -> Iterator[None]:
        """Keep telling about `work` inside the block."""
        self._at_hand.append(work)
        try:
            yield
        finally:
            self._at_hand.remove(work)

    def say(self, work: Work, kind: Any, **fields: Any) -> None:
        post(self._app, work.reply_to, Reply(call=work.call, kind=kind, worker=self._worker, **fields))

    def _beat(self) -> None:
        while True:
            time.sleep(PULSE_S)
            for work in list(self._at_hand):
                self.say(work, "alive")


class Child:
    """What one worker child keeps between tasks; made in the child, after its threads are set."""

    def __init__(self, app: RoleApp, config: RoleConfig, settings: Settings, threads: int, activity: Activity) -> None:
        from datastore_layout.root import open_root
        from intake.encoders import set_threads
        from roles.inference.chunks import ChunkWorker
        from roles.inference.predictor import Predictor
        from roles.inference.rule_desk import RuleDesk

        set_threads(threads)
        root = open_root(Path(config.datastore_root), config.cluster_id)
        self.predictor = Predictor(root, settings)
        self.chunks = ChunkWorker(self.predictor)
        self.rules = RuleDesk(self.predictor, settings.intake)
        self.pulse = Pulse(app, f"{config.node}/{os.getpid()}")
        self.activity = activity
        threading.Thread(target=self._warm_up, args=(root,), name="warm-up", daemon=True).start()

    def _warm_up(self, root: Root) -> None:
        """Load what serves now, so that the first call after a start finds libraries imported and models warm."""
        from datastore_layout.models import current
        from datastore_layout.root import list_tasks, task_folder

        try:
            for task in list_tasks(root)[: self.predictor.most_models]:
                pointer = current(task_folder(root, task))
                if pointer is not None:
                    self.predictor.warm(task, pointer.version)
        except LabelloopError as exc:
            logger.warning("warming up ends early: %s", exc)

    def predict(self, work: PredictWork) -> None:
        self.pulse.say(work, "done", body=encode(self.predictor.predict(work.task, work.version, work.items)))

    def features(self, work: PredictWork) -> None:
        batch = self.predictor.embed(work.task, work.version, work.items)
        rows = FeatureRows(item_ids=batch.item_ids, dim=batch.features.shape[1], data=batch.features.tobytes())
        self.pulse.say(work, "done", body=encode(rows))

    def apply_rules(self, work: RulesWork) -> None:
        self.pulse.say(work, "done", body=encode(self.rules.votes(work)))

    def ping(self, work: Work) -> None:
        self.pulse.say(work, "done")

    def warm(self, work: WarmWork) -> None:
        """Load in the background, so that a person's call need not wait for a load."""
        threading.Thread(target=self._warm, args=(work,), name="warming", daemon=True).start()

    def _warm(self, work: WarmWork) -> None:
        try:
            with self.pulse.over(work):
                self.predictor.warm(work.task, work.version)
        except LabelloopError as exc:
            self.pulse.say(work, "failed", code=exc.code, reason=str(exc))
        except Exception as exc:  # a model library's own error: the version is refused with its words
            logger.exception("version %s of task %s does not load", work.version, work.task)
            self.pulse.say(work, "failed", code=InternalError.code, reason=f"{work.version} does not load: {exc}")
        else:
            self.pulse.say(work, "done")

    def work_chunks(self, work: ChunkWork) -> None:
        """Answer chunks for a slice of time; at least one, and what is left is reported."""
        self.activity.say(f"{work.task}: chunk {work.parts[0].chunk} and on of job {work.job_id}")
        try:
            self._work_chunks(work)
        finally:
            self.activity.say("")

    def _work_chunks(self, work: ChunkWork) -> None:
        end_s = time.monotonic() + SLICE_S
        left: list[int] = []
        trouble: RetryableError | None = None
        desk = self.chunks.open_desk(work)
        for at, part in enumerate(work.parts):
            if at and time.monotonic() >= end_s:
                left.extend(later.chunk for later in work.parts[at:])
                break
            try:
                self.chunks.answer(desk, work, part)
            except RetryableError as exc:
                left.append(part.chunk)
                trouble = exc
            except Exception as exc:  # the task shell of one chunk: its items are answered with the error
                logger.exception("chunk %d of job %s failed", part.chunk, work.job_id)
                reason = f"{type(exc).__name__}: {exc}; the worker's log has the traceback"
                self.chunks.fail(desk, work, part, InternalError(reason))
        self.chunks.drain()
        if trouble is not None:
            self.pulse.say(work, "failed", left=tuple(left), code=trouble.code, reason=str(trouble))
        else:
            self.pulse.say(work, "done", left=tuple(left))


class _Shell:
    """The Celery tasks of one app; `child` is filled in by each child."""

    def __init__(self, app: RoleApp) -> None:
        self.child: Child | None = None
        for name, kind, act in (
            (PREDICT, PredictWork, Child.predict),
            (FEATURES, PredictWork, Child.features),
            (RULES, RulesWork, Child.apply_rules),
            (WARM, WarmWork, Child.warm),
            (CHUNKS, ChunkWork, Child.work_chunks),
            (PING, Work, Child.ping),
        ):
            app.task(name=name, bind=True)(self._task(kind, act))

    def _task(self, kind: type[Work], act: Callable[[Child, Any], None]) -> Callable[[Any, bytes], None]:
        def run(task: Any, payload: bytes) -> None:
            is_again = bool((task.request.delivery_info or {}).get("redelivered"))
            self._run(decode(kind, payload), act, is_again)

        return run

    def _run(self, work: Work, act: Callable[[Child, Any], None], is_again: bool) -> None:
        child = self.child
        assert child is not None, "on_child has not run"
        if is_again and not isinstance(work, ChunkWork):
            child.pulse.say(work, "lost")
            return
        child.pulse.say(work, "taken")
        try:
            with child.pulse.over(work):
                act(child, work)
        except LabelloopError as exc:
            child.pulse.say(work, "failed", code=exc.code, reason=str(exc), left=_left(work))
        except Exception as exc:  # the task shell
            logger.exception("order %s failed", work.call)
            reason = f"{type(exc).__name__}: {exc}; the worker's log has the traceback"
            child.pulse.say(work, "failed", code=InternalError.code, reason=reason, left=_left(work))


def _left(work: Message) -> tuple[int, ...]:
    return tuple(part.chunk for part in work.parts) if isinstance(work, ChunkWork) else ()


def run(config: RoleConfig, settings: Settings, kind: str) -> int:
    """Be the interactive or the bulk worker until SIGTERM; returns the exit status."""
    set_process_context(node=config.node, role=f"inference-{kind}")
    app = make_app(config, settings, f"inference-{kind}")
    shell = _Shell(app)
    activity = Activity(config.state_dir, "inference-worker")

    def on_child(threads: int) -> None:
        shell.child = Child(app, config, settings, threads, activity)

    if kind == BULK:
        os.nice(BULK_NICENESS)
        names = [queues.bulk_queue(config.cluster_id)]
    else:
        seat = worker_seat(config.state_dir, config.node)
        signals.worker_ready.connect(lambda **_: seat.take(wait=True), weak=False)
        names = [queues.node_queue(config.node), queues.interactive_queue(config.cluster_id)]
    return run_worker(app, names, max(1, config.concurrency), "prefork", f"{kind}@{config.node}", on_child)
