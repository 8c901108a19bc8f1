"""Which addresses must be reachable from where, and what a shut one means: pure.

Owns the table of ports. Must never open a socket: `cluster.probe` does, on each node and here. Called by `collect` and `report`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cluster.doctor.exam import Exam, Finding, NodeExam, Port, Severity, address_of
from labelloop.settings import BrokerSettings

EPMD_PORT = 4369
HERE = ""
_WHY = {
    "manager": "orders, pings and the way into the broker cluster go through it",
    "train RPC": "labels come in through it",
    "inference RPC": "drafts and ranks are asked for through it",
    "registry": "heartbeats go there: without them the node counts as dead",
    "epmd": "RabbitMQ finds its members through it",
    "Erlang distribution": "the members of the RabbitMQ cluster talk through it",
    "AMQPS": "the data and train workers of the other train nodes fetch their work there",
}


def plan_ports(nodes: Sequence[NodeExam], registry: str, settings: BrokerSettings) -> tuple[Port, ...]:
    """Return what must be reachable between the answering nodes and from here; `registry` '' = leave it out."""
    answering = [node for node in nodes if node.status is not None and node.is_answering]
    names = tuple(node.hostname for node in answering)
    found = [Port(address=n.address, what="manager", hostname=n.hostname, sources=(HERE, *names)) for n in answering]
    for node in answering:
        assert node.status is not None
        if node.status.rpc and node.status.role:
            rpc = Port(
                address=node.status.rpc, what=f"{node.status.role} RPC", hostname=node.hostname, sources=(HERE, node.hostname)
            )
            found.append(rpc)
    if registry:
        found.append(Port(address=registry, what="registry", hostname="", sources=names))
    return (*found, *_broker_ports(answering, settings))


def _broker_ports(nodes: Sequence[NodeExam], settings: BrokerSettings) -> Iterator[Port]:
    """Yield the ports of RabbitMQ: cluster ports among inference nodes, AMQPS of the train master for the other train nodes."""
    inference = [n for n in nodes if _has_rabbitmq(n) and n.status is not None and n.status.role == "inference"]
    names = tuple(node.hostname for node in inference)
    for node in inference:
        yield Port(address=address_of(node.ip, EPMD_PORT), what="epmd", hostname=node.hostname, sources=names)
        distribution = address_of(node.ip, settings.distribution_port)
        yield Port(address=distribution, what="Erlang distribution", hostname=node.hostname, sources=names)
    train = [n for n in nodes if _has_rabbitmq(n) and n.status is not None and n.status.role == "train"]
    for node in train:
        if node.status is not None and node.status.is_master:
            sources = tuple(other.hostname for other in train)
            yield Port(address=address_of(node.ip, settings.amqps_port), what="AMQPS", hostname=node.hostname, sources=sources)


def _has_rabbitmq(node: NodeExam) -> bool:
    return node.status is not None and node.status.broker.kind == "rabbitmq"


def check_ports(exam: Exam) -> Iterator[Finding]:
    """Find addresses that cannot be reached from where they must be, one finding an address."""
    probes = {node.hostname: node.probe.ports for node in exam.nodes if node.probe is not None}
    probes[HERE] = exam.own_ports
    for port in exam.ports:
        outcomes = {s: probes[s][port.address] for s in port.sources if s in probes and port.address in probes[s]}
        shut = {source: why for source, why in outcomes.items() if why}
        if shut and not (port.what == "registry" and exam.registry_trouble):
            yield _finding(port, shut, [source for source in outcomes if source not in shut])


def _finding(port: Port, shut: dict[str, str], is_open_from: list[str]) -> Finding:
    number = port.address.rpartition(":")[2]
    reasons = "; ".join(f"from {_names(sources)}: {why}" for why, sources in _by_reason(shut))
    what = f"{port.what} at {port.address} cannot be reached {reasons}"
    if is_open_from:
        what += f" (from {_names(is_open_from)} it can)"
        way_out = f"open TCP port {number} of {port.hostname or 'the registry'} for {_names(shut)}: firewall, docker network, route"
    else:
        way_out = _start_it(port)
    return Finding(severity=Severity.ERROR, check="port", node=port.hostname, what=what, why=_WHY[port.what], way_out=way_out)


def _start_it(port: Port) -> str:
    match port.what:
        case "epmd" | "Erlang distribution" | "AMQPS":
            return f"its broker listens on another address or is down: `labelloop logs {port.hostname}`, then restart the node"
        case "train RPC" | "inference RPC":
            return f"`labelloop logs {port.hostname} {port.what.replace(' RPC', '-rpc')}` says why it does not listen"
        case "registry":
            return "start it again on its machine: `./start.sh registry`; nodes and calls go on meanwhile"
    return f"open TCP port {port.address.rpartition(':')[2]} of {port.hostname}: firewall, docker network, route"


def _by_reason(shut: dict[str, str]) -> list[tuple[str, list[str]]]:
    found: dict[str, list[str]] = {}
    for source, why in shut.items():
        found.setdefault(why, []).append(source)
    return list(found.items())


def _names(sources: Iterable[str]) -> str:
    return ", ".join(source or "here" for source in sources)
