"""What the registry wants, on disk: it survives the registry, and absence in it is never a command.

Owns the file and its shape. Must never be changed but by ops (form, assign, drain, remove, add), by an opened task and by a given
order. Called by `cluster.registry` and `cluster.steward`.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from cluster.state import read_state, write_state
from labelloop.messages import MachineInfo, Role

FILE = "wanted.json"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The wanted state.

    `machines`: where each node was last known, dead ones included; `ordered`: the machines that were alive when `epoch` was
    ordered; `ordered_drained` and `survivors`: what else that order said; `tasks`: task → revision as opened through this registry.
    `draining`: nodes that shall get no new work; `removed`: nodes that were taken out by name, with the role they had, refused
    until `add`.
    """

    epoch: int = 0
    roles: dict[str, Role] = {}
    machines: dict[str, MachineInfo] = {}
    ordered: tuple[MachineInfo, ...] = ()
    ordered_drained: tuple[str, ...] = ()
    survivors: tuple[str, ...] = ()
    tasks: dict[str, int] = {}
    draining: tuple[str, ...] = ()
    removed: dict[str, MachineInfo] = {}


class WantedFile:
    """Reads once, then writes before it answers; used under the steward's lock."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self.value = read_state(self._path, Wanted) or Wanted()

    def change(self, **fields: object) -> Wanted:
        """Replace fields of the wanted state, on disk first; an equal one is not written again."""
        changed = msgspec.structs.replace(self.value, **fields)
        if changed != self.value:
            write_state(self._path, changed)
            self.value = changed
        return changed
