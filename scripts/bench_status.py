"""`scripts/bench status`: seconds from `labelloop status` to its last line, with 50 registered nodes.

49 of the nodes are simulated: certificates of their own and a heartbeat a second each, with processes, queues and a reason as real
ones have. The fiftieth is a real manager. The baseline, in the same run and alternating with it, is a bare Python that loads
`ssl`, opens one mutual TLS connection to the registry and closes it.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cluster.authority import Authority
from cluster.process import ProcessSpec
from cluster.state import choose_port
from cluster.supervisor import Supervisor
from datastore_layout.root import create_root
from labelloop import messages as m
from labelloop.clients import RegistryClient
from labelloop.errors import LabelloopError
from labelloop.settings import Settings, environment_of
from labelloop.tls import Identity

HERE = Path(__file__).resolve().parent.parent
BARE = (
    "import socket, ssl, sys\n"
    "c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); c.load_verify_locations(sys.argv[3])\n"
    "c.load_cert_chain(sys.argv[4], sys.argv[5])\n"
    "c.wrap_socket(socket.create_connection((sys.argv[1], int(sys.argv[2]))), server_hostname=sys.argv[1]).close()\n"
)
GIB = 2**30


def status_of(number: int, ip: str) -> m.NodeStatus:
    """Return what simulated node `number` says of itself."""
    is_train = number % 2 == 0
    names = ("train-worker", "data-worker") if is_train else ("inference-rpc", "inference-worker")
    return m.NodeStatus(
        hostname=f"node-{number}",
        ip=ip,
        port=7000,
        erlang_hash="0123456789abcdef",
        role="train" if is_train else "inference",
        rpc="" if is_train else f"{ip}:7001",
        cluster_id="0123456789abcdef",
        processes=tuple(
            m.ProcessView(name=name, pid=1000 + number, state="running", restarts=number % 3, activity="run 7, step 120 of 400")
            for name in names
        ),
        cores=64,
        memory_bytes=512 * GIB,
        memory_free_bytes=300 * GIB,
        load=12.5,
        gpus=("NVIDIA H100 80GB HBM3 81559 MiB",) * 8,
        versions={"python": "3.11.2", "torch": "2.6.0", "labelloop": "0.1.0"},
        broker=m.BrokerView(
            kind="rabbitmq",
            state="running",
            cluster="c-1",
            members=tuple(f"node-{n}" for n in range(1, 50, 2)),
            running=tuple(f"node-{n}" for n in range(1, 50, 2)),
            queues={f"inference.0123456789abcdef.{name}": number for name in ("interactive", "bulk", "dead")},
        ),
        last_reason="epoch 12 from registry: 49 good, 1 bad machines",
    )


class Simulated:
    """One simulated node: a client that heartbeats when `beat` is called."""

    def __init__(self, number: int, address: str, authority: Authority, folder: Path, settings: Settings) -> None:
        ip = f"127.0.4.{number}"
        identity = authority.own_identity(f"node-{number}", ip, "node", folder / f"node-{number}")
        self._client = RegistryClient(address, identity, settings.wire)
        self._status = status_of(number, ip)

    def beat(self) -> None:
        """Heartbeat once."""
        self._client.heartbeat(m.Heartbeat(status=self._status))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


@contextlib.contextmanager
def heartbeats(nodes: Sequence[Simulated], every_s: float) -> Iterator[None]:
    """Keep all nodes heartbeating from one thread, spread over `every_s`."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            for node in nodes:
                with contextlib.suppress(LabelloopError):
                    node.beat()
                ended.wait(every_s / len(nodes) * 0.8)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for node in nodes:
            node.close()


@contextlib.contextmanager
def daemons(folder: Path, settings: Settings, port: int, token_file: Path) -> Iterator[None]:
    """Run a registry and one real manager."""
    registry = (sys.executable, "-m", "scripts.cli", "registry", "--state", str(folder / "registry"), "--port", str(port))
    manager = (
        *(sys.executable, "manager_rpc.py", "--name", "real-1", "--ip", "127.0.0.2", "--state", str(folder / "real-1")),
        *("--registry", f"127.0.0.1:{port}", "--token-file", str(token_file), "--datastore", str(folder / "datastore")),
    )
    specs = [
        ProcessSpec(
            name=name,
            argv=argv,
            log_file=folder / "logs" / f"{name}.log",
            env=environment_of(settings),
            cwd=HERE,
            version="1",
            stop_layer=layer,
            grace_s=5.0,
        )
        for layer, (name, argv) in enumerate((("registry", registry), ("manager", manager)))
    ]
    supervisor = Supervisor(specs, settings.cluster)
    supervisor.start()
    try:
        yield
    finally:
        supervisor.stop()


