"""One private inference node for benchmarks and tests: broker, datastore, certificates, inference_rpc and workers, on loopback.

Owns the processes it starts and ends exactly those. Must never be used in production: the manager starts roles there.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from cluster.authority import Authority
from cluster.broker.embedded import EmbeddedServer
from datastore_layout.root import Root, TaskFolder, create_root, task_folder
from datastore_layout.tasks import save_spec
from labelloop.clients import InferenceClient
from labelloop.errors import DeadlineError, LabelloopError
from labelloop.messages import RoleConfig, TaskSpec
from labelloop.settings import BrokerSettings, ClusterSettings, Settings, WireSettings
from roles.celery_app import ALLOCATOR_ENVIRONMENT

CLUSTER = "private"
NODE = "solo"
START_S = 60.0
CHECKOUT = Path(__file__).resolve().parent.parent


class InferenceNode:
    """Use as a context manager. `environment` holds `LABELLOOP_*` overrides and whatever else its processes need.

    With `broker_url` (a RabbitMQ whose queues are declared) and `root` it is one of several nodes `name` of one cluster.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rpc_processes: int = 2,
        concurrency: int = 1,
        environment: Mapping[str, str] | None = None,
        name: str = NODE,
        broker_url: str = "",
        root: Root | None = None,
    ) -> None:
        self.folder = folder
        self.name = name
        self.environment = {**os.environ, **ALLOCATOR_ENVIRONMENT, **(environment or {})}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self.root: Root = root or create_root(folder / "datastore", CLUSTER)
        authority = Authority(folder / "ca", ClusterSettings())
        self.identity = authority.own_identity("client", "127.0.0.1", "client", folder / "client")
        mine = authority.own_identity(name, "127.0.0.1", "node", folder / "node")
        self._broker_argv: tuple[str, ...] = ()
        if not broker_url:
            self._broker_argv = EmbeddedServer(folder / "broker", BrokerSettings()).prepare()
            url = (folder / "broker" / "url").read_text().strip()
        self.config = RoleConfig(
            node=name,
            ip="127.0.0.1",
            role="inference",
            is_master=True,
            master_host=name,
            cluster_id=CLUSTER,
            epoch=1,
            datastore_root=str(self.root.path),
            broker_url=broker_url or f"{url}/0",
            result_url="" if broker_url else f"{url}/1",
            rpc_host="127.0.0.1",
            rpc_port=_free_port(),
            rpc_processes=rpc_processes,
            concurrency=concurrency,
            certificate_file=str(mine.certificate_file),
            key_file=str(mine.key_file),
            ca_file=str(mine.ca_file),
            state_dir=str(folder / "state"),
        )
        self.config_file = folder / "role.json"
        self.config_file.write_bytes(msgspec.json.encode(self.config))
        self.config_file.chmod(0o600)
        self.client = InferenceClient(f"127.0.0.1:{self.config.rpc_port}", self.identity, WireSettings())

    def __enter__(self) -> InferenceNode:
        try:
            self.start_broker()
            self.start_workers()
            self.start_rpc()
            self.await_workers()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def start_broker(self) -> None:
        """Start valkey on its remembered port; a RabbitMQ belongs to whoever made it."""
        if self._broker_argv:
            self._start("broker", list(self._broker_argv))

    def start_workers(self) -> None:
        """Start `start_inference <config>`."""
        self._start("workers", [sys.executable, "-m", "scripts.start_inference", str(self.config_file)])

    def start_rpc(self) -> None:
        """Start `start_inference <config> --rpc`."""
        self._start("rpc", [sys.executable, "-m", "scripts.start_inference", str(self.config_file), "--rpc"])

    def _start(self, name: str, argv: list[str]) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        with log:
            self.processes[name] = subprocess.Popen(argv, env=self.environment, stdout=log, stderr=log, cwd=CHECKOUT)

    def await_workers(self) -> None:
        """Return once the RPC answers and the interactive worker holds its seat."""
        from roles.inference.presence import worker_seat

        end_s = time.monotonic() + START_S
        seat = worker_seat(self.config.state_dir, self.name)
        while not (seat.is_taken() and self._answers()):
            fallen = [name for name, process in self.processes.items() if process.poll() is not None]
            if fallen or time.monotonic() > end_s:
                raise DeadlineError(f"the private node does not start ({fallen or 'no answer'}): see {self.folder}/*.log")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            self.client._caller.ping(1.0)  # type: ignore[attr-defined]
        except LabelloopError:
            return False
        return True

    def open_task(self, spec: TaskSpec) -> TaskFolder:
        """Save the task's spec and return its folder."""
        folder = task_folder(self.root, spec.task)
        save_spec(folder, spec)
        return folder

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """End one of the processes this object started, and wait for it."""
        process = self.processes.pop(name)
        process.send_signal(number)
        process.wait(30)

    def close(self) -> None:
        """End all, the last started first."""
        self.client.close()
        for name in ("rpc", "workers", "broker"):
            process = self.processes.pop(name, None)
            if process is None:
                continue
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings_of(environment: Mapping[str, str]) -> Settings:
    """Return the settings a process with this environment reads."""
    from labelloop.settings import read_settings

    return read_settings(None, environment)
