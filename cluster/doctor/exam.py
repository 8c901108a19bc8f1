"""What doctor has seen of a cluster, as frozen values, and what a finding is.

Owns the values between looking and judging. Must never look at anything itself. Called by the other modules of this package.
"""

from __future__ import annotations

import enum

import msgspec

from labelloop.messages import NodesReply, NodeStatus, ProbeReply


class Severity(enum.Enum):
    """ERROR: something does not work or will be lost; WARNING: it works and should not stay so; NOTE: good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong. `node` '' = the cluster as a whole."""

    severity: Severity
    check: str
    node: str = ""
    what: str
    why: str
    way_out: str


class NodeExam(msgspec.Struct, frozen=True, kw_only=True):
    """One node. `status` is what its manager answered, or its last heartbeat when it did not; `later` a second look, for queues.

    `trouble` '' = the manager answered, else the error's code and sentence. `offset_s` is its clock minus ours, give or take half
    of `rtt_s`. `silent_s`: seconds since its last heartbeat. `is_alive`: as the registry says, True where there is none.
    """

    hostname: str
    ip: str
    port: int
    status: NodeStatus | None = None
    later: NodeStatus | None = None
    is_alive: bool = True
    is_draining: bool = False
    silent_s: float = 0.0
    trouble: str = ""
    offset_s: float = 0.0
    rtt_s: float = 0.0
    probe: ProbeReply | None = None
    probe_trouble: str = ""

    @property
    def is_answering(self) -> bool:
        """Whether the manager answered."""
        return not self.trouble

    @property
    def address(self) -> str:
        """Return 'host:port' of the manager."""
        return address_of(self.ip, self.port)


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """One address that must be reachable, and from whom: host names, '' = from where doctor runs."""

    address: str
    what: str
    hostname: str
    sources: tuple[str, ...]


class Race(msgspec.Struct, frozen=True, kw_only=True):
    """How two nodes raced for names in the datastore; `wins` by way ('mkdir', 'O_EXCL') the numbers that each of them won."""

    contestants: tuple[str, ...]
    rounds: int
    trouble: str = ""
    wins: dict[str, tuple[tuple[int, ...], ...]] = {}


class Exam(msgspec.Struct, frozen=True, kw_only=True):
    """All that was seen. `now_s` is our Unix time; `registry_trouble` '' = it answered.

    `seen_from` 'registry' = its list of nodes, 'node' = the state of the local one. `ports` were tried; `own_ports` is the outcome
    from here, that from a node lies in its probe. `tokens` are (kind, seconds left) where the registry's folder is at hand, else
    None; `identity_end_s` is when our own certificate ends, 0 = not known.
    """

    now_s: float
    seen_from: str = "registry"
    registry: str = ""
    registry_trouble: str = ""
    cluster: NodesReply | None = None
    warnings: tuple[str, ...] = ()
    nodes: tuple[NodeExam, ...] = ()
    ports: tuple[Port, ...] = ()
    own_ports: dict[str, str] = {}
    races: tuple[Race, ...] = ()
    tokens: tuple[tuple[str, float], ...] | None = None
    identity_end_s: float = 0.0

    def with_role(self, role: str) -> tuple[NodeExam, ...]:
        """Return the answering nodes that hold `role`."""
        return tuple(node for node in self.nodes if node.status is not None and node.is_answering and node.status.role == role)


def address_of(ip: str, port: int) -> str:
    """Return 'host:port', an IPv6 address in brackets."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
