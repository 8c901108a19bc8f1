"""Send the chunks of durable jobs to the bulk queue: fair turns, and what was lost once more.

Owns the dispatcher's seat and the sweep. Must never answer a chunk or trust its memory over the datastore: what
is missing is what has no result file. Called by `service`: every inference_rpc process has one, the one that holds the node's
seat works, and when it dies the kernel frees the seat for the next.

A task's jobs are sent by one node, its home (see `nodes`), so that its bound holds in the whole cluster; the next in the task's
order takes over a job that makes no progress. All but `start`, `close` and `_publish` runs on the dispatcher's own thread.
"""

from __future__ import annotations

import logging
import os
import queue
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from datastore_layout.job_progress import has_result, is_finished, mark_finished
from datastore_layout.jobs import JobHead, done_chunks, list_jobs, read_chunk, read_job_head
from datastore_layout.root import Root, list_tasks, task_folder
from labelloop.errors import LabelloopError, NotFoundError
from labelloop.settings import InferenceSettings
from roles.celery_app import RoleApp, send
from roles.inference.calls import CHUNKS, ChunkPart, ChunkWork, Reply
from roles.inference.mailbox import Mailbox
from roles.inference.nodes import Nodes
from roles.inference.notices import NoticePipe
from roles.inference.presence import Seat
from roles.inference.turns import JobName, Order, Turns

logger = logging.getLogger(__name__)

SEAT_S = 0.1
TICK_S = 0.1
IDLE_S = 0.5
ORDERS_A_NODE = 2  # one at work, one at hand
SENDERS = 7


