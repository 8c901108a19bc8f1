"""Sends hints in the background, so that no caller of train_rpc and no supervision of trainings ever waits for a broker.

Owns one thread and its queue. Must never be relied on: a hint that the broker refuses is dropped with a warning, and the sweep
sends it again. Called by the submit handler and the sweep.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from labelloop.errors import UnreachableError
from labelloop.messages import Message
from labelloop.queues import data_queue, rank_queue, run_queue
from roles.hints import INTAKE_TASK, RANK_TASK, RUN_TASK, IntakeHint, RankHint, RunHint

logger = logging.getLogger(__name__)

Send = Callable[[str, Message, str], object]
_MOST_PENDING = 20_000


class Hinter:
    """`send(task name, message, queue)` puts one message on the broker; it may block and raise UnreachableError."""

    def __init__(self, send: Send, master_host: str) -> None:
        self._send = send
        self._data_queue = data_queue(master_host)
        self._run_queue = run_queue(master_host)
        self._pending: queue.Queue[tuple[str, Message, str] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="hinter", daemon=True)
        self._is_down = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop after what is queued now."""
        self._pending.put(None)
        self._thread.join(timeout=5)

    def intake(self, task: str, batch_id: str) -> None:
        """Tell a data worker that a batch waits."""
        self._put(INTAKE_TASK, IntakeHint(task=task, batch_id=batch_id), self._data_queue)

    def run(self, task: str, run: int, attempt: int) -> None:
        """Tell a train worker that an attempt is to be claimed."""
        self._put(RUN_TASK, RunHint(task=task, run=run, attempt=attempt), self._run_queue)

    def rank(self, hint: RankHint, node: str) -> None:
        """Ask a train node to take a rank of a run that another one owns."""
        self._put(RANK_TASK, hint, rank_queue(node))

    def pass_on(self, hint: RunHint, node: str) -> None:
        """Give a hint that this node has no room for to another one."""
        self._put(RUN_TASK, hint, rank_queue(node))

    def _put(self, name: str, message: Message, to: str) -> None:
        if self._pending.qsize() < _MOST_PENDING:  # a broker that is away for long: the sweep hints again anyway
            self._pending.put((name, message, to))

    def _work(self) -> None:
        while (hint := self._pending.get()) is not None:
            try:
                self._send(*hint)
            except UnreachableError as exc:
                if not self._is_down:
                    logger.warning("hint not sent, the sweep sends it again: %s", exc)
                self._is_down = True
            else:
                if self._is_down:
                    logger.info("hints are sent again")
                self._is_down = False
