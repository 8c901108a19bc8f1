"""Who heartbeats: the nodes as the registry sees them.

Owns the last status of each node and when it came, by the registry's own monotonic clock. Must never decide anything nor call
a node. Called by `cluster.registry`. Thread-safe.
"""

from __future__ import annotations

import threading

import msgspec

from cluster.election import ip_order
from cluster.reconcile import NodeSeen
from labelloop.errors import ConflictError, ForbiddenError
from labelloop.messages import InitialReply, MachineInfo, NodeStatus, NodeView, Role, Topology
from labelloop.tls import Peer

FORGET_AFTER_S = 600.0


class _Seen(msgspec.Struct, frozen=True):
    status: NodeStatus
    key: str
    at_s: float
    has_reported: bool = True  # since it took its last order: what it says of its broker is of after it


class Census:
    """The nodes heard of since the registry started."""

    def __init__(self, dead_after_s: float) -> None:
        self._dead_after_s = dead_after_s
        self._lock = threading.Lock()
        self._seen: dict[str, _Seen] = {}

    def note(self, status: NodeStatus, peer: Peer, now_s: float) -> bool:
        """Take in a heartbeat; return whether it says anything that a decision may rest on and that was not known.

        Raises ForbiddenError when the certificate is another node's, ConflictError when its name lives under another key.
        """
        check_speaker(status, peer)
        with self._lock:
            before = self._seen.get(status.hostname)
            if before is not None and before.key not in ("", peer.key) and now_s - before.at_s < self._dead_after_s:
                raise ConflictError(f"{status.hostname} still heartbeats under another key: stop one of the two")
            self._seen[status.hostname] = _Seen(status, peer.key, now_s)
        return before is None or now_s - before.at_s >= self._dead_after_s or _essence(before.status) != _essence(status)

    def note_look(self, status: NodeStatus, now_s: float) -> None:
        """Take in what a node answered to the registry itself: for a moment it counts as alive without a heartbeat."""
        with self._lock:
            self._seen[status.hostname] = _Seen(status, "", now_s)

    def drop(self, hostname: str) -> None:
        """Forget a node that was removed."""
        with self._lock:
            self._seen.pop(hostname, None)

    def note_order(self, hostname: str, role: Role, reply: InitialReply) -> None:
        """Take in that a node applied an order, without waiting for the heartbeat that will say so."""
        with self._lock:
            before = self._seen.get(hostname)
            if before is None or reply.epoch < before.status.epoch:
                return
            master = reply.master_train if role == "train" else reply.master_inference
            status = msgspec.structs.replace(
                before.status, role=role, epoch=reply.epoch, rpc=reply.rpc, is_master=master == before.status.ip
            )
            self._seen[hostname] = msgspec.structs.replace(before, status=status, has_reported=False)

    def has_reported(self, hostname: str) -> bool:
        """Return whether a node has been heard since it took its last order."""
        with self._lock:
            seen = self._seen.get(hostname)
            return seen is not None and seen.has_reported

    def note_release(self, hostname: str) -> None:
        """Take in that a node gave its role back."""
        with self._lock:
            before = self._seen.get(hostname)
            if before is not None:
                status = msgspec.structs.replace(before.status, role="", rpc="", is_master=False)
                self._seen[hostname] = msgspec.structs.replace(before, status=status)

    def is_taken(self, name: str, address: str, key: str, now_s: float) -> bool:
        """Return whether a living node holds `name` or `address` ('' = any) under another key than `key`."""
        with self._lock:
            return any(
                seen.key != key
                and now_s - seen.at_s < self._dead_after_s
                and (seen.status.hostname == name or (address != "" and seen.status.ip == address))
                for seen in self._seen.values()
            )

    def nodes(self, now_s: float) -> tuple[NodeView, ...]:
        """Return all nodes, lowest IP first."""
        with self._lock:
            seen = list(self._seen.values())
        views = [
            NodeView(status=s.status, age_s=now_s - s.at_s, is_alive=now_s - s.at_s < self._dead_after_s)
            for s in sorted(seen, key=lambda s: ip_order(s.status.ip))
        ]
        return tuple(views)

    def seen(self, now_s: float) -> tuple[NodeSeen, ...]:
        """Return what decisions need of each node."""
        return tuple(
            NodeSeen(
                hostname=v.status.hostname,
                ip=v.status.ip,
                port=v.status.port,
                age_s=v.age_s,
                role=v.status.role,
                epoch=v.status.epoch,
                work=work_of(v.status),
                broker=v.status.broker,
            )
            for v in self.nodes(now_s)
        )

    def all(self) -> tuple[MachineInfo, ...]:
        """Return every node as a machine, the silent ones too."""
        with self._lock:
            return tuple(machine_of(seen.status) for seen in self._seen.values())

    def alive(self, now_s: float) -> tuple[MachineInfo, ...]:
        """Return the living nodes as machines, lowest IP first."""
        return tuple(machine_of(v.status) for v in self.nodes(now_s) if v.is_alive)

    def forget_strangers(self, wanted: frozenset[str], now_s: float) -> None:
        """Drop nodes that nobody wants and that have been silent for long."""
        with self._lock:
            for name in [n for n, s in self._seen.items() if n not in wanted and now_s - s.at_s > FORGET_AFTER_S]:
                del self._seen[name]


def check_speaker(status: NodeStatus, peer: Peer) -> None:
    """Raise ForbiddenError when a heartbeat comes under another node's certificate."""
    if (peer.name, peer.address) != (status.hostname, status.ip):
        raise ForbiddenError(
            f"the certificate is of {peer.name} at {peer.address}, "
            f"the heartbeat of {status.hostname!r} at {status.ip!r}: enrol anew"
        )


def work_of(status: NodeStatus) -> str:
    """Return what the processes of a node say they are at, '' = nothing."""
    return "; ".join(f"{process.name}: {process.activity}" for process in status.processes if process.activity)


def machine_of(status: NodeStatus) -> MachineInfo:
    """Return a node as an entry of machines_info."""
    return MachineInfo(hostname=status.hostname, ip=status.ip, port=status.port, erlang_hash=status.erlang_hash, type=status.role)


def topology_of(nodes: tuple[NodeView, ...], epoch: int) -> Topology:
    """Return where to call, from what living nodes say of themselves; pure.

    A draining inference node gets no more calls; a draining train master does until another one is master.
    """
    alive = [node.status for node in nodes if node.is_alive]
    called = [node.status for node in nodes if node.is_alive and not node.is_draining]
    masters = [s for s in alive if s.role == "train" and s.is_master and s.rpc]
    train = max(masters, key=lambda s: s.epoch).rpc if masters else ""
    inference = tuple(s.rpc for s in called if s.role == "inference" and s.rpc)
    warnings = [f"{n.status.hostname} silent for {n.age_s:.0f} s" for n in nodes if not n.is_alive and n.status.role]
    if not train:
        warnings.append("no train master online: labels wait, nothing is trained")
    if not inference:
        warnings.append("no inference node online: no drafts")
    return Topology(epoch=epoch, train_rpc=train, inference_rpc=inference, warnings=tuple(warnings))


def _essence(status: NodeStatus) -> tuple[str, int, str, str, int]:
    return (status.ip, status.port, status.role, status.rpc, status.epoch)