def cpu_s() -> float:
    """Return the processor seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Took(NamedTuple):
    """One run of a command: wall and processor seconds, and what it printed."""

    wall_s: float
    cpu_s: float
    text: str


def run(argv: Sequence[str], settings: Settings) -> Took:
    """Run a command. Raises SystemExit when it fails."""
    cpu_before_s, began_s = cpu_s(), time.perf_counter()
    done = subprocess.run(
        argv, cwd=HERE, env={**environment_of(settings), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    took = Took(time.perf_counter() - began_s, cpu_s() - cpu_before_s, done.stdout)
    if done.returncode:
        raise SystemExit(f"bench status: {argv[0]} failed: {done.stderr}")
    return took


def await_nodes(address: str, ops: Identity, settings: Settings, count: int) -> None:
    """Return once `count` nodes are alive."""
    end_s = time.monotonic() + 60
    with contextlib.closing(RegistryClient(address, ops, settings.wire)) as client:
        while True:
            with contextlib.suppress(LabelloopError):
                if sum(node.is_alive for node in client.nodes().nodes) >= count:
                    return
            if time.monotonic() > end_s:
                raise SystemExit(f"bench status: {count} nodes never registered")
            time.sleep(0.1)


def measure(folder: Path, runs: int) -> dict[str, Any]:
    """Run the benchmark in `folder`."""
    settings = Settings(state_dir=str(folder / "state"))
    authority = Authority(folder / "registry" / "authority", settings.cluster)
    create_root(folder / "datastore", authority.cluster_id)
    token_file = folder / "token"
    token_file.write_text(authority.create_token("node"))
    ops = authority.own_identity("bench", "127.0.0.1", "ops", folder / "bench")
    port = choose_port(folder / "ports.json", "registry", "127.0.0.1")
    address = f"127.0.0.1:{port}"
    labelloop = str(Path(sys.executable).with_name("labelloop"))
    status = (labelloop, "status", "--state", str(folder / "registry"))
    bare = (sys.executable, "-c", BARE, "127.0.0.1", str(port), str(ops.ca_file), str(ops.certificate_file), str(ops.key_file))
    with daemons(folder, settings, port, token_file):
        await_nodes(address, ops, settings, 1)
        nodes = [Simulated(number, address, authority, folder / "simulated", settings) for number in range(1, 50)]
        with heartbeats(nodes, settings.cluster.heartbeat_s):
            await_nodes(address, ops, settings, 50)
            run(status, settings), run(bare, settings)  # the first run makes the ops identity and fills the page cache
            pairs = [(run(status, settings), run(bare, settings)) for _ in range(runs)]
    for ours, _ in pairs:
        if sum(f"node-{n} " in ours.text for n in range(1, 50)) != 49 or "real-1 " not in ours.text:
            raise SystemExit(f"bench status: not all 50 nodes are shown:\n{ours.text}")
    return {"nodes": 50, "runs": runs, **figures([ours for ours, _ in pairs], [bare for _, bare in pairs])}


def figures(ours: Sequence[Took], bare: Sequence[Took]) -> dict[str, Any]:
    """Return medians, extremes and the ratio."""
    walls = sorted(took.wall_s for took in ours)
    middle, floor = statistics.median(walls), statistics.median(took.wall_s for took in bare)
    return {
        "status_median_ms": round(1000 * middle, 1),
        "status_best_ms": round(1000 * walls[0], 1),
        "status_worst_ms": round(1000 * walls[-1], 1),
        "status_cpu_median_ms": round(1000 * statistics.median(took.cpu_s for took in ours), 1),
        "bare_tls_median_ms": round(1000 * floor, 1),
        "bare_tls_cpu_median_ms": round(1000 * statistics.median(took.cpu_s for took in bare), 1),
        "ratio": round(middle / floor, 2),
        "is_below_300_ms": middle < 0.3,
    }


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark and return its figures."""
    parser = argparse.ArgumentParser(prog="scripts/bench status")
    parser.add_argument("--runs", type=int, default=21)
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="labelloop-bench-") as folder:
        return measure(Path(folder), args.runs)
