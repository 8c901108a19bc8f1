"""How many nodes a run gets, who waits to be taken in, and whether two processes train the same thing: pure.

Owns these rules and what owner and ranks write on the board for each other. Must never talk to anybody. Called by `owner` and
`rank`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from labelloop.messages import MachineInfo, Message
from roles.hints import RankHint
from roles.train.samples import Samples

_LEAST_STEPS = 2  # a first step also warms caches up: it says nothing of those to come
_MOST_LOSSES = 3


class Here(msgspec.Struct, frozen=True, kw_only=True):
    """The node a training runs on, and the role's config file there.

    `machines` are the good ones of the moment, `call` asks one of them to take a rank, `say` tells what the training is at.
    """

    node: str = ""
    hostname: str = ""
    ip: str = "127.0.0.1"
    config_file: Path = Path()
    machines: Callable[[], tuple[MachineInfo, ...]] = tuple
    call: Callable[[RankHint, str], None] = lambda _hint, _node: None
    say: Callable[[str], None] = lambda _text: None

    def others(self) -> tuple[str, ...]:
        """Return the host names of the other good train nodes."""
        return tuple(machine.hostname for machine in self.machines() if machine.type == "train" and machine.hostname != self.node)


class Ready(Message, frozen=True, kw_only=True):
    """A process of `node` that waits for a generation above `after`, said again while it waits.

    Processes with equal `fingerprint`s train the same thing.
    """

    node: str
    hostname: str
    pid: int
    after: int
    fingerprint: str


class Opened(Message, frozen=True, kw_only=True):
    """The newest generation, and the process of each node that may take part in it besides the owner."""

    number: int
    pids: dict[str, int]


class Seated(Message, frozen=True, kw_only=True):
    """Who has a rank in a generation."""

    node: str
    hostname: str
    pid: int


class Refused(Message, frozen=True, kw_only=True):
    """Why a process is not taken in."""

    pid: int
    reason: str


class Go(Message, frozen=True, kw_only=True):
    """The owner is done with what it did between two steps."""


class Snapshot(Message, frozen=True, kw_only=True):
    """The state after a step, its loss and how many samples each rank computed on in it."""

    files: dict[str, bytes]
    loss: float | None
    counts: tuple[int, ...]


class ShareView(msgspec.Struct, frozen=True, kw_only=True):
    """A run after `step` of `steps`, which took `spent_s`; `others` are the other good train nodes."""

    is_shared: bool
    others: int
    step: int
    steps: int
    spent_s: float
    distribute_from_s: float


def how_many_ranks(view: ShareView) -> tuple[int, str]:
    """Return how many nodes the run is worth, its owner included, and why."""
    if not view.is_shared:
        return 1, "one node: the algorithm's steps cannot be shared"
    if not view.others:
        return 1, "one node: no other train node is good"
    if view.steps - view.step < 2:
        return 1, "one node: there is no second step to share"
    if not view.distribute_from_s:
        return 1 + view.others, "all train nodes: train.distribute_from_s is 0"
    if view.step < _LEAST_STEPS:
        return 1, "one node: how long a step takes is not known yet"
    left_s = (view.steps - view.step) * view.spent_s / view.step
    if left_s < view.distribute_from_s:
        return 1, f"one node: {left_s:.1f} s of steps are left, sharing pays from {view.distribute_from_s:g} s"
    return 1 + view.others, f"all train nodes: {left_s:.1f} s of steps are left"


def who_waits(
    ready: Mapping[str, Ready], members: Mapping[str, int], generation: int, losses: Mapping[str, int]
) -> dict[str, Ready]:
    """Return those of `ready` that wait for a generation after `generation`, whose ranks are the processes `members`.

    A member waits once it has said so itself; another process of a member's node has taken that one's place. A node that was
    lost three times is left out: taking it in once more would only stop the others again.
    """
    return {
        node: one
        for node, one in ready.items()
        if (one.after >= generation or members.get(node) != one.pid) and losses.get(node, 0) < _MOST_LOSSES
    }


def fingerprint_of(samples: Samples, steps: int, has_start: bool) -> str:
    """Return what must be equal in all ranks: the samples in their order, the number of steps and where the weights start."""
    digest = hashlib.sha256(repr((steps, has_start, samples.train.x.shape, str(samples.train.x.dtype))).encode())
    for row in samples.train.rows:
        digest.update(f"{row.item_id}\0{row.revision}\0".encode())
    y = samples.train.y
    for array in (y,) if isinstance(y, np.ndarray) else (column for one in y for column in one):
        digest.update(array.tobytes())
    return digest.hexdigest()
