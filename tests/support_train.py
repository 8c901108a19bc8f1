"""A train node for tests: a real broker, data worker, train worker and train_rpc as processes, and digits as PNG files.

Owns the processes it starts and kills exactly those. Holds no test.
"""

from __future__ import annotations

import contextlib
import copy
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from PIL import Image
from sklearn.datasets import load_digits

from cluster.authority import Authority
from datastore_layout.root import TaskFolder, create_root, task_folder
from datastore_layout.tasks import save_spec
from labelloop.clients import TrainClient
from labelloop.errors import LabelloopError, RetryableError
from labelloop.messages import (
    Draft,
    ItemKey,
    MachineInfo,
    ProgressReply,
    ProgressRequest,
    RoleConfig,
    Sample,
    SubmitRequest,
    TaskExtraInfo,
    TaskSpec,
)
from labelloop.nodefiles import Machines, write_machines
from labelloop.settings import (
    BrokerSettings,
    ClusterSettings,
    IntakeSettings,
    Settings,
    TrainSettings,
    WireSettings,
    environment_of,
)
from tests.support_broker import Broker, running_broker

T = TypeVar("T")
PATIENCE_S = 60.0
LABELS = tuple("0123456789")


def free_port() -> int:
    """Return a port of the loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(look: Callable[[], T | None], what: str, patience_s: float = PATIENCE_S) -> T:
    """Return the first answer of `look` that is something; fail with `what` when none comes."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        with contextlib.suppress(RetryableError):
            if found := look():
                return found
        time.sleep(0.02)
    raise AssertionError(f"did not come: {what}")


