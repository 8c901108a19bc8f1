"""The registry's service: who is in the cluster, what ops want of it, where to call.

Owns the methods; `cluster.steward` makes it so. Must never touch a role process: managers do, when ordered, and they go on without
a registry. Built by `labelloop registry`.

Locks: what is wanted changes under the steward's lock only; it is never held over a call to a node.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from cluster.authority import Authority
from cluster.census import Census, check_speaker, machine_of, topology_of
from cluster.election import choose_roles, ip_order
from cluster.journal import Journal
from cluster.orders import Orders
from cluster.reconcile import Action
from cluster.steward import Steward
from cluster.wanted import Wanted, WantedFile
from labelloop import messages as m
from labelloop.errors import ForbiddenError, InvalidInputError, LabelloopError, NotFoundError, NotReadyError
from labelloop.ids import parse_node
from labelloop.revocation import write_revoked
from labelloop.settings import Settings
from labelloop.tls import Peer

logger = logging.getLogger(__name__)


class Registry:
    """The service 'registry'. `first_roles` are wanted where nothing ever was: a cluster may form without a person.

    `identity_folder` is where this registry's own server looks for revoked certificates.
    """

    def __init__(
        self,
        folder: Path,
        authority: Authority,
        orders: Orders,
        settings: Settings,
        first_roles: Mapping[str, m.Role] = MappingProxyType({}),
        clock: Callable[[], float] = time.monotonic,
        identity_folder: Path | None = None,
    ) -> None:
        self._authority = authority
        self._orders = orders
        self._clock = clock
        self._identity_folder = identity_folder
        self._started_s = clock()
        self._census = Census(settings.cluster.dead_after_s)
        self.journal = Journal(folder)
        file = WantedFile(folder)
        if first_roles and not file.value.roles and not file.value.epoch:
            file.change(roles=dict(first_roles))
        self._steward = Steward(file, self._census, orders, self.journal, settings.cluster, clock)
        self._tell_revoked()

    def handlers(self) -> Mapping[str, Callable[..., m.Message]]:
        """Return the method table for `wire.Server`."""
        return {
            "admit": self.admit,
            "renew": self.renew,
            "heartbeat": self.heartbeat,
            "nodes": lambda request, peer: self.nodes(),
            "topology": lambda request, peer: self.topology(),
            "form": self.form,
            "assign": self.assign,
            "add": self.add,
            "drain": self.drain,
            "remove": self.remove,
            "revoke": self.revoke,
            "actions": lambda request, peer: m.ActionsReply(actions=self.journal.actions()),
            "open_task": self.open_task,
        }

    def start(self) -> None:
        """Start the reconcile loop."""
        wanted = self._steward.wanted
        self.journal.note("start", f"the registry has started, at epoch {wanted.epoch}, with roles for {len(wanted.roles)} nodes")
        self._steward.start()

    def stop(self) -> None:
        """End the loop; no node is disturbed."""
        self._steward.stop()

    @property
    def counts(self) -> dict[str, int]:
        """Return how many orders, failures and refusals there were since the start, for metrics."""
        return dict(self.journal.counts)

    # ------------------------------------------------------------ who may come in

    def admit(self, request: m.AdmitRequest, peer: Peer) -> m.AdmitReply:
        """Sign a certificate under a join token, unless a living node holds the name or address under another key."""
        now_s = self._clock()
        try:
            if request.kind == "node" and request.name in self._steward.wanted.removed:
                raise ForbiddenError(f"node {request.name} was removed: `labelloop add {request.name}` lets it in again")
            reply = self._authority.admit(request, lambda name, address, key: self._census.is_taken(name, address, key, now_s))
        except LabelloopError as exc:
            self.journal.note_refusal(f"{peer.address} as {request.kind} {request.name!r} at {request.address!r}: {exc}")
            raise
        self.journal.note("admit", f"{request.kind} {request.name} at {request.address}")
        return reply

    def renew(self, request: m.AdmitRequest, peer: Peer) -> m.AdmitReply:
        """Sign a fresh certificate for the caller's own key and name."""
        return self._authority.renew(request, peer)

    def heartbeat(self, request: m.Heartbeat, peer: Peer) -> m.HeartbeatReply:
        """Take in what a manager says of its node. A removed node hears that it was, and is told to leave."""
        status = request.status
        try:
            check_speaker(status, peer)
            with self._steward.lock:
                if status.hostname in self._steward.wanted.removed:
                    self._steward.chores.note_removed(machine_of(status), self._clock())
                    raise ForbiddenError(f"{status.hostname} was removed: `labelloop add {status.hostname}` lets it in again")
            is_news = self._census.note(status, peer, self._clock())
        except LabelloopError as exc:
            self.journal.note_refusal(f"heartbeat of {peer.name} from {peer.address}: {exc}")
            raise
        if is_news:
            self._steward.wake()
        return m.HeartbeatReply(
            epoch=self._steward.wanted.epoch, cluster_id=self._authority.cluster_id, revoked=self._revoked_serials
        )

    def revoke(self, request: m.NodeRequest, peer: Peer) -> m.Empty:
        """Make every certificate of a name worthless, here at once and on each node with its next heartbeat."""
        _refuse_undone(request, "revoke", "it enrols anew with a join token and a new key")
        serials = self._authority.ledger.revoke(request.hostname)
        self._tell_revoked()
        self.journal.note("revoke", f"{len(serials)} certificate(s) of {request.hostname}, by {peer.name}")
        return m.Empty()

    def _tell_revoked(self) -> None:
        self._revoked_serials = tuple(issued.serial for issued in self._authority.ledger.revoked())
        if self._identity_folder is not None:
            write_revoked(self._identity_folder, self._revoked_serials)

    # ------------------------------------------------------------ looking

    def nodes(self) -> m.NodesReply:
        """Return all nodes, those that were never heard of since the start included, and the last decision's reason."""
        with self._steward.lock:
            action, reason = self._steward.decided
            wanted = self._steward.wanted
        seen = tuple(_with_drain(node, wanted) for node in self._census.nodes(self._clock()))
        return m.NodesReply(
            nodes=tuple(sorted((*seen, *self._unheard(wanted, seen)), key=lambda node: ip_order(node.status.ip))),
            epoch=wanted.epoch,
            cluster_id=self._authority.cluster_id,
            state="learning" if action is Action.LEARN else "running",
            last_reason=reason,
        )

    def _unheard(self, wanted: Wanted, seen: tuple[m.NodeView, ...]) -> list[m.NodeView]:
        heard = {node.status.hostname for node in seen}
        return [
            m.NodeView(
                status=m.NodeStatus(
                    hostname=machine.hostname,
                    ip=machine.ip,
                    port=machine.port,
                    role=machine.type,
                    last_reason="not heard of since the registry started",
                ),
                age_s=self._clock() - self._started_s,
                is_alive=False,
                is_draining=machine.hostname in wanted.draining,
            )
            for machine in wanted.machines.values()
            if machine.hostname not in heard
        ]

    def topology(self) -> m.Topology:
        """Return where to call."""
        reply = self.nodes()
        return topology_of(reply.nodes, reply.epoch)

    # ------------------------------------------------------------ what ops want

    def form(self, request: m.FormRequest, peer: Peer) -> m.NodesReply:
        """Change which nodes train and which infer, and return once they do. It also confirms a learning registry.

        Raises InvalidInputError (too few machines), NotFoundError (a name never heard of), NotReadyError when the order failed or
        takes too long; the loop goes on trying.
        """
        with self._steward.lock:
            self._steward.confirm()
            roles = self._chosen_roles(request)
            self.journal.note("form", f"{_words(roles)}, by {peer.name}")
            self._steward.settle(self._steward.change(roles=roles))
        return self.nodes()

    def assign(self, request: m.AssignRequest, peer: Peer) -> m.NodesReply:
        """Change the roles of the named nodes alone, '' = none, and return once they hold them. Raises as `form`."""
        with self._steward.lock:
            self._steward.must_be_confirmed()
            self._must_be_known(request.roles)
            roles = dict(self._steward.wanted.roles)
            for name, role in request.roles.items():
                roles.pop(name, None)
                if role:
                    roles[name] = role
            self.journal.note("assign", f"{_words(request.roles)}, by {peer.name}")
            self._steward.settle(self._steward.change(roles=roles))
        return self.nodes()

    def drain(self, request: m.NodeRequest, peer: Peer) -> m.NodesReply:
        """Have a node finish its work and take no more, or work again; returns at once. Raises NotFoundError."""
        name = request.hostname
        with self._steward.lock:
            self._steward.must_be_confirmed()
            self._must_be_known([name])
            draining = [known for known in self._steward.wanted.draining if known != name]
            if not request.is_undone:
                draining.append(name)
            self.journal.note("drain", f"{name}{' works again' if request.is_undone else ''}, by {peer.name}")
            self._steward.change(draining=tuple(draining))
        return self.nodes()

    def remove(self, request: m.NodeRequest, peer: Peer) -> m.NodesReply:
        """Take a node out for good and return once the rest is formed without it: it is told to leave, and refused until `add`.

        Raises NotFoundError; NotReadyError when the rest takes too long, which changes nothing about the removal.
        """
        _refuse_undone(request, "remove", f"`labelloop add {request.hostname}`")
        name = request.hostname
        with self._steward.lock:
            self._steward.must_be_confirmed()
            wanted = self._steward.wanted
            if name in wanted.removed:
                return self.nodes()
            self._must_be_known([name])
            machine = self._machine(name)
            revision = self._steward.change(
                removed={**wanted.removed, name: machine},
                roles={known: role for known, role in wanted.roles.items() if known != name},
                machines={known: place for known, place in wanted.machines.items() if known != name},
                draining=tuple(known for known in wanted.draining if known != name),
                # a dead one too was in the last order: one that does not name it has the brokers forget it at once
                ordered=(*(known for known in wanted.ordered if known.hostname != name), *([machine] if machine.type else [])),
            )
            if any(node.status.hostname == name and node.is_alive for node in self._census.nodes(self._clock())):
                self._steward.chores.note_removed(machine, self._clock())
            self._census.drop(name)
            self.journal.note("remove", f"{name} ({machine.type or 'no role'} at {machine.ip}), by {peer.name}")
            self._steward.settle(revision, lambda: not self._steward.chores.is_there(name, self._clock()))
        return self.nodes()

    def add(self, request: m.NodeRequest, peer: Peer) -> m.NodesReply:
        """Let a removed node in again, in the role it had; a manager that still runs there is taken back at once.

        Raises NotFoundError for a name that was neither removed nor registered: it is added by booting it.
        """
        _refuse_undone(request, "add", f"`labelloop remove {request.hostname}`")
        name = request.hostname
        with self._steward.lock:
            self._steward.must_be_confirmed()
            wanted = self._steward.wanted
            machine = wanted.removed.get(name)
            if machine is None:
                self._must_be_known([name])
                return self.nodes()
            self._steward.chores.cancel(name)
            role: dict[str, m.Role] = {name: machine.type} if machine.type else {}
            self._steward.change(
                removed={known: place for known, place in wanted.removed.items() if known != name},
                roles={**wanted.roles, **role},
                machines={**wanted.machines, **({name: machine} if role else {})},
            )
            self.journal.note("add", f"{name} as {machine.type or 'a node without a role'}, by {peer.name}")
        self._take_back(machine)
        return self.nodes()

    def _take_back(self, machine: m.MachineInfo) -> None:
        try:
            status = self._orders.look(machine)
        except LabelloopError as exc:
            logger.info("%s is not there yet: %s", machine.hostname, exc)
            return
        if status.hostname == machine.hostname:
            self._census.note_look(status, self._clock())
            self._steward.wake()

    def open_task(self, request: m.OpenTaskRequest, peer: Peer) -> m.OpenTaskReply:
        """Open a task, or change its settings, through a living node. Raises NotReadyError without one, or what the node says."""
        nodes = [n.status for n in self._census.nodes(self._clock()) if n.is_alive and n.status.role]
        if not nodes:
            raise NotReadyError("no node of the cluster is online: start managers and `labelloop form` first")
        nodes.sort(key=lambda s: (not (s.role == "train" and s.is_master), ip_order(s.ip)))
        reply = self._orders.open_task(machine_of(nodes[0]), request)
        with self._steward.lock:
            tasks = self._steward.wanted.tasks
            if tasks.get(reply.task) != reply.revision:
                self.journal.note("open-task", f"{reply.task} at revision {reply.revision}, by {peer.name}")
                self._steward.change(tasks={**tasks, reply.task: reply.revision})
        return msgspec.structs.replace(reply, warnings=(*reply.warnings, *self.topology().warnings))

    # ------------------------------------------------------------ under the lock

    def _machine(self, name: str) -> m.MachineInfo:
        wanted = self._steward.wanted
        seen = next((machine for machine in self._census.all() if machine.hostname == name), None)
        machine = seen or wanted.machines[name]
        return msgspec.structs.replace(machine, type=wanted.roles.get(name, ""))

    def _must_be_known(self, names: Mapping[str, object] | list[str]) -> None:
        known = {machine.hostname for machine in self._census.all()} | set(self._steward.wanted.machines)
        for name in names:
            parse_node(name)
            if name in self._steward.wanted.removed:
                raise ForbiddenError(f"node {name} was removed: `labelloop add {name}` lets it in again")
            if name not in known:
                raise NotFoundError(f"no node {name!r} has registered; there are: {', '.join(sorted(known)) or 'none'}")

    def _chosen_roles(self, request: m.FormRequest) -> dict[str, m.Role]:
        wanted = self._steward.wanted
        if request.roles and (request.train or request.inference):
            raise InvalidInputError("say how many nodes train and infer, or which, but not both")
        if request.roles:
            self._must_be_known(request.roles)
            return dict(request.roles)
        if not request.train and not request.inference and wanted.roles:
            return wanted.roles
        views = [v for v in self._census.nodes(self._clock()) if v.is_alive and v.status.hostname not in wanted.draining]
        gpus = frozenset(v.status.hostname for v in views if v.status.gpus)
        return choose_roles(wanted.roles, [machine_of(v.status) for v in views], request.train, request.inference, gpus)


def _refuse_undone(request: m.NodeRequest, what: str, way_out: str) -> None:
    if request.is_undone:
        raise InvalidInputError(f"{what} cannot be undone as such: {way_out}")


def _words(roles: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {role or 'no role'}" for name, role in sorted(roles.items())) or "none"


def _with_drain(node: m.NodeView, wanted: Wanted) -> m.NodeView:
    """Return the view with how far its draining is; what a heartbeat of an earlier order says of its processes proves nothing."""
    name, status = node.status.hostname, node.status
    is_stopped = not node.is_alive or (status.epoch == wanted.epoch and not status.processes)
    return msgspec.structs.replace(
        node, is_draining=name in wanted.draining, is_drained=name in wanted.ordered_drained and is_stopped
    )
