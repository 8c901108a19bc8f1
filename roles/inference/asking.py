"""Ask a worker and wait for its answer: deadlines, silence, dead workers.

Owns the waiting side of `predict`, `warm` and `features`. Must never know what an order means or keep state after the
answer. Called by `predicting` and `swap` on RPC threads; any number of threads may ask at the same time.
"""

from __future__ import annotations

import itertools
import os
import queue
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from labelloop.errors import DeadlineError, NoWorkerError, from_code
from roles.celery_app import RoleApp, send
from roles.inference.calls import PING, Reply, Work
from roles.inference.mailbox import Mailbox
from roles.inference.presence import Seat

PING_S = 1.0
SILENT_S = 3.0
UNTAKEN_S = 5.0
TICK_S = 0.25
LOST_ATTEMPTS = 2


@dataclass
class _Waiting:
    work: Work
    sent_s: float
    sign_s: float | None = None
    losses: int = 0
    reply: Reply | None = None


def next_step(sent_s: float, sign_s: float | None, now_s: float) -> tuple[str, str]:
    """Return what to do about an order without an answer: ('wait' | 'again' | 'lost', reason)."""
    if sign_s is not None:
        if now_s - sign_s > SILENT_S:
            return "lost", f"its worker gave no sign for {SILENT_S:g} s"
        return "wait", "a worker is at it"
    if now_s - sent_s > UNTAKEN_S:
        return "again", f"no worker took it in {UNTAKEN_S:g} s: the broker may have lost it"
    return "wait", "queued"


class Asker:
    """Send orders to `queue` names and wait for the replies in `mailbox`."""

    def __init__(self, app: RoleApp, mailbox: Mailbox, worker_seat: Seat) -> None:
        self._app = app
        self._mailbox = mailbox
        self._seat = worker_seat
        self._prefix = f"{os.getpid():x}-{os.urandom(4).hex()}-"
        self._numbers = itertools.count()

    @property
    def app(self) -> RoleApp:
        return self._app

    def new_call(self) -> str:
        """Return a call id that no other process ever uses."""
        return f"{self._prefix}{next(self._numbers):x}"

    def require_worker(self, queue_name: str) -> None:
        """Return when a worker of this node is up or any worker answers a ping on `queue_name`.

        Raises UnreachableError at once while this node's broker is away, NoWorkerError.
        """
        self._mailbox.require_broker()
        if self._seat.is_taken():
            return
        ping = Work(call=self.new_call(), reply_to=self._mailbox.queue)
        answers: queue.SimpleQueue[Reply] = queue.SimpleQueue()
        self._mailbox.subscribe(ping.call, answers.put)
        try:
            send(self._app, PING, ping, queue_name)
            answers.get(timeout=PING_S)
        except queue.Empty:
            raise NoWorkerError("no inference worker is online: see `labelloop nodes` and the log of start_inference") from None
        finally:
            self._mailbox.unsubscribe(ping.call)

    def ask(self, task_name: str, queue_name: str, work: Work, timeout_s: float, take_s: float = float("inf")) -> Reply:
        """Send one order and return its final reply (kind 'done', or 'lost' when it ended two workers).

        Raises what the worker reported; NoWorkerError when nobody took it within `take_s` or at all; DeadlineError when it is not
        answered in time; UnreachableError, at once, when this node's broker goes away.
        """
        return self.ask_all(task_name, queue_name, (work,), timeout_s, take_s)[0]

    def ask_all(
        self, task_name: str, queue_name: str, works: Sequence[Work], timeout_s: float, take_s: float = float("inf")
    ) -> list[Reply]:
        """Send `works` at once and return their final replies in order; raises like `ask`, the first error found."""
        inbox: queue.SimpleQueue[Reply] = queue.SimpleQueue()
        waiting: dict[str, _Waiting] = {}
        end_s = time.monotonic() + timeout_s
        taken_s = time.monotonic() + take_s
        try:
            for work in works:
                addressed = msgspec.structs.replace(work, call=self.new_call(), reply_to=self._mailbox.queue)
                self._mailbox.subscribe(addressed.call, inbox.put)
                waiting[addressed.call] = _Waiting(addressed, time.monotonic())
                send(self._app, task_name, addressed, queue_name)
            while open_calls := [w for w in waiting.values() if w.reply is None]:
                if time.monotonic() > taken_s and not any(w.sign_s or w.losses for w in waiting.values()):
                    raise NoWorkerError(f"no worker took the order on {queue_name!r} within {take_s:g} s")
                self._wait(inbox, waiting, end_s, open_calls)
                self._look_after(task_name, queue_name, open_calls)
            return [w.reply for w in waiting.values() if w.reply is not None]
        finally:
            for call in waiting:
                self._mailbox.unsubscribe(call)

    def _wait(
        self, inbox: queue.SimpleQueue[Reply], waiting: dict[str, _Waiting], end_s: float, open_calls: Sequence[_Waiting]
    ) -> None:
        self._mailbox.check_broker()
        left_s = end_s - time.monotonic()
        if left_s <= 0:
            if all(w.sign_s is None for w in open_calls):
                raise NoWorkerError("no inference worker took the call: workers are down or far behind")
            raise DeadlineError("inference workers began the call but did not answer in time: send fewer items or ask again")
        try:
            reply = inbox.get(timeout=min(TICK_S, left_s))
        except queue.Empty:
            return
        entry = waiting[reply.call]
        entry.sign_s = time.monotonic()
        if reply.kind == "done":
            entry.reply = reply
        elif reply.kind == "failed":
            raise from_code(reply.code, reply.reason)
        elif reply.kind == "lost":
            self._lose(entry)

    def _lose(self, entry: _Waiting) -> None:
        entry.losses += 1
        entry.sign_s, entry.sent_s = None, 0.0  # due for `again` at the next look
        if entry.losses >= LOST_ATTEMPTS:
            entry.reply = Reply(call=entry.work.call, kind="lost")

    def _look_after(self, task_name: str, queue_name: str, open_calls: Sequence[_Waiting]) -> None:
        now_s = time.monotonic()
        for entry in open_calls:
            if entry.reply is not None:
                continue
            action, _ = next_step(entry.sent_s, entry.sign_s, now_s)
            if action == "lost":
                self._lose(entry)
            if action == "again" or (action == "lost" and entry.reply is None):
                entry.sent_s = now_s
                send(self._app, task_name, entry.work, queue_name)
