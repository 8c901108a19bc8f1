"""What the registry does about removed nodes: tells those that are there to leave; brokers forget by themselves who is not.

Owns what is in flight of that. Must never touch a node that was not removed by name. Used by `cluster.steward` under its lock;
answers come on other threads and go into the steward's inbox.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cluster.journal import Journal
from cluster.orders import Done, Orders
from cluster.rounds import Pauses
from labelloop.errors import LabelloopError
from labelloop.messages import MachineInfo, Message

Post = Callable[[Callable[[], None]], None]


class Chores:
    """`post` has a function run under the steward's lock, in its loop."""

    def __init__(self, orders: Orders, journal: Journal, post: Post, clock: Callable[[], float], dead_after_s: float) -> None:
        self._orders = orders
        self._journal = journal
        self._post = post
        self._clock = clock
        self._dead_after_s = dead_after_s
        self._there: dict[str, tuple[MachineInfo, float]] = {}
        self._running: set[str] = set()
        self._pauses = Pauses()

    def note_removed(self, machine: MachineInfo, now_s: float) -> None:
        """Take in that a removed node is there."""
        self._there[machine.hostname] = (machine, now_s)

    def is_there(self, hostname: str, now_s: float) -> bool:
        """Return whether a removed node has still to be told to leave."""
        _, at_s = self._there.get(hostname, (None, float("-inf")))
        return now_s - at_s < self._dead_after_s

    def cancel(self, hostname: str) -> None:
        """The node may come back."""
        self._there.pop(hostname, None)
        self._pauses.clear(f"leave {hostname}")

    def do(self, removed: Mapping[str, MachineInfo], now_s: float) -> None:
        """Begin what is due."""
        self._there = {name: seen for name, seen in self._there.items() if name in removed and self.is_there(name, now_s)}
        for name, (machine, _) in self._there.items():
            if self._begins(f"leave {name}", now_s):
                self._orders.leave(machine, self._done(f"leave {name}", name))

    def _begins(self, key: str, now_s: float) -> bool:
        if key in self._running or not self._pauses.is_over(key, now_s):
            return False
        self._running.add(key)
        return True

    def _done(self, key: str, name: str) -> Done:
        return lambda hostname, answer: self._post(lambda: self._end(key, name, answer))

    def _end(self, key: str, name: str, answer: Message | LabelloopError) -> None:
        self._running.discard(key)
        if isinstance(answer, LabelloopError):
            self._pauses.fail(key, self._clock())
            self._journal.note("failure", f"{key}: {answer.code}: {answer}")
            return
        self._pauses.clear(key)
        self._there.pop(name, None)
        self._journal.note("remove", f"{name} has left")