def parent_of(pid: int) -> int:
    """Return the parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def listens_on(pid: int) -> set[str]:
    """Return the addresses that a process listens on for TCP, IPv4 as text, IPv6 as the kernel writes it."""
    links = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            links.append(str(path.readlink()))
    inodes = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:[")}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                address = words[1].partition(":")[0]
                found.add(socket.inet_ntoa(bytes.fromhex(address)[::-1]) if table == "tcp" else address)
    return found


def digit_files(folder: Path, n: int) -> list[tuple[str, str, str]]:
    """Write the first `n` digits as PNG files; return (item id, link, label) of each."""
    digits = load_digits()
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for i in range(n):
        path = folder / f"d{i:04d}.png"
        Image.fromarray((digits.images[i] * 15.9).astype("uint8"), "L").save(path)
        found.append((f"d{i:04d}", path.as_uri(), str(digits.target[i])))
    return found


def samples_of(items: Sequence[tuple[str, str, str]], draft: Draft | None = None) -> tuple[Sample, ...]:
    """Return the true label of each item as a sample."""
    return tuple(Sample(item_id=i, link=link, labels=(label,), draft=draft) for i, link, label in items)


class TrainNode:
    """One node's processes. `start` and `kill` go by name: 'data', 'train', 'rpc'."""

    COMMANDS = {"data": ["scripts.start_data"], "train": ["scripts.start_train"], "rpc": ["scripts.start_train", "--rpc"]}

    def __init__(self, folder: Path, broker_url: str, result_url: str, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.root = create_root(folder / "store", "c1")
        authority = Authority(folder / "ca", ClusterSettings())
        identity = authority.own_identity("n1", "127.0.0.1", "node", folder / "id")
        self.identity = authority.own_identity("webapp", "127.0.0.1", "client", folder / "client")
        self.config = RoleConfig(
            node="n1",
            ip="127.0.0.1",
            role="train",
            is_master=True,
            master_host="n1",
            cluster_id="c1",
            epoch=1,
            datastore_root=str(self.root.path),
            broker_url=broker_url,
            result_url=result_url,
            rpc_host="127.0.0.1",
            rpc_port=free_port(),
            rpc_processes=1,
            concurrency=1,
            certificate_file=str(identity.certificate_file),
            key_file=str(identity.key_file),
            ca_file=str(identity.ca_file),
            state_dir=str(folder / "state"),
        )
        self.write_config()
        self.broker: Broker | None = None
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.client = TrainClient(f"127.0.0.1:{self.config.rpc_port}", self.identity, WireSettings(retries=0, deadline_s=20))

    def sibling(self, name: str, ip: str) -> TrainNode:
        """Return another train node of the same master, broker and datastore; nothing is started on it."""
        other = copy.copy(self)
        other.folder = self.folder / name
        other.folder.mkdir()
        other.config = msgspec.structs.replace(
            self.config, node=name, ip=ip, is_master=False, state_dir=str(self.folder / name / "state")
        )
        other.processes = {}
        other.write_config()
        return other

    def write_config(self) -> None:
        """Write the role's config file, as the manager does for each order."""
        self.config_file = self.folder / "role.json"
        self.config_file.write_bytes(msgspec.json.encode(self.config))

    def say_good(self, nodes: Sequence[TrainNode]) -> None:
        """Name the good machines, as the manager of this node does after each order."""
        good = tuple(MachineInfo(hostname=node.config.node, ip=node.config.ip, port=1, type="train") for node in nodes)
        state = Path(self.config.state_dir)
        state.mkdir(parents=True, exist_ok=True)
        write_machines(state, Machines(epoch=1, good=good))

    def start(self, *names: str) -> None:
        """Start processes; their logs go to <name>.log."""
        environment = {**os.environ, **environment_of(self.settings)}
        for name in names:
            module, *options = self.COMMANDS[name]
            with (self.folder / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "-m", module, str(self.config_file), *options],
                    env=environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        if "rpc" in names:
            until(self._answers, "train_rpc")

    def _answers(self) -> bool:
        try:
            self.client.progress(ProgressRequest(task="nobody"))
        except RetryableError:
            return False
        except LabelloopError:
            return True
        return True

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to one process and wait for its end."""
        process = self.processes.pop(name)
        process.send_signal(number)
        try:
            process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:  # not left behind, but told
            process.kill()
            process.wait()
            raise

    def open_task(self, task: str, **extra: object) -> TaskFolder:
        """Save a digits task."""
        folder = task_folder(self.root, task)
        info = msgspec.convert({"labels": LABELS, **extra}, TaskExtraInfo)
        save_spec(folder, TaskSpec(task=task, category="image-classification", extra=info))
        return folder

    def submit(self, task: str, items: Sequence[tuple[str, str, str]], batch: str) -> None:
        """Submit true labels."""
        self.client.submit(SubmitRequest(task=task, batch_id=batch, samples=samples_of(items)))

    def progress(self, task: str, items: Sequence[tuple[str, str, str]] = ()) -> ProgressReply:
        """Return the task's progress."""
        keys = tuple(ItemKey(item_id=i, revision=1) for i, _, _ in items)
        return self.client.progress(ProgressRequest(task=task, items=keys))

    def flush_broker(self) -> None:
        """Empty the broker, as an operator may at any moment."""
        assert self.broker is not None
        self.broker.command("FLUSHALL")

    def log(self, name: str) -> str:
        """Return what a process has logged."""
        return (self.folder / f"{name}.log").read_text()

    def close(self) -> None:
        """End what is still running."""
        self.client.close()
        self.end_processes()

    def end_processes(self) -> None:
        """End what still runs on this node, all of it even where one does not end; the client stays open."""
        with contextlib.ExitStack() as stack:
            for name in reversed(self.processes):
                stack.callback(self.kill, name, signal.SIGTERM)


@contextlib.contextmanager
def running_node(folder: Path, media: Path, **train: object) -> Iterator[TrainNode]:
    """Yield a node with its broker; nothing is started on it yet."""
    settings = Settings(
        state_dir=str(folder / "state"),
        intake=IntakeSettings(allowed_folders=(str(media),)),
        broker=BrokerSettings(visibility_timeout_s=90),
        train=msgspec.convert(train, TrainSettings, strict=False),
    )
    with running_broker(folder / "broker") as broker:
        node = TrainNode(folder, broker.url, broker.result_url, settings)
        node.broker = broker
        try:
            yield node
        finally:
            node.close()
