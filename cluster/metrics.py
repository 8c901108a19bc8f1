"""Prometheus metrics of the registry and of a manager, over HTTP.

Owns names and meanings of the metrics. Must never serve a secret, nor ask anybody when it is scraped: it reads what heartbeats and
the supervisor have said. Called by `labelloop registry` and manager_rpc.py.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cluster.state import choose_port
from labelloop import messages as m
from labelloop.errors import SettingsError
from labelloop.tls import write_file

logger = logging.getLogger(__name__)

ADDRESS_FILE = "metrics-address"
_STATES = ("running", "paused", "stopped", "unknown")


class SeesNodes(Protocol):
    """A registry, as far as metrics need it."""

    @property
    def counts(self) -> dict[str, int]: ...

    def nodes(self) -> m.NodesReply: ...


class SeesNode(Protocol):
    """A manager, as far as metrics need it."""

    def status(self) -> m.NodeStatus: ...


class MetricsServer:
    """Serves one collector until closed; one that is off serves nothing."""

    def __init__(self, collector: Collector | None, host: str = "", port: int = 0) -> None:
        self._ends: tuple[object, threading.Thread] | None = None
        if collector is not None:
            registry = CollectorRegistry()
            registry.register(collector)
            self._ends = start_http_server(port, host, registry)

    def close(self) -> None:
        """Stop serving."""
        if self._ends is not None:
            server, thread = self._ends
            server.shutdown()  # type: ignore[attr-defined]
            server.server_close()  # type: ignore[attr-defined]
            thread.join()
            self._ends = None


def serve_metrics(place: str, folder: Path, collector: Collector) -> MetricsServer:
    """Serve at `place` ('host:port', port 0 = a free one, remembered in `folder`; '' = off) and write where into `folder`.

    A place that is taken is logged and nothing is served: no daemon falls for its metrics. Raises SettingsError on a malformed one.
    """
    path = folder / ADDRESS_FILE
    if not place:
        path.unlink(missing_ok=True)
        return MetricsServer(None)
    host, _, port = place.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise SettingsError(f"cluster.metrics is {place!r}: give 'host:port', or '' for none")
    number = int(port) or choose_port(folder / "ports.json", "metrics", host)
    try:
        server = MetricsServer(collector, host, number)
    except OSError as exc:
        logger.error("no metrics at %s:%d: %s", host, number, exc)
        return MetricsServer(None)
    write_file(path, f"{host}:{number}\n".encode())
    return server


class RegistryMetrics(Collector):
    """What the registry sees of all nodes."""

    def __init__(self, registry: SeesNodes) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of this moment."""
        reply = self._registry.nodes()
        nodes = GaugeMetricFamily("labelloop_nodes", "Nodes by role and state.", labels=("role", "state"))
        for role in ("train", "inference", ""):
            of_role = [node for node in reply.nodes if node.status.role == role]
            for state, count in (
                ("alive", sum(node.is_alive for node in of_role)),
                ("dead", sum(not node.is_alive for node in of_role)),
            ):
                nodes.add_metric((role or "none", state), count)
        yield nodes
        yield GaugeMetricFamily("labelloop_epoch", "Epoch of the last order.", reply.epoch)
        yield GaugeMetricFamily("labelloop_learning", "1 while the registry waits for a confirmation.", reply.state == "learning")
        yield _by_node("labelloop_heartbeat_age_seconds", "Seconds since a node's last heartbeat.", reply, lambda n: n.age_s)
        yield _by_node("labelloop_draining", "1 while a node is draining.", reply, lambda n: float(n.is_draining))
        for what, count in sorted(self._registry.counts.items()):
            yield CounterMetricFamily(f"labelloop_{what}", f"Number of {what} since the registry started.", count)


def _by_node(name: str, text: str, reply: m.NodesReply, value: Callable[[m.NodeView], float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("node",))
    for node in reply.nodes:
        family.add_metric((node.status.hostname,), value(node))
    return family


class ManagerMetrics(Collector):
    """What a manager knows of its node."""

    def __init__(self, manager: SeesNode) -> None:
        self._manager = manager

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of this moment."""
        status = self._manager.status()
        yield from _process_metrics(status.processes)
        yield from _broker_metrics(status.broker)
        yield GaugeMetricFamily("labelloop_node_epoch", "Epoch that this node has applied.", status.epoch)
        yield GaugeMetricFamily("labelloop_memory_bytes", "Memory of this node.", status.memory_bytes)
        yield GaugeMetricFamily("labelloop_memory_free_bytes", "Memory that is free.", status.memory_free_bytes)
        yield GaugeMetricFamily("labelloop_load", "Load average of one minute.", status.load)
        yield GaugeMetricFamily("labelloop_gpus", "GPUs that are visible.", len(status.gpus))
        yield GaugeMetricFamily("labelloop_datastore_ok", "1 while the datastore is mounted and ours.", not status.datastore)
        yield GaugeMetricFamily("labelloop_datastore_free_bytes", "Free bytes of the datastore.", status.disk_free_bytes)


def _process_metrics(processes: Iterable[m.ProcessView]) -> Iterator[Metric]:
    restarts = CounterMetricFamily("labelloop_process_restarts", "Restarts of a role process.", labels=("process",))
    running = GaugeMetricFamily("labelloop_process_running", "1 while a role process runs.", labels=("process",))
    for process in processes:
        restarts.add_metric((process.name,), process.restarts)
        running.add_metric((process.name,), process.state == "running")
    yield restarts
    yield running


def _broker_metrics(view: m.BrokerView) -> Iterator[Metric]:
    state = GaugeMetricFamily("labelloop_broker_state", "1 for the state that the broker is in.", labels=("kind", "state"))
    for name in _STATES:
        state.add_metric((view.kind, name), view.state == name)
    yield state
    yield GaugeMetricFamily("labelloop_broker_members", "Members of the broker cluster.", len(view.members))
    yield GaugeMetricFamily("labelloop_broker_running", "Members that run, as seen from here.", len(view.running))
    queues = GaugeMetricFamily("labelloop_queue_messages", "Messages of a queue, ready or being worked on.", labels=("queue",))
    for queue, depth in sorted(view.queues.items()):
        queues.add_metric((queue,), depth)
    yield queues