class Dispatcher:
    """Holds the seat when it can, and then keeps every open job of the datastore moving."""

    def __init__(
        self,
        root: Root,
        settings: InferenceSettings,
        app: RoleApp,
        mailbox: Mailbox,
        seat: Seat,
        notices: NoticePipe,
        queue_name: str,
        nodes: Nodes,
    ) -> None:
        self._root, self._settings, self._app, self._mailbox = root, settings, app, mailbox
        self._seat, self._notices, self._queue_name, self._nodes = seat, notices, queue_name, nodes
        self._is_stopping = threading.Event()
        self._inbox: queue.SimpleQueue[Reply | JobName] = queue.SimpleQueue()
        self._prefix = f"d{os.getpid():x}-{os.urandom(4).hex()}-"
        self._n_calls = 0
        self._senders = ThreadPoolExecutor(SENDERS, thread_name_prefix="chunks-out")
        self._reset()
        self._threads = [
            threading.Thread(target=self._run, name="dispatcher", daemon=True),
            threading.Thread(target=self._listen, name="notices", daemon=True),
        ]
        self._is_ruling = threading.Event()

    def _reset(self) -> None:
        self._turns = Turns(self._settings.chunks_in_flight, self._settings.requeue_after_s)
        self._heads: dict[JobName, JobHead] = {}
        self._finished: set[JobName] = set()
        self._strangers: dict[JobName, tuple[int, float]] = {}

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._is_stopping.set()
        for thread in self._threads:
            thread.join()
        self._senders.shutdown()
        self._seat.leave()

    # ------------------------------------------------------------ threads

    def _listen(self) -> None:
        while not self._is_stopping.is_set():
            if not self._is_ruling.wait(SEAT_S):
                continue
            for name in self._notices.read(IDLE_S):
                self._inbox.put(name)

    def _run(self) -> None:
        while not self._is_stopping.is_set():
            if not self._seat.take():
                self._is_stopping.wait(SEAT_S)
                continue
            try:
                self._rule()
            except Exception:  # the daemon loop: log, then look at everything anew
                logger.exception("the dispatcher fell, starting anew from the datastore")
                self._is_stopping.wait(1.0)

    def _rule(self) -> None:
        logger.info("dispatching jobs from this process")
        self._reset()
        self._is_ruling.set()
        self._sweep(time.monotonic(), is_first=True)
        next_sweep_s = self._next_sweep_s()
        while not self._is_stopping.is_set():
            self._send_due()
            self._take_in()
            now_s = time.monotonic()
            for call, reason in self._turns.lost(now_s):
                self._requeue(call, reason, now_s)
            if now_s >= next_sweep_s:
                self._sweep(now_s)
                next_sweep_s = self._next_sweep_s()

    def _next_sweep_s(self) -> float:
        return time.monotonic() + self._settings.requeue_after_s * random.uniform(0.8, 1.2)

    def _take_in(self) -> None:
        """Wait for one event, then take in all that lie there."""
        try:
            self._handle(self._inbox.get(timeout=TICK_S if self._turns.jobs else IDLE_S))
            while True:
                self._handle(self._inbox.get_nowait())
        except queue.Empty:
            return

    def _handle(self, event: Reply | JobName) -> None:
        if isinstance(event, tuple):
            self._adopt(event)
            return
        now_s = time.monotonic()
        if event.kind in ("taken", "alive"):
            self._turns.sign(event.call, now_s)
        elif event.kind == "lost":
            if self._turns.is_under_way(event.call):
                self._requeue(event.call, event.reason, now_s)
        elif event.kind in ("done", "failed"):
            self._mailbox.unsubscribe(event.call)
            if event.kind == "failed":
                logger.warning("chunks are put back: %s: %s", event.code, event.reason)
            name = self._turns.finished(event.call, event.left, now_s, is_failed=event.kind == "failed")
            if name is not None and self._turns.is_drained(name):
                self._adopt(name)

    # ------------------------------------------------------------ jobs

    def _adopt(self, name: JobName) -> None:
        """Take a job's missing chunks from the datastore into the turns, or close it when there are none."""
        try:
            folder = task_folder(self._root, name[0])
            head = self._heads.get(name) or read_job_head(folder, name[1])
            done = done_chunks(folder, name[1])
        except LabelloopError as exc:
            logger.warning("job %s of task %s is dropped: %s", name[1], name[0], exc)
            self._forget(name)
            return
        missing = [chunk for chunk in range(head.n_chunks) if chunk not in done]
        if not missing:
            self._forget(name)
            self._finished.add(name)
            mark_finished(folder, name[1])
            return
        self._heads[name] = head
        self._turns.add(name, missing)

    def _forget(self, name: JobName) -> None:
        self._turns.close(name)
        self._heads.pop(name, None)
        self._strangers.pop(name, None)

    def _sweep(self, now_s: float, is_first: bool = False) -> None:
        """Adopt what nobody moves: at the first look every open job of this home, else those that stand still."""
        try:
            for task in list_tasks(self._root):
                folder, place = task_folder(self._root, task), self._nodes.place_of(task)
                for job_id in list_jobs(folder):
                    name = (str(task), str(job_id))
                    if name in self._finished or name in self._heads:
                        continue
                    if is_finished(folder, job_id):
                        self._finished.add(name)
                    elif (is_first and not place) or self._stands_still(name, len(done_chunks(folder, job_id)), place, now_s):
                        logger.info("taking over job %s of task %s", job_id, task)
                        self._adopt(name)
        except LabelloopError as exc:
            logger.warning("this sweep ends early: %s", exc)

    def _stands_still(self, name: JobName, n_done: int, place: int, now_s: float) -> bool:
        """Return whether a job made no progress for longer than all nodes before this one in its order would have let it."""
        before, since_s = self._strangers.get(name, (-1, now_s))
        if before != n_done:
            self._strangers[name] = (n_done, now_s)
            return False
        return now_s - since_s >= (1 + place) * self._settings.requeue_after_s

    # ------------------------------------------------------------ orders

    def _send_due(self) -> None:
        """Queue what is due. Several messages wait for their confirmations at the same time: each costs the broker a disk write."""
        self._turns.limit = max(self._settings.chunks_in_flight, ORDERS_A_NODE * len(self._nodes.names()))
        begun = [found for order in self._turns.orders(time.monotonic()) if (found := self._begin(order)) is not None]
        sending = [self._senders.submit(self._publish, work) for work, _ in begun[1:]]
        for at, (work, order) in enumerate(begun):
            self._settle(work, order, sending[at - 1].result() if at else self._publish(work))

    def _begin(self, order: Order) -> tuple[ChunkWork, Order] | None:
        """Note that an order is under way and return its message; None when its job is gone."""
        self._n_calls += 1
        call = f"{self._prefix}{self._n_calls:x}"
        self._turns.sent(call, order, time.monotonic())
        try:
            work = self._work(call, order)
        except NotFoundError as exc:
            logger.warning("job %s is gone: %s", order.job[1], exc)
            self._turns.finished(call, (), time.monotonic())
            self._forget(order.job)
            return None
        except LabelloopError as exc:
            self._put_back(call, order, exc)
            return None
        self._mailbox.subscribe(call, self._inbox.put)
        return work, order

    def _publish(self, work: ChunkWork) -> LabelloopError | None:
        try:
            send(self._app, CHUNKS, work, self._queue_name)
        except LabelloopError as exc:
            return exc
        return None

    def _settle(self, work: ChunkWork, order: Order, trouble: LabelloopError | None) -> None:
        if trouble is not None:
            self._mailbox.unsubscribe(work.call)
            self._put_back(work.call, order, trouble)

    def _put_back(self, call: str, order: Order, trouble: LabelloopError) -> None:
        logger.warning("chunks of job %s wait: %s", order.job[1], trouble)
        self._turns.finished(call, order.chunks, time.monotonic(), is_failed=True)

    def _work(self, call: str, order: Order) -> ChunkWork:
        task, job_id = order.job
        folder, head = task_folder(self._root, task), self._heads[order.job]
        parts = []
        for chunk in order.chunks:
            spec = read_chunk(folder, job_id, chunk, head)
            parts.append(ChunkPart(chunk=chunk, items=spec.items, shard=spec.shard))
        return ChunkWork(
            call=call, reply_to=self._mailbox.queue, task=task, job_id=job_id, version=head.version, parts=tuple(parts)
        )

    def _requeue(self, call: str, reason: str, now_s: float) -> None:
        name = self._turns.job_of(call)
        folder = task_folder(self._root, name[0])
        left = [chunk for chunk in self._turns.chunks_of(call) if not has_result(folder, name[1], chunk)]
        logger.warning("%d chunks of job %s are queued again: %s", len(left), name[1], reason)
        self._mailbox.unsubscribe(call)
        self._turns.finished(call, left, now_s)
        if self._turns.is_drained(name):
            self._adopt(name)
