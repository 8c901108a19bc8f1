"""The manager of one node: takes orders, keeps its last one on disk, and makes this machine be what it says.

Owns the node's state folder (assignment, ports, role configurations, logs) and its supervisor. Must never decide who does what
(the registry does) and never write a hosts file other than the one it was given. Built by manager_rpc.py.

Locks: `_order` is held while an order is applied, so there is one at a time; `_lock` guards what `status` reads and is never held
over a call or a wait. `status` is therefore answered while an order is in flight, which is what the pings of other nodes need.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from cluster.broker import Broker, BrokerUrls, QueueSpec
from cluster.broker.table import queue_table
from cluster.facts import inference_processes, read_facts, worker_concurrency
from cluster.hostsfile import write_hosts
from cluster.initial import Assignment, answer, assign, check_epoch, check_order
from cluster.probe import Surroundings, look_around
from cluster.process import ProcessSpec
from cluster.reachability import Ping, split_machines, wait_for_rpc
from cluster.roles import config_file, has_rpc, processes_of, spec_of, sweep_leftovers
from cluster.state import choose_port, claim_port, read_state, write_state
from cluster.supervisor import Supervisor
from cluster.taskcheck import check_spec
from datastore_layout.root import Root, open_root, task_folder
from datastore_layout.tasks import read_spec, save_spec
from labelloop import messages as m
from labelloop.errors import BusyError, InvalidInputError, LabelloopError, NotFoundError, NotReadyError
from labelloop.settings import Settings, environment_of
from labelloop.tls import Identity, Peer

logger = logging.getLogger(__name__)

_ORDER_WAIT_S = 60.0
_RPC_WAIT_S = 20.0
_CHECKOUT = Path(__file__).resolve().parent.parent


class NodeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Who and where this node is. `role_package` holds the start_* scripts."""

    name: str
    ip: str
    port: int
    cluster_id: str
    state: Path
    datastore: Path
    hosts_file: Path
    role_package: str = "scripts"


