"""A registry with simulated managers: real TLS, real RPC, real certificates, no role process. Holds no test."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from cluster.authority import Authority
from cluster.initial import Assignment, answer, assign, check_epoch, check_order
from cluster.orders import Orders
from cluster.registry import Registry
from labelloop import messages as m
from labelloop.clients import RegistryClient
from labelloop.errors import LabelloopError
from labelloop.settings import ClusterSettings, Settings, WireSettings
from labelloop.tls import Identity, enrol
from labelloop.wire import Peer, Server

T = TypeVar("T")
SETTINGS = Settings(
    wire=WireSettings(deadline_s=20.0, retries=0),
    cluster=ClusterSettings(heartbeat_s=0.1, dead_after_s=2.5, majority_lost_s=1.5, drain_wait_s=6.0),
)
ROOT = Path("/nowhere")
SECOND = "second"  # the process that logs `second_log`


def until(condition: Callable[[], T], what: str = "") -> T:
    """Return the first true value of `condition`, which may raise LabelloopErrors on the way."""
    deadline_s, value = time.monotonic() + 60, None
    while time.monotonic() < deadline_s:
        with contextlib.suppress(LabelloopError):
            value = condition()
            if value:
                return value
        time.sleep(0.02)
    raise AssertionError(f"never came true: {what}: {value}")


class SimulatedManager:
    """Answers as a manager does and heartbeats; what it is told to be lies in `assignment`, what it was asked in `orders`."""

    def __init__(self, world: World, name: str, ip: str, gpus: tuple[str, ...] = ()) -> None:
        self.world, self.name, self.ip, self.gpus = world, name, ip, gpus
        self.assignment = Assignment()
        self.orders: list[m.InitialRequest] = []
        self.tasks: list[str] = []
        self.left = 0
        self.log = ["one", "two", "three"]
        self.second_log: list[str] = []
        self.work = ""
        self.broker = m.BrokerView()
        self.broker_once_ordered: m.BrokerView | None = None
        self.revoked: tuple[str, ...] = ()
        self.trouble: LabelloopError | None = None
        self.late_trouble: LabelloopError | None = None  # met after the order is taken, as that of a broker: no role answers
        self.refused: LabelloopError | None = None
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.identity = world.enrol(name, ip)
        self._one_order = threading.Lock()
        self._server: Server | None = None
        self._port = 0
        self._ended = threading.Event()
        self._beats = 0
        self._thread: threading.Thread | None = None

    @property
    def is_up(self) -> bool:
        return self._server is not None

    def start(self) -> SimulatedManager:
        """Serve and heartbeat."""
        handlers: dict[str, Callable[..., m.Message]] = {
            "initial": self._initial,
            "status": lambda request, peer: self.status(),
            "stop_role": self._stop_role,
            "leave": self._leave,
            "open_task": self._open_task,
            "logs": lambda request, peer: m.LogsReply(text="\n".join(self._log_of(request.process)[-request.lines :])),
        }
        self._server = Server("manager", handlers, self.identity, SETTINGS.wire, self.ip, self._port)
        self._server.listen()
        self._port = self._server.address[1]
        self._server.start()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(self._ended,), daemon=True)
        self._thread.start()
        return self

    def kill(self) -> None:
        """Fall silent at once, as a docker without power does."""
        self._ended.set()
        self.may_answer.set()
        if self._server is not None:
            self._server.close(grace_s=0.0)
            self._server = None
        if self._thread is not None:
            self._thread.join()

    def status(self) -> m.NodeStatus:
        held = self.assignment
        is_working = held.role is not None and self.name not in held.drained and self.late_trouble is None
        process = m.ProcessView(name=f"{held.role}-worker", pid=1, state="running", restarts=0, activity=self.work)
        more = [m.ProcessView(name=SECOND, pid=2, state="running", restarts=0)] if self.second_log else []
        return m.NodeStatus(
            hostname=self.name,
            ip=self.ip,
            port=self._port,
            role=held.role or "",
            rpc=f"{self.ip}:9" if is_working and (held.role == "inference" or held.is_master) else "",
            is_master=held.is_master,
            epoch=held.epoch,
            processes=(process, *more) if is_working else (),
            gpus=self.gpus,
            broker=self.broker,
        )

    def _log_of(self, process: str) -> list[str]:
        return self.second_log if process == SECOND else self.log

    def _beat(self, ended: threading.Event) -> None:
        with RegistryClient(self.world.address, self.identity, SETTINGS.wire) as client:
            while not ended.is_set():
                status = self.status()  # read first, as the daemon does
                if not self.assignment.has_left:
                    try:
                        self.revoked = client.heartbeat(m.Heartbeat(status=status), deadline_s=1.0).revoked
                        self.refused = None
                        self._beats += 1
                    except LabelloopError as exc:
                        self.refused = exc
                ended.wait(SETTINGS.cluster.heartbeat_s)

    def _initial(self, request: m.InitialRequest, peer: Peer) -> m.InitialReply:
        self.orders.append(request)
        with self._one_order:
            return self._apply(request)

    def _apply(self, request: m.InitialRequest) -> m.InitialReply:
        order = check_order(request, self.name, self.ip, ROOT)
        check_epoch(order.epoch, self.assignment.epoch)
        if self.trouble is not None:
            raise self.trouble
        good = [machine for machine in order.machines if self.world.is_up(machine.hostname)]
        self.may_answer.wait()
        self.assignment = assign(order, good)
        self.broker = self.broker_once_ordered or self.broker
        if self.late_trouble is not None:
            before = self._beats
            until(lambda: self._beats > before + 1, "the registry hears that the order is taken")
            raise self.late_trouble
        bad = [m.BadMachine(machine=x, reason="down") for x in order.machines if x not in good]
        return answer(self.assignment, bad, self.status().rpc, {}, self.name, (), frozenset())

    def _stop_role(self, request: m.RoleRequest, peer: Peer) -> m.NodeStatus:
        self.assignment = Assignment(epoch=self.assignment.epoch)
        return self.status()

    def _leave(self, request: m.Empty, peer: Peer) -> m.Empty:
        self.left += 1
        self.assignment = Assignment(epoch=self.assignment.epoch, has_left=True)
        return m.Empty()

    def _open_task(self, request: m.OpenTaskRequest, peer: Peer) -> m.OpenTaskReply:
        self.tasks.append(request.spec.task)
        return m.OpenTaskReply(task=request.spec.task, revision=request.spec.revision)


class World:
    """One authority and its folder; a registry that may be stopped and started anew; any number of simulated managers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder / "authority", SETTINGS.cluster)
        self.node_token = self.authority.create_token("node")
        self.managers: dict[str, SimulatedManager] = {}
        self.ops_identity = self.authority.own_identity("ops", "127.0.0.1", "ops", folder / "ops")
        self._port = 0
        self.open()
        self.ops = RegistryClient(self.address, self.ops_identity, SETTINGS.wire)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def open(self) -> None:
        """Start the registry on what lies in the folder."""
        identity = self.authority.own_identity("registry", "127.0.0.1", "ops", self.folder / "identity")
        orders = Orders(identity, SETTINGS.wire)
        self.registry = Registry(self.folder, self.authority, orders, SETTINGS, identity_folder=self.folder / "identity")
        self.server = Server("registry", self.registry.handlers(), identity, SETTINGS.wire, "127.0.0.1", self._port)
        self.server.listen()
        self._port = self.server.address[1]
        (self.folder / "address").write_text(self.address + "\n")
        self.server.start()
        self.registry.start()

    def shut(self) -> None:
        """Stop the registry."""
        self.server.close(grace_s=0.5)
        self.registry.stop()

    def enrol(self, name: str, ip: str) -> Identity:
        return enrol(self.address, self.node_token, name, ip, "node", self.folder / "nodes" / name, SETTINGS.wire)

    def boot(self, *names: str, gpus: tuple[str, ...] = ()) -> list[SimulatedManager]:
        """Start managers that have registered on return; addresses grow from 127.0.3.1 in the order of booting."""
        booted = []
        for name in names:
            ip = f"127.0.3.{len(self.managers) + 1}"
            self.managers[name] = SimulatedManager(self, name, ip, ("a GPU",) if name in gpus else ()).start()
            booted.append(self.managers[name])
        until(lambda: set(names) <= {n.status.hostname for n in self.ops.nodes().nodes if n.is_alive}, f"{names} register")
        return booted

    def is_up(self, name: str) -> bool:
        return name in self.managers and self.managers[name].is_up

    def form(self, **roles: m.Role) -> m.NodesReply:
        """Form by name; '_' stands for '-'."""
        return self.ops.form(m.FormRequest(roles={name.replace("_", "-"): role for name, role in roles.items()}), deadline_s=120)

    def journal(self) -> list[tuple[str, str]]:
        return [(action.what, action.reason) for action in self.ops.actions().actions]

    def settled(self, words: str) -> m.NodesReply:
        """Return once the registry has decided so."""

        def look() -> m.NodesReply | None:
            reply = self.ops.nodes()
            return reply if words in reply.last_reason else None

        found = until(look, words)
        assert found is not None
        return found


@contextlib.contextmanager
def open_world(folder: Path) -> Iterator[World]:
    """Yield a world; everything of it is stopped at the end."""
    world = World(folder)
    try:
        yield world
    finally:
        for manager in world.managers.values():
            manager.kill()
        world.ops.close()
        world.shut()
