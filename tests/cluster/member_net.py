"""Dockers with real managers and real RabbitMQs, and no registry: a test gives the orders itself and hurts them as it likes.

Owns its dockers and managers. Roles are stood in for, because nothing here is about models. Called by the tests of this folder.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster.authority import Authority
from cluster.lab.lab import Lab
from cluster.lab.plan import SHARED
from cluster.orders import form_request
from cluster.state import Ports, write_state
from datastore_layout.root import create_root
from labelloop.clients import ManagerClient
from labelloop.errors import LabelloopError
from labelloop.messages import Empty, InitialReply, MachineInfo, NodeStatus
from labelloop.queues import bulk_queue
from labelloop.settings import BrokerSettings, ClusterSettings, Settings, WireSettings
from tests.cluster.two_managers import CHECKOUT

PORT = 7070
PATIENCE_S = 180.0
STATE = "/var/lib/labelloop"
SERVER = "-s rabbit boot"
SETTINGS = Settings(
    cluster=ClusterSettings(heartbeat_s=0.5, ping_timeout_s=5.0, inference_processes=1, join_timeout_s=120.0, shutdown_grace_s=3.0),
    broker=BrokerSettings(start_timeout_s=120.0),
    wire=WireSettings(retries=1),
)
_IN_DOCKER = f"""
import sys
from pathlib import Path
from cluster.broker.rabbitmq_secrets import password_of
from tests.docker_agent import fetch_all, publish
password = password_of(Path("{STATE}/broker/cookie").read_text(), "inference")
url = f"amqp://inference:{{password}}@127.0.0.1:5672//"
queue, *bodies = sys.argv[1:]
print("\\n".join(map(str, [publish(url, queue, bodies)] if bodies else fetch_all(url, queue, is_acked=False))))
"""


def until(condition: Callable[[], object], what: str) -> None:
    """Return once `condition`, which may raise LabelloopErrors on the way, is true; the machine may be busy with other tests."""
    deadline_s = time.monotonic() + PATIENCE_S
    trouble: object = "false"
    while time.monotonic() < deadline_s:
        try:
            if condition():
                return
        except LabelloopError as exc:
            trouble = exc
        time.sleep(0.05)
    raise AssertionError(f"never came true: {what}: {trouble}")


class Net:
    """The dockers of one lab, the managers that were started in them, and the epoch of the last order."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.epoch = 0
        self.authority = Authority(folder / "authority", SETTINGS.cluster)
        create_root(lab.datastore, self.authority.cluster_id)
        self.queue = bulk_queue(self.authority.cluster_id)
        self.ops = self.authority.own_identity("ops", lab.host, "ops", folder / "ops")
        self.names: dict[str, str] = {}  # docker → the host name it has now
        self._managers: dict[str, subprocess.Popen[bytes]] = {}

    # ------------------------------------------------------------ managers and dockers

    def start(self, *dockers: str) -> None:
        """Start the managers of dockers, under the host names that they have in `names`, and return when they answer."""
        for docker in dockers:
            self._spawn(docker)
        for docker in dockers:
            until(lambda docker=docker: self.status(docker).hostname == self.names[docker], f"manager of {docker}")  # type: ignore[misc]

    def _spawn(self, docker: str) -> None:
        name = self.names.setdefault(docker, docker)
        assert self.lab.run(docker, ["hostname", name]).returncode == 0
        state, ip = self.lab.disk(docker) / STATE.lstrip("/"), self.lab.address(docker)
        write_state(state / "ports.json", Ports({"manager": PORT}))
        self.authority.own_identity(name, ip, "node", state / "identity")
        words = [sys.executable, "manager_rpc.py", "--name", name, "--ip", ip, "--state", STATE, "--broker", "rabbitmq"]
        words += ["--registry", f"{self.lab.host}:9", "--datastore", f"{SHARED}/disk", "--hosts-file", "/etc/hosts"]
        words += ["--role-package", "tests.cluster.standin"]
        argv, env = self.lab.command(docker, ["sh", "-c", f"cd {CHECKOUT} && exec {' '.join(words)}"])
        with (self.lab.folder / f"{docker}.log").open("ab") as log:
            self._managers[docker] = subprocess.Popen(argv, env=env, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill_manager(self, docker: str) -> None:
        """SIGKILL the manager; its broker goes on."""
        for pid in self.lab.pids(docker, "manager_rpc.py"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._managers.pop(docker).wait(30)

    def kill_broker(self, docker: str) -> None:
        """SIGKILL the broker."""
        for pid in self.broker(docker):
            os.kill(pid, signal.SIGKILL)
        until(lambda: not self.broker(docker), f"broker of {docker} is gone")

    def cut_power(self, *dockers: str) -> None:
        """Kill whole dockers at once; their disks stay."""
        for docker in dockers:
            self.lab.kill(docker)
        for docker in dockers:
            self._managers.pop(docker).wait(30)

    def reboot(self, *dockers: str, is_wiped: bool = False) -> None:
        """Cut the power of dockers where they are up, boot them and start their managers."""
        self.cut_power(*(docker for docker in dockers if docker in self._managers))
        for docker in dockers:
            self.lab.boot(docker, is_wiped=is_wiped)
        self.start(*dockers)

    def close(self) -> None:
        """End the managers; the dockers go with the lab."""
        for docker in list(self._managers):
            self.kill_manager(docker)

    # ------------------------------------------------------------ orders

    def machine(self, docker: str) -> MachineInfo:
        """Return a docker's entry of machines_info."""
        return MachineInfo(hostname=self.names[docker], ip=self.lab.address(docker), port=PORT, type="inference")

    def order(
        self, *dockers: str, to: tuple[str, ...] = (), survivors: tuple[str, ...] = ()
    ) -> dict[str, InitialReply | LabelloopError]:
        """Give the next epoch's `initial` for these dockers to all of them (or `to`) at once; return what each answered."""
        self.epoch += 1
        request = form_request([self.machine(docker) for docker in dockers], self.epoch, survivors)

        def give(docker: str) -> InitialReply | LabelloopError:
            try:
                with ManagerClient(f"{self.lab.address(docker)}:{PORT}", self.ops, SETTINGS.wire) as client:
                    return client.initial(request, deadline_s=240)
            except LabelloopError as exc:
                return exc

        asked = to or dockers
        with ThreadPoolExecutor(len(asked)) as pool:
            return dict(zip(asked, pool.map(give, asked), strict=True))

    def form(self, *dockers: str) -> None:
        """Order all of them once and return when they are one whole cluster under one cookie."""
        replies = self.order(*dockers)
        failed = {name: str(reply) for name, reply in replies.items() if isinstance(reply, LabelloopError)}
        assert not failed, failed
        self.await_whole(*dockers)

    def await_whole(self, *dockers: str) -> None:
        """Return when exactly these dockers are the running members of one cluster, by the word of each, with all queues copied."""
        names = tuple(sorted(self.names[docker] for docker in dockers))
        until(lambda: all(self.seen(docker) == (names, names) for docker in dockers), f"{names} are one cluster")
        until(lambda: not any(self.status(docker).broker.short for docker in dockers), "each queue has its replicas")
        assert len({self.status(docker).erlang_hash for docker in dockers}) == 1

    # ------------------------------------------------------------ looking

    def status(self, docker: str) -> NodeStatus:
        """Return what a manager says of itself."""
        with ManagerClient(f"{self.lab.address(docker)}:{PORT}", self.ops, SETTINGS.wire) as client:
            return client.status(Empty(), deadline_s=10)

    def seen(self, docker: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the members of a docker's cluster and those that run, as its broker says."""
        view = self.status(docker).broker
        return view.members, view.running

    def broker(self, docker: str) -> tuple[int, ...]:
        """Return the process of a docker's broker."""
        return self.lab.pids(docker, SERVER)

    def pids(self, docker: str) -> dict[str, tuple[int, ...]]:
        """Return manager, broker and role processes."""
        roles = {process.name: (process.pid,) for process in self.status(docker).processes}
        return {**roles, "manager": self.lab.pids(docker, "manager_rpc.py"), "broker": self.broker(docker)}

    def queued(self, docker: str, *bodies: str) -> list[str]:
        """Publish bodies through a docker's broker, or return what is queued."""
        script = [sys.executable, "-c", _IN_DOCKER, self.queue, *bodies]
        done = self.lab.run(docker, ["env", f"PYTHONPATH={CHECKOUT}", *script], timeout_s=120)
        assert done.returncode == 0, done.stderr
        return sorted(done.stdout.split())

    @contextlib.contextmanager
    def unharmed(self, *dockers: str) -> Iterator[None]:
        """Assert that the brokers of these dockers go on through the block: nobody stops, resets or restarts them."""
        before = {docker: self.broker(docker) for docker in dockers}
        assert all(len(pids) == 1 for pids in before.values()), before
        yield
        assert {docker: self.broker(docker) for docker in dockers} == before