class Manager:
    """The service 'manager'; whoever sets `on_change` is called when there is news for the registry."""

    def __init__(self, options: NodeOptions, settings: Settings, identity: Identity, broker: Broker, ping: Ping) -> None:
        self._options = options
        self._settings = settings
        self._identity = identity
        self._broker = broker
        self._ping = ping
        self.on_change: Callable[[], None] = lambda: None
        self._order = threading.Lock()
        self._lock = threading.Lock()
        self._assignment = read_state(self._assignment_file, Assignment) or Assignment()
        self._rpc = ""
        self._urls: BrokerUrls | None = None
        self._last_reason = "just started"
        sweep_leftovers(options.state)
        self._supervisor = Supervisor((), settings.cluster)
        self._supervisor.start()

    def handlers(self) -> Mapping[str, Callable[..., m.Message]]:
        """Return the method table for `wire.Server`."""
        return {
            "initial": self.initial,
            "open_task": self.open_task,
            "status": lambda request, peer: self.status(),
            "stop_role": self.stop_role,
            "logs": self.logs,
            "leave": self.leave,
            "probe": lambda request, peer: look_around(request, self._surroundings()),
        }

    def stop(self) -> None:
        """Stop all role processes; the assignment stays on disk."""
        with self._one_order():
            self._supervisor.stop()

    # ------------------------------------------------------------ methods

    def initial(self, request: m.InitialRequest, peer: Peer) -> m.InitialReply:
        """Become what the order says, in DESIGN's order; see `cluster.initial` for what it refuses.

        Nothing has changed when it raises InvalidInputError, StaleEpochError or NotReadyError (no datastore, no broker).
        """
        order = check_order(request, self._options.name, self._options.ip, self._options.datastore)
        with self._one_order():
            check_epoch(order.epoch, self._assignment.epoch)
            good, bad, said = split_machines(order.machines, self._options.name, self._ping)
            root = self._open_root()
            self._broker.start()
            assignment = assign(order, good)
            self._keep(assignment)
            warnings = self._apply(assignment)
            if order.task is not None:
                self._open(root, order.task, is_revision_given=False)
            warnings += self._wait_rpc(order.me.type)
        reason = f"epoch {order.epoch} from {peer.name}: {assignment.role}{' master' if assignment.is_master else ''}"
        self._say(f"{reason}, {len(good)} good, {len(bad)} bad machines")
        hashes = {name: status.erlang_hash for name, status in said.items()}
        hashes[self._options.name] = self._broker.erlang_hash(self._options.cluster_id)
        return answer(assignment, bad, self._rpc, hashes, self._options.name, warnings)

    def open_task(self, request: m.OpenTaskRequest, peer: Peer) -> m.OpenTaskReply:
        """Save a task's settings in the datastore, where every role finds them."""
        check_spec(request.spec)
        spec = self._open(self._open_root(), request.spec, is_revision_given=True)
        logger.info("task %s at revision %d, from %s", spec.task, spec.revision, peer.name)
        return m.OpenTaskReply(task=spec.task, revision=spec.revision)

    def status(self) -> m.NodeStatus:
        """Return what this node is at this moment."""
        facts = read_facts()
        with self._lock:
            assignment, rpc, reason = self._assignment, self._rpc, self._last_reason
        options = self._options
        return m.NodeStatus(
            hostname=options.name,
            ip=options.ip,
            port=options.port,
            erlang_hash=self._broker.erlang_hash(options.cluster_id),
            role=assignment.role or "",
            rpc=rpc,
            is_master=assignment.is_master,
            epoch=assignment.epoch,
            cluster_id=options.cluster_id,
            processes=self._supervisor.views(),
            cores=facts.cores,
            memory_bytes=facts.memory_bytes,
            memory_free_bytes=facts.memory_free_bytes,
            load=facts.load,
            gpus=facts.gpus,
            versions=facts.versions,
            broker=self._broker.view(),
            last_reason=reason,
        )

    def stop_role(self, request: m.RoleRequest, peer: Peer) -> m.NodeStatus:
        """Stop this node's role ('' = whichever it has) and forget it; the epoch stays."""
        with self._one_order():
            if request.role and request.role != self._assignment.role:
                raise InvalidInputError(f"this node's role is {self._assignment.role or 'none'}, not {request.role!r}")
            self._keep(Assignment(epoch=self._assignment.epoch, has_left=self._assignment.has_left))
            self._supervisor.update(())
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
        with self._one_order():
            self._keep(Assignment(epoch=self._assignment.epoch, has_left=True))
            self._supervisor.update(())
            self._broker.leave()
            write_hosts(self._options.hosts_file, ())
        self._say(f"left the cluster, asked by {peer.name}")
        return m.Empty()

    def _surroundings(self) -> Surroundings:
        options = self._options
        return Surroundings(
            name=options.name,
            cluster_id=options.cluster_id,
            state=options.state,
            datastore=options.datastore,
            hosts_file=options.hosts_file,
            certificate_file=self._identity.certificate_file,
        )

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
        with self._one_order():
            self._keep(msgspec.structs.replace(self._assignment, has_left=False))

    def resume(self) -> None:
        """Be again what this node last was, without asking anybody; leave it to the registry where peers know a newer epoch.

        Raises NotReadyError while datastore or broker are missing.
        """
        with self._one_order():
            assignment = self._assignment
            if assignment.role is None or self._urls is not None:
                return
            write_hosts(self._options.hosts_file, assignment.hosts)
            _, _, said = split_machines(assignment.good, self._options.name, self._ping)
            newer = [name for name, status in said.items() if status.epoch > assignment.epoch]
            if newer:
                raise NotReadyError(
                    f"{', '.join(newer)} applied a newer epoch than {assignment.epoch}: waiting for the registry's order"
                )
            self._open_root()
            self._broker.start()
            self._apply(assignment)
        self._say(f"resumed epoch {assignment.epoch} as {assignment.role}")

    def follow_broker(self) -> None:
        """Restart the roles on the broker's new URL when it has moved."""
        if self._urls is None or self._broker.urls() == self._urls:
            return
        with self._one_order():
            if self._assignment.role is not None:
                self._apply(self._assignment)
        self._say("the broker moved, roles follow")

    # ------------------------------------------------------------ applying (under `_order`)

    @property
    def _assignment_file(self) -> Path:
        return self._options.state / "assignment.json"

    @contextlib.contextmanager
    def _one_order(self) -> Iterator[None]:
        if not self._order.acquire(timeout=_ORDER_WAIT_S):
            raise BusyError(f"{self._options.name} has been applying another order for {_ORDER_WAIT_S:.0f} s: try again")
        try:
            yield
        finally:
            self._order.release()

    def _keep(self, assignment: Assignment) -> None:
        """Put the assignment on disk, then take it as ours: a fall from here on resumes the new one."""
        if assignment != self._assignment:
            write_state(self._assignment_file, assignment)
        with self._lock:
            self._assignment = assignment
            if assignment.role is None:
                self._rpc, self._urls = "", None

    def _apply(self, assignment: Assignment) -> tuple[str, ...]:
        """Make hosts file, broker and processes what `assignment` says; equal ones are left alone. Returns warnings."""
        write_hosts(self._options.hosts_file, assignment.hosts)
        urls = self._broker.urls()
        config, warning = self._config(assignment, urls)
        self._broker.ensure_queues(self._queues(assignment, config.rpc_processes))
        is_drained = self._options.name in assignment.drained
        self._supervisor.update([] if is_drained else self._specs(config))
        with self._lock:
            self._urls = urls
            self._rpc = f"{config.rpc_host}:{config.rpc_port}" if has_rpc(config) and not is_drained else ""
        return (warning,) if warning else ()

    def _config(self, assignment: Assignment, urls: BrokerUrls) -> tuple[m.RoleConfig, str]:
        assert assignment.role is not None
        facts, options, cluster = read_facts(), self._options, self._settings.cluster
        processes, why = inference_processes(len(assignment.good), facts, cluster.inference_processes)
        is_capped = assignment.role == "inference" and processes < len(assignment.good)
        if is_capped:
            logger.info("inference_rpc: %d processes: %s", processes, why)
        config = m.RoleConfig(
            node=options.name,
            ip=options.ip,
            role=assignment.role,
            is_master=assignment.is_master,
            master_host=assignment.master_host,
            cluster_id=options.cluster_id,
            epoch=assignment.epoch,
            datastore_root=str(options.datastore),
            broker_url=urls.broker,
            result_url=urls.result,
            rpc_host=options.ip,
            rpc_port=self._rpc_port(f"{assignment.role}-rpc"),
            rpc_processes=processes if assignment.role == "inference" else 1,
            concurrency=worker_concurrency(facts, cluster.concurrency),
            certificate_file=str(self._identity.certificate_file),
            key_file=str(self._identity.key_file),
            ca_file=str(self._identity.ca_file),
            state_dir=str(options.state),
            log_level=self._settings.log.level,
        )
        return config, f"inference_rpc has {processes} processes: {why}" if is_capped else ""

    def _rpc_port(self, name: str) -> int:
        """Return the role's remembered port; another one when it is taken while the role does not run."""
        ports = self._options.state / "ports.json"
        if any(view.name == name for view in self._supervisor.views()):
            return choose_port(ports, name, self._options.ip)
        return claim_port(ports, name, self._options.ip)

    def _specs(self, config: m.RoleConfig) -> list[ProcessSpec]:
        specs = []
        environment = environment_of(self._settings)
        for process in processes_of(config):
            write_state(config_file(self._options.state, process), config)
            specs.append(spec_of(process, config, self._options.state, self._options.role_package, environment, _CHECKOUT))
        return specs

    def _queues(self, assignment: Assignment, rpc_processes: int) -> list[QueueSpec]:
        return queue_table(assignment, self._options.cluster_id, self._options.name, rpc_processes)

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

    def _open(self, root: Root, spec: m.TaskSpec, is_revision_given: bool) -> m.TaskSpec:
        """Save `spec`; without a revision of its own it follows the newest one, unless it says the same."""
        folder = task_folder(root, spec.task)
        if not is_revision_given:
            try:
                newest = read_spec(folder)
            except NotFoundError:
                newest = None
            if newest is not None:
                is_same = msgspec.structs.replace(spec, revision=newest.revision) == newest
                spec = newest if is_same else msgspec.structs.replace(spec, revision=newest.revision + 1)
        save_spec(folder, spec)
        return spec

    def _say(self, reason: str) -> None:
        with self._lock:
            is_new, self._last_reason = reason != self._last_reason, reason
        if is_new:
            logger.info("%s", reason)
            self.on_change()
