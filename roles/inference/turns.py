"""Which chunks go to the bulk queue next: fair turns between tasks and between a task's jobs, and what counts as lost.

Owns the book of open jobs and of orders under way, in memory. Pure: time is an argument, nothing is read or sent. Must never
decide that a chunk is done: result files say so. Called by `dispatch`, on one thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

MESSAGE_CHUNKS = 8
LONGEST_DELAY_S = 30.0

JobName = tuple[str, str]


@dataclass
class OpenJob:
    """A job with chunks still to be sent. `not_before_s` and `delay_s` hold it back after a failure."""

    name: JobName
    pending: deque[int]
    flying: int = 0
    not_before_s: float = 0.0
    delay_s: float = 0.0


@dataclass(frozen=True)
class Order:
    """Chunks of one job that travel in one message."""

    job: JobName
    chunks: tuple[int, ...]


@dataclass
class _Flight:
    order: Order
    sent_s: float
    serial: int
    sign_s: float | None = None
    overtaken_s: float | None = None


@dataclass
class Turns:
    """`limit`: most orders of one task under way; `requeue_after_s`: silence after which an order counts as lost."""

    limit: int
    requeue_after_s: float
    jobs: dict[JobName, OpenJob] = field(default_factory=dict)
    _tasks: deque[str] = field(default_factory=deque)
    _turns: dict[str, deque[JobName]] = field(default_factory=dict)
    _flights: dict[str, _Flight] = field(default_factory=dict)
    _serial: int = 0
    _last_sign_s: float = 0.0
    _patience_s: float = 0.0

    def add(self, name: JobName, chunks: Iterable[int]) -> None:
        """Open a job, or replace the pending chunks of an open one."""
        job = self.jobs.setdefault(name, OpenJob(name, deque()))
        under_way = {c for flight in self._flights.values() if flight.order.job == name for c in flight.order.chunks}
        job.pending = deque(c for c in chunks if c not in under_way)
        if name[0] not in self._turns:
            self._turns[name[0]] = deque()
            self._tasks.append(name[0])
        if name not in self._turns[name[0]]:
            self._turns[name[0]].append(name)

    def close(self, name: JobName) -> None:
        """Forget a job: all its chunks are answered."""
        self.jobs.pop(name, None)
        turns = self._turns.get(name[0])
        if turns is not None and name in turns:
            turns.remove(name)
        if turns is not None and not turns:
            del self._turns[name[0]]
            self._tasks.remove(name[0])

    def orders(self, now_s: float) -> Iterator[Order]:
        """Yield the orders to send now, one task after the other; the caller reports each by `sent`.

        They may reach the queue in any order, so none of them counts as older than another of the same call.
        """
        self._serial += 1
        is_idle = False
        while not is_idle:
            is_idle = True
            for _ in range(len(self._tasks)):
                task = self._tasks[0]
                self._tasks.rotate(-1)
                order = self._next_of(task, now_s)
                if order is not None:
                    is_idle = False
                    yield order

    def _next_of(self, task: str, now_s: float) -> Order | None:
        room = self.limit - sum(flight.order.job[0] == task for flight in self._flights.values())
        if room <= 0:
            return None
        turns = self._turns[task]
        for _ in range(len(turns)):
            job = self.jobs[turns[0]]
            turns.rotate(-1)
            if job.pending and job.not_before_s <= now_s:
                share = -(-len(job.pending) // room)
                n = max(1, min(MESSAGE_CHUNKS, share, len(job.pending)))
                return Order(job.name, tuple(job.pending.popleft() for _ in range(n)))
        return None

    def sent(self, call: str, order: Order, now_s: float) -> None:
        """Note that `order` was queued under `call`."""
        if not self._flights:
            self._last_sign_s = now_s
            self._patience_s = self.requeue_after_s
        self._flights[call] = _Flight(order, now_s, self._serial)
        self.jobs[order.job].flying += 1

    def sign(self, call: str, now_s: float) -> None:
        """Note that a worker took `call` or is still at it."""
        flight = self._flights.get(call)
        if flight is None:
            return
        if flight.sign_s is None:
            for other in self._flights.values():
                if other.serial < flight.serial and other.sign_s is None and other.overtaken_s is None:
                    other.overtaken_s = now_s
        flight.sign_s = self._last_sign_s = now_s
        self._patience_s = self.requeue_after_s

    def finished(self, call: str, left: Iterable[int], now_s: float, *, is_failed: bool = False) -> JobName | None:
        """Note the end of `call`; `left` go to the head of their job, after a growing pause when it failed. Returns the job."""
        flight = self._flights.pop(call, None)
        if flight is None:
            return None
        self._last_sign_s = now_s
        job = self.jobs.get(flight.order.job)
        if job is None:
            return None
        job.flying -= 1
        job.pending.extendleft(reversed(tuple(left)))
        job.delay_s = min(LONGEST_DELAY_S, 2 * job.delay_s or 0.25) if is_failed else 0.0
        job.not_before_s = now_s + job.delay_s
        return job.name

    def lost(self, now_s: float) -> tuple[tuple[str, str], ...]:
        """Return (call, reason) of the orders that count as lost; the caller gives each back by `finished` with its chunks.

        An order is lost when its worker fell silent; when a younger one was taken and this one still is not, a pause later
        (queues are first in, first out); or when no worker gave any sign, a pause that doubles while that lasts.
        """
        is_silent = now_s - self._last_sign_s > self._patience_s
        if is_silent and self._flights:
            self._patience_s = min(60.0, 2 * self._patience_s)
            self._last_sign_s = now_s
        found = []
        for call, flight in self._flights.items():
            reason = self._why_lost(flight, is_silent, now_s)
            if reason is not None:
                found.append((call, reason))
        return tuple(found)

    def _why_lost(self, flight: _Flight, is_silent: bool, now_s: float) -> str | None:
        if flight.sign_s is not None:
            return "its worker fell silent" if now_s - flight.sign_s > self.requeue_after_s else None
        if flight.overtaken_s is not None and now_s - flight.overtaken_s > self.requeue_after_s:
            return "younger orders were taken first"
        return "no worker gave a sign" if is_silent else None

    def is_under_way(self, call: str) -> bool:
        """Return whether `call` was sent and has not ended."""
        return call in self._flights

    def chunks_of(self, call: str) -> tuple[int, ...]:
        """Return the chunks of an order under way."""
        return self._flights[call].order.chunks

    def job_of(self, call: str) -> JobName:
        """Return the job of an order under way."""
        return self._flights[call].order.job

    def is_drained(self, name: JobName) -> bool:
        """Return whether nothing of an open job is pending or under way."""
        job = self.jobs.get(name)
        return job is not None and not job.pending and job.flying == 0
