"""Which inference nodes are good, and which of them sends the chunks of a task: its home.

Owns the reading of the node's `machines.json` and the order of nodes for a task. Must never ask a node. Called by `service`,
`warming`, `notices` and `dispatch`, from any thread.

One home a task, so that a task never has more orders under way than its bound, however many nodes accept its jobs; the order is by
the hash of (task, node), which moves few tasks when a node comes or goes, and all nodes compute the same one.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from labelloop.nodefiles import read_machines

logger = logging.getLogger(__name__)

LOOK_S = 0.5


def homes_of(task: str, nodes: Iterable[str]) -> tuple[str, ...]:
    """Return `nodes` in the order in which they are to look after `task`, its home first; equal on every node."""
    return tuple(sorted(nodes, key=lambda node: hashlib.sha256(f"{task}\n{node}".encode()).digest()))


class Nodes:
    """The good inference nodes as the manager's file names them; this one is always among them."""

    def __init__(self, state_dir: str, me: str) -> None:
        self._state = Path(state_dir)
        self.me = me
        self._names: tuple[str, ...] = (me,)
        self._looked_s = float("-inf")

    def names(self) -> tuple[str, ...]:
        """Return the host names, sorted, at most half a second old."""
        now_s = time.monotonic()
        if now_s - self._looked_s > LOOK_S:
            self._looked_s = now_s
            self._names = self._read()
        return self._names

    def _read(self) -> tuple[str, ...]:
        try:
            found = {machine.hostname for machine in read_machines(self._state).of("inference")}
        except (OSError, msgspec.MsgspecError) as exc:
            logger.warning("the good machines are not readable, going on with %s: %s", ", ".join(self._names), exc)
            return self._names
        return tuple(sorted(found | {self.me}))

    def others(self) -> tuple[str, ...]:
        """Return all but this node."""
        return tuple(name for name in self.names() if name != self.me)

    def home_of(self, task: str) -> str:
        """Return the node that sends the chunks of `task`."""
        return homes_of(task, self.names())[0]

    def place_of(self, task: str) -> int:
        """Return this node's place in the order for `task`: 0 = it is its home."""
        return homes_of(task, self.names()).index(self.me)
