"""What `labelloop node` was told, kept for the guard, for a reboot and for a second start.

Owns `node.json` of a node's state folder (0600: a mount command may hold a password). Must never hold a token. Called by
`cluster.node` and `cluster.guard`.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from cluster.state import Ports, read_state, write_state

LOCK_FD = 199  # the lock of the state folder, held from `labelloop node` on by the process it becomes
_FILE = "node.json"


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One node as it was started; `pid` is its guard's."""

    name: str
    ip: str
    registry: str
    datastore: str
    mount: str = ""
    broker: str = "rabbitmq"
    is_one_machine: bool = False
    settings_file: str = ""
    token_file: str = ""
    has_to_rejoin: bool = False
    pid: int = 0


def write_record(state: Path, record: NodeRecord) -> None:
    """Keep the record."""
    write_state(state / _FILE, record)


def read_record(state: Path) -> NodeRecord | None:
    """Return the record of the last start; None when there was none."""
    return read_state(state / _FILE, NodeRecord)


def log_file(state: Path) -> Path:
    """Return where a detached node logs."""
    return state / "logs" / "node.log"


def manager_port(state: Path) -> int:
    """Return the port that the node's manager chose; 0 before its first start."""
    ports = read_state(state / "ports.json", Ports)
    return ports.by_name.get("manager", 0) if ports else 0
