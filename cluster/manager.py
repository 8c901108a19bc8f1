"""The manager of one node: takes orders, keeps its last one on disk, and makes this machine be what it says.

Owns the node's state folder (assignment, ports, role configurations, logs) and its supervisor. Must never decide who does what
(the registry does) and never write a hosts file other than the one it was given. Built by manager_rpc.py.

Locks: `_ordering` is held while an order is applied, so there is one at a time; `_lock` guards what `status` reads and is never
held over a call or a wait. `status` is therefore answered while an order is in flight, which is what the pings of other nodes need.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from cluster.broker import Broker, BrokerUrls
from cluster.broker.table import queue_table
from cluster.facts import read_facts
from cluster.hostsfile import write_hosts
from cluster.initial import Assignment, answer, assign, check_epoch, check_order, why_not_ours
from cluster.member import Circle, Member
from cluster.neighbours import Neighbours
from cluster.opening import open_task
from cluster.ordering import Ordering
from cluster.peers import ManagerPeers
from cluster.probe import Surroundings, look_around
from cluster.reachability import Ping, split_machines, wait_for_rpc
from cluster.rolefiles import MasterLink, NodeOptions, RoleFiles
from cluster.roles import has_rpc, sweep_leftovers
from cluster.rootwatch import RootWatch
from cluster.state import read_state, write_state
from cluster.supervisor import Supervisor
from cluster.taskcheck import check_spec
from datastore_layout.root import Root, open_root
from labelloop import messages as m
from labelloop.errors import InvalidInputError, LabelloopError, NotFoundError, NotReadyError
from labelloop.nodefiles import Machines, read_activity, write_machines
from labelloop.revocation import write_revoked
from labelloop.settings import Settings
from labelloop.tls import Identity, Peer

logger = logging.getLogger(__name__)

_RPC_WAIT_S = 20.0
_LINK_EVERY_S = 5.0


class Manager:
    """The service 'manager'; whoever sets `on_change` is called when there is news for the registry."""

    def __init__(self, options: NodeOptions, settings: Settings, identity: Identity, broker: Broker, ping: Ping) -> None:
        self._options = options
        self._settings = settings
        self._identity = identity
        self._broker = broker
        self._ping = ping
        peers = ManagerPeers(identity, settings.wire, ping)
        self._link = MasterLink(options, peers)
        self._files = RoleFiles(options, settings, identity, self._link)
        self._member = Member(options.name, broker, peers, self._hash, settings.cluster.forget_after_s, 2 * settings.broker.tick_s)
        self._ordering = Ordering(options.name)
        self._member.is_overtaken = self._link.is_overtaken = self._ordering.is_overtaken
        self._neighbours = Neighbours(options.name, broker, self._member, self._moment)
        self._watch = RootWatch(options.datastore, options.cluster_id)
        self.on_change: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._assignment = read_state(self._assignment_file, Assignment) or Assignment()
        self._rpc = ""
        self._urls: BrokerUrls | None = None
        self._config: m.RoleConfig | None = None
        self._is_alone = False
        self._was_ordered = False  # since this process began: a master that was knows that it is the master
        self._link_at_s = 0.0
        self._last_reason = "just started"
        sweep_leftovers(options.state)
        self._supervisor = Supervisor((), settings.cluster)
        self._supervisor.start()

    def handlers(self) -> Mapping[str, Callable[..., m.Message]]:
        """Return the method table for `wire.Server`."""
        options = self._options
        where = Surroundings(
            name=options.name,
            cluster_id=options.cluster_id,
            state=options.state,
            datastore=options.datastore,
            hosts_file=options.hosts_file,
            certificate_file=self._identity.certificate_file,
        )
        return {
            "initial": self.initial,
            "open_task": self.open_task,
            "status": lambda request, peer: self.status(),
            "stop_role": self.stop_role,
            "logs": self.logs,
            "leave": self.leave,
            **self._neighbours.handlers(),
            "probe": lambda request, peer: look_around(request, where),
        }

    def stop(self) -> None:
        """Stop all role processes; the assignment stays on disk."""
        with self._ordering.one():
            self._supervisor.stop()

    # ------------------------------------------------------------ methods

    def initial(self, request: m.InitialRequest, peer: Peer) -> m.InitialReply:
        """Become what the order says, in DESIGN's order; see `cluster.initial` for what it refuses.

        Nothing has changed anywhere when it raises InvalidInputError or StaleEpochError, or NotReadyError for want of a datastore.
        A NotReadyError later, about brokers, leaves the order taken: upkeep goes on with it, and repeating it is harmless.
        """
        order = check_order(request, self._options.name, self._options.ip, self._options.datastore)
        with self._ordering.one(order.epoch):
            check_epoch(order.epoch, self._assignment.epoch)
            good, bad, said = split_machines(order.machines, self._options.name, self._ping)
            root = self._open_root()
            assignment = assign(order, good)
            self._keep(assignment)
            self._is_alone, self._was_ordered = False, True
            warnings = self._apply(assignment, self._settings.cluster.join_timeout_s, request.survivors)
            if order.task is not None:
                open_task(root, order.task, is_revision_given=False)
            warnings += self._wait_rpc(order.me.type)
        reason = f"epoch {order.epoch} from {peer.name}: {assignment.role}{' master' if assignment.is_master else ''}"
        self._say(f"{reason}, {len(good)} good, {len(bad)} bad machines")
        hashes = {name: status.erlang_hash for name, status in said.items()}
        hashes[self._options.name] = self._hash()
        return answer(assignment, bad, self._rpc, hashes, self._options.name, warnings, self._sharing(assignment))

    def open_task(self, request: m.OpenTaskRequest, peer: Peer) -> m.OpenTaskReply:
        """Save a task's settings in the datastore, where every role finds them."""
        check_spec(request.spec)
        spec = open_task(self._open_root(), request.spec, is_revision_given=True)
        logger.info("task %s at revision %d, from %s", spec.task, spec.revision, peer.name)
        return m.OpenTaskReply(task=spec.task, revision=spec.revision)

    def status(self) -> m.NodeStatus:
        """Return what this node is at this moment."""
        facts = read_facts()
        disk_free_bytes, datastore = self._watch.read()
        with self._lock:
            assignment, rpc, reason = self._assignment, self._rpc, self._last_reason
        options = self._options
        return m.NodeStatus(
            hostname=options.name,
            ip=options.ip,
            port=options.port,
            erlang_hash=self._hash(),
            role=assignment.role or "",
            rpc=rpc,
            is_master=assignment.is_master,
            epoch=assignment.epoch,
            cluster_id=options.cluster_id,
            processes=tuple(
                msgspec.structs.replace(view, activity=read_activity(options.state, view.name)) for view in self._supervisor.views()
            ),
            cores=facts.cores,
            memory_bytes=facts.memory_bytes,
            memory_free_bytes=facts.memory_free_bytes,
            load=facts.load,
            gpus=facts.gpus,
            versions=facts.versions,
            broker=self._broker.view(),
            last_reason=reason,
            disk_free_bytes=disk_free_bytes,
            datastore=datastore,
            clock_s=time.time(),
        )

    def stop_role(self, request: m.RoleRequest, peer: Peer) -> m.NodeStatus:
        """Stop this node's role ('' = whichever it has) and forget it; the epoch stays."""
        with self._ordering.one():
            if request.role and request.role != self._assignment.role:
                raise InvalidInputError(f"this node's role is {self._assignment.role or 'none'}, not {request.role!r}")
            was_inference = self._assignment.role == "inference"
            self._keep(Assignment(epoch=self._assignment.epoch, has_left=self._assignment.has_left))
            self._supervisor.update(())
            if was_inference:
                self._member.stand_alone()
        self._say(f"role stopped by {peer.name}")
        return self.status()

    def logs(self, request: m.LogsRequest, peer: Peer) -> m.LogsReply:
        """Return the last lines of one process's log, or of each process's when none is named."""
        if not 1 <= request.lines <= 10_000:
            raise InvalidInputError(f"lines is {request.lines}: use 1 to 10000")
        names = [request.process] if request.process else [view.name for view in self._supervisor.views()]
        if not names:
            raise NotFoundError(f"{self._options.name} has no role and no process")
        texts = [(name, self._supervisor.log_text(name, request.lines)) for name in names]
        return m.LogsReply(text=texts[0][1] if len(texts) == 1 else "\n".join(f"==> {name} <==\n{text}" for name, text in texts))

    def leave(self, request: m.Empty, peer: Peer) -> m.Empty:
        """Take this node out of the cluster: roles stopped, hosts block emptied, no heartbeat until it is started with --rejoin."""
        with self._ordering.one():
            self._keep(Assignment(epoch=self._assignment.epoch, has_left=True))
            self._supervisor.update(())
            self._member.leave()
            write_hosts(self._options.hosts_file, ())
        self._say(f"left the cluster, asked by {peer.name}")
        return m.Empty()

    def _moment(self) -> tuple[Assignment, bool]:
        """Return the assignment, and whether it is applied as far as its queues."""
        with self._lock:
            return self._assignment, self._urls is not None

    def _hash(self) -> str:
        return self._broker.erlang_hash(self._options.cluster_id)

    def _sharing(self, assignment: Assignment) -> frozenset[str]:
        """Return the machines that must share this node's broker."""
        is_one = self._broker.view().kind == "embedded"
        return frozenset(x.hostname for x in assignment.good if is_one or x.type == assignment.role == "inference")

    # ------------------------------------------------------------ what the daemon's loop calls

    @property
    def has_left(self) -> bool:
        """Whether the node was told to leave; it does not heartbeat then."""
        with self._lock:
            return self._assignment.has_left

    def note_trouble(self, exc: LabelloopError) -> None:
        """Let status and log say why this node is not what it should be; repeated trouble is logged once."""
        self._say(f"{exc.code}: {exc}")

    def rejoin(self) -> None:
        """Take back an earlier `leave`."""
        with self._ordering.one():
            self._keep(msgspec.structs.replace(self._assignment, has_left=False))

    def hear(self, reply: m.HeartbeatReply) -> None:
        """Take in what the registry answers to a heartbeat."""
        if write_revoked(self._identity.certificate_file.parent, reply.revoked):
            logger.info("the registry names %d revoked certificates", len(reply.revoked))
        with self._lock:
            is_alone, epoch = self._is_alone, self._assignment.epoch
        if is_alone and reply.epoch == epoch:
            self._end_alone("the registry is")

    def resume(self) -> None:
        """Be again what this node last was, without asking the registry: hosts block, broker, then roles.

        Where peers know a newer epoch, only the broker comes back, which they may wait for; the rest is left to the registry.
        It never waits for an order in progress. Raises NotReadyError while datastore, broker or peers lack.
        """
        if self._urls is not None or not self._ordering.try_begin():
            return
        try:
            assignment = self._assignment
            if self._urls is not None or assignment.has_left:
                return
            if why := why_not_ours(assignment, self._options.name, self._options.ip):
                raise NotReadyError(f"{why}: waiting for the registry's order")
            if assignment.role is None:
                write_hosts(self._options.hosts_file, assignment.hosts or ((self._options.ip, self._options.name),))
                self._member.tend_alone()
                return
            write_hosts(self._options.hosts_file, assignment.hosts)
            try:
                said = self._ask_peers(assignment)
            except NotReadyError:
                if assignment.role == "inference":
                    self._member.wake(self._circle(assignment))
                raise
            if assignment.role == "train" and assignment.is_master and len(assignment.good) > 1 and not self._was_ordered:
                self._is_alone = not any(status.epoch == assignment.epoch for status in said.values())
            self._apply(assignment, timeout_s=0.0)
        finally:
            self._ordering.end()
        self._say(f"resumed epoch {assignment.epoch} as {assignment.role}{', alone' if self._is_alone else ''}")

    def tend(self) -> None:
        """Keep what was applied true: broker and membership, the way to the master's queues, whether this master is alone.

        Raises RetryableError saying what is waited for. It never waits for an order in progress: that one does the same.
        """
        if self._urls is None or not self._ordering.try_begin():
            return
        try:
            assignment = self._assignment
            if assignment.role == "inference":
                self._note(self._member.tend(self._circle(assignment)))
            elif assignment.role == "train":
                self._member.tend_alone()
            if assignment.role is not None and self._is_moved(assignment):
                self._apply(assignment, timeout_s=0.0)
                self._note("the queues moved, roles follow")
            if self._is_alone:
                said = self._ask_peers(assignment)
                found = [name for name, status in said.items() if status.epoch == assignment.epoch]
                if found:
                    self._end_alone(f"{found[0]} is")
        finally:
            self._ordering.end()

    def _ask_peers(self, assignment: Assignment) -> dict[str, m.NodeStatus]:
        """Return what the other good machines say. Raises NotReadyError where one is past our epoch."""
        _, _, said = split_machines(assignment.good, self._options.name, self._ping)
        newer = [name for name, status in said.items() if status.epoch > assignment.epoch]
        if newer:
            raise NotReadyError(
                f"{', '.join(newer)} applied a newer epoch than {assignment.epoch}: waiting for the registry's order"
            )
        return said

    def _end_alone(self, who: str) -> None:
        with self._lock:
            self._is_alone = False
            assignment = self._assignment
        self._write_machines(assignment)
        self._say(f"not alone any more: {who} in epoch {assignment.epoch} too")

    def _is_moved(self, assignment: Assignment) -> bool:
        """Return whether the roles' queues are elsewhere now: our own broker's URL, or the train master's."""
        if self._broker.urls(assignment.role or "inference") != self._urls:
            return True
        if self._config is None or assignment.role != "train" or assignment.is_master or time.monotonic() < self._link_at_s:
            return False
        self._link_at_s = time.monotonic() + _LINK_EVERY_S
        return bool(self._link.newer(assignment, self._config.broker_url))

    def _note(self, done: str) -> None:
        if done:
            self._say(done)

    # ------------------------------------------------------------ applying (under `_ordering`)

    @property
    def _assignment_file(self) -> Path:
        return self._options.state / "assignment.json"

    def _keep(self, assignment: Assignment) -> None:
        """Put the assignment on disk, then take it as ours: a fall from here on resumes the new one."""
        if assignment != self._assignment:
            write_state(self._assignment_file, assignment)
        with self._lock:
            self._assignment = assignment
            self._urls = None  # until it is applied; a master without URLs gives no link and upkeep goes on
            if assignment.role is None:
                self._rpc, self._config, self._is_alone = "", None, False

    def _apply(self, assignment: Assignment, timeout_s: float, survivors: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Make hosts file, broker and processes what `assignment` says; equal ones are left alone. Returns warnings.

        Raises NotReadyError when others were not ready within `timeout_s`.
        """
        if write_hosts(self._options.hosts_file, assignment.hosts):
            self._broker.read_hosts()
        if assignment.role == "inference":
            self._member.settle(self._circle(assignment, survivors), timeout_s)
        else:
            self._member.stand_alone()
        self._open_root()
        self._write_machines(assignment)
        urls, is_drained = self._broker.urls(assignment.role or "inference"), self._options.name in assignment.drained
        running = [view.name for view in self._supervisor.views()]
        config, warning = (None, "") if is_drained else self._files.config(assignment, urls, running, timeout_s)
        n_rpc = config.rpc_processes if config else 1
        self._member.declare(queue_table(assignment, self._options.cluster_id, self._options.name, n_rpc), timeout_s)
        self._supervisor.update(self._files.specs(config) if config else [])
        with self._lock:
            self._urls, self._config = urls, config
            self._rpc = f"{config.rpc_host}:{config.rpc_port}" if config and has_rpc(config) else ""
        return (warning,) if warning else ()

    def _circle(self, assignment: Assignment, survivors: tuple[str, ...] = ()) -> Circle:
        machines = tuple(machine for machine in assignment.good if machine.type == "inference")
        return Circle(epoch=assignment.epoch, machines=machines, listed=assignment.listed, survivors=survivors)

    def _write_machines(self, assignment: Assignment) -> None:
        machines = Machines(epoch=assignment.epoch, good=assignment.working, is_alone=self._is_alone)
        write_machines(self._options.state, machines)

    def _wait_rpc(self, role: str) -> tuple[str, ...]:
        if not self._rpc:
            return ()
        why = wait_for_rpc(self._rpc, role, self._identity, self._settings.wire, _RPC_WAIT_S)
        return (
            (f"{role}_rpc of {self._options.name} does not answer yet ({why}): `labelloop logs {self._options.name}`",)
            if why
            else ()
        )

    def _open_root(self) -> Root:
        return open_root(self._options.datastore, self._options.cluster_id)

    def _say(self, reason: str) -> None:
        with self._lock:
            is_new, self._last_reason = reason != self._last_reason, reason
        if is_new:
            logger.info("%s", reason)
            self.on_change()
