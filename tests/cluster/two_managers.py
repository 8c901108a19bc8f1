"""A whole cluster on this machine for tests: broker, registry and two managers as real processes under a supervisor.

Owns its processes and folders. Called by the tests of this folder.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from cluster.authority import Authority
from cluster.commands import ADDRESS_FILE
from cluster.process import ProcessSpec
from cluster.state import choose_port
from cluster.supervisor import Supervisor
from datastore_layout.root import create_root
from labelloop.clients import ManagerClient, RegistryClient
from labelloop.errors import LabelloopError
from labelloop.messages import Empty, NodeStatus
from labelloop.settings import ClusterSettings, Settings, environment_of

T = TypeVar("T")
NODES = {"train-1": "127.0.0.2", "inference-1": "127.0.0.3"}
CHECKOUT = Path(__file__).resolve().parents[2]
SETTINGS = Settings(
    cluster=ClusterSettings(
        heartbeat_s=0.1, dead_after_s=3.0, ping_timeout_s=1.0, backoff_first_s=0.05, shutdown_grace_s=2.0, inference_processes=4
    )
)


def until(condition: Callable[[], T], what: str = "") -> T:
    """Return the first true value of `condition`, which may raise LabelloopErrors on the way."""
    deadline = time.monotonic() + 60
    trouble: object = "false"
    while time.monotonic() < deadline:
        try:
            value = condition()
        except LabelloopError as exc:
            trouble = exc
        else:
            if value:
                return value
            trouble = value
        time.sleep(0.02)
    raise AssertionError(f"never came true: {what}: {trouble}")


class Cluster:
    """One registry, one broker, two managers; everything below `folder`."""

    def __init__(self, folder: Path, role_package: str) -> None:
        self.folder = folder
        self.settings = SETTINGS
        self.role_package = role_package
        self.datastore = folder / "datastore"
        self.authority = Authority(folder / "registry" / "authority", SETTINGS.cluster)
        create_root(self.datastore, self.authority.cluster_id)
        self.token_file = folder / "node.token"
        self.token_file.write_text(self.authority.create_token("node"))
        self.ops = self.authority.own_identity("ops", "127.0.0.1", "ops", folder / "ops")
        self.client = self.authority.own_identity("platform", "127.0.0.1", "client", folder / "client")
        self.registry_port = choose_port(folder / "test-ports.json", "registry", "127.0.0.1")
        self._stopped: set[str] = set()
        self.supervisor = Supervisor(self.specs(), SETTINGS.cluster)
        self.registry = RegistryClient(f"127.0.0.1:{self.registry_port}", self.ops, SETTINGS.wire)

    def specs(self) -> list[ProcessSpec]:
        """Return all processes but those that the test stopped."""
        labelloop = (sys.executable, "-m", "tests.cluster.ops")
        state = str(self.folder / "registry")
        specs = [
            self._spec("broker", (*labelloop, "broker", "--state", str(self.folder / "broker")), 0),
            self._spec("registry", (*labelloop, "registry", "--state", state, "--port", str(self.registry_port)), 1),
        ]
        for name, ip in NODES.items():
            argv = (sys.executable, "manager_rpc.py", "--name", name, "--ip", ip, "--state", str(self.folder / name))
            argv += ("--registry", f"127.0.0.1:{self.registry_port}", "--token-file", str(self.token_file))
            argv += ("--datastore", str(self.datastore), "--broker-url-file", str(self.folder / "broker" / "url"))
            specs.append(self._spec(name, (*argv, "--role-package", self.role_package), 2))
        return [spec for spec in specs if spec.name not in self._stopped]

    def _spec(self, name: str, argv: tuple[str, ...], layer: int) -> ProcessSpec:
        return ProcessSpec(
            name=name,
            argv=argv,
            log_file=self.folder / "logs" / f"{name}.log",
            env={**environment_of(self.settings), "PYTHONWARNINGS": "error::ResourceWarning"},
            cwd=CHECKOUT,
            stop_layer=layer,
            grace_s=8.0,
        )

    def stop_process(self, name: str) -> None:
        """Stop one process and keep it stopped."""
        self._stopped.add(name)
        self.supervisor.update(self.specs())

    def start_process(self, name: str) -> None:
        """Start a stopped process again."""
        self._stopped.discard(name)
        self.supervisor.update(self.specs())

    def pid(self, name: str) -> int:
        """Return the pid of one of the four processes, 0 while it is down."""
        return next(view.pid for view in self.supervisor.views() if view.name == name)

    def kill(self, name: str) -> None:
        """kill -9 one of the four processes and return when another one runs in its place."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        until(lambda: self.pid(name) not in (0, pid))

    def node(self, name: str) -> NodeStatus:
        """Return what the registry knows of a node now."""
        return next(n.status for n in self.registry.nodes().nodes if n.status.hostname == name)

    def manager(self, name: str) -> ManagerClient:
        """Return a client of a node's manager under the ops identity; close it."""
        port = self.node(name).port
        return ManagerClient(f"{NODES[name]}:{port}", self.ops, self.settings.wire)

    def status(self, name: str) -> NodeStatus:
        """Return what a manager says of itself."""
        with self.manager(name) as client:
            return client.status(Empty())

    def role_pids(self) -> dict[str, int]:
        """Return every role process of both nodes: 'node/process' → pid."""
        return {f"{name}/{p.name}": p.pid for name in NODES for p in self.status(name).processes}

    def log(self, name: str) -> str:
        """Return what one of the four processes has logged."""
        return (self.folder / "logs" / f"{name}.log").read_text()


@contextlib.contextmanager
def running_cluster(folder: Path, role_package: str) -> Iterator[Cluster]:
    """Yield a started cluster whose nodes have registered; it is stopped at the end."""
    cluster = Cluster(folder, role_package)
    cluster.supervisor.start()
    try:
        until(lambda: (folder / "registry" / ADDRESS_FILE).exists(), "registry up")
        until(lambda: len([n for n in cluster.registry.nodes().nodes if n.is_alive]) == 2, "two nodes register")
        yield cluster
    finally:
        cluster.registry.close()
        cluster.supervisor.stop()
