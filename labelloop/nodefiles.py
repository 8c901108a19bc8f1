"""What a manager and the role processes of its node tell each other through small files of the node's state folder.

Owns `machines.json` (the good machines of the last order, for roles that follow the membership without a restart) and
`activity/<process>` (what a role process is at, for status). Must never be used between two nodes. Called by cluster and roles.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from labelloop.decoding import decode_json
from labelloop.messages import MachineInfo
from labelloop.tls import write_file

_MACHINES = "machines.json"
_ACTIVITY = "activity"
MOST_ACTIVITY = 200


class Machines(msgspec.Struct, frozen=True, kw_only=True):
    """The good machines, and the epoch of the order that named them.

    `is_alone`: this node came back as train master and nobody has answered yet that no other took over meanwhile; until then it
    takes labels in, and neither starts a training nor publishes.
    """

    epoch: int = 0
    good: tuple[MachineInfo, ...] = ()
    is_alone: bool = False

    def of(self, role: str) -> tuple[MachineInfo, ...]:
        """Return the machines of one role."""
        return tuple(machine for machine in self.good if machine.type == role)


ALONE = "blocked: this master is alone after a restart and does not know whether another took over"


def write_machines(state: Path, machines: Machines) -> None:
    """Put the machines into the state folder, complete or not at all."""
    write_file(state / _MACHINES, msgspec.json.encode(machines), 0o600)


def read_machines(state: Path) -> Machines:
    """Return the machines of the last order; none while there was no order."""
    try:
        return decode_json(Machines, (state / _MACHINES).read_bytes())
    except FileNotFoundError:
        return Machines()


def why_alone(state: Path) -> str:
    """Return why this node's master may neither train nor publish now; '' = it may."""
    return ALONE if read_machines(state).is_alone else ""


def say_activity(state: Path, process: str, text: str) -> None:
    """Tell what `process` is at, in at most 200 characters; '' = nothing."""
    folder = state / _ACTIVITY
    folder.mkdir(mode=0o700, exist_ok=True)
    if text:
        write_file(folder / process, text[:MOST_ACTIVITY].encode(), 0o600)
        return
    with contextlib.suppress(FileNotFoundError):
        (folder / process).unlink()


def read_activity(state: Path, process: str) -> str:
    """Return what `process` last said; '' when nothing."""
    try:
        return (state / _ACTIVITY / process).read_text()
    except FileNotFoundError:
        return ""
