"""Looks at a cluster from where it runs and through the managers' eyes: the exam that the checks judge.

Owns the calls. Must never judge, and never fail because something is broken: what does not answer is part of the exam. Called by
`command`.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from cluster.doctor.exam import Exam, NodeExam, Port, Race
from cluster.doctor.ports import HERE, plan_ports
from cluster.probe import RACE_TIMEOUT_S, certificate_end_s, try_ports
from labelloop import messages as m
from labelloop.clients import ManagerClient, RegistryClient
from labelloop.errors import LabelloopError
from labelloop.settings import Settings
from labelloop.tls import Identity

ANSWER_S = 5.0
PROBE_S = 60.0
SETTLE_S = 2.0  # between two looks at the queues
RACE_ROUNDS = 1000
_MOST_CALLS = 32

T = TypeVar("T")
LocalProbe = Callable[[m.ProbeRequest], m.ProbeReply]


class Looker(msgspec.Struct, frozen=True, kw_only=True):
    """Who looks: the identity to call under, and a way to look around without a manager for the node `here` ('' = no node)."""

    identity: Identity
    settings: Settings
    here: str = ""
    probe_here: LocalProbe | None = None


def look_at_registry(looker: Looker, address: str) -> Exam:
    """Return what the registry says; when it does not answer, an exam without nodes that says why."""
    exam = Exam(now_s=time.time(), registry=address, identity_end_s=certificate_end_s(looker.identity.certificate_file))
    once = msgspec.structs.replace(looker.settings.wire, retries=0)
    try:
        with contextlib.closing(RegistryClient(address, looker.identity, once)) as client:
            cluster, topology = client.nodes(deadline_s=ANSWER_S), client.topology(deadline_s=ANSWER_S)
    except LabelloopError as exc:
        return msgspec.structs.replace(exam, registry_trouble=f"{exc.code}: {exc}")
    nodes = tuple(
        NodeExam(
            hostname=view.status.hostname,
            ip=view.status.ip,
            port=view.status.port,
            status=view.status,
            is_alive=view.is_alive,
            is_draining=view.is_draining,
            silent_s=view.age_s,
        )
        for view in cluster.nodes
    )
    return msgspec.structs.replace(exam, cluster=cluster, warnings=topology.warnings, nodes=nodes)


def look_closer(exam: Exam, looker: Looker, has_race: bool = True) -> Exam:
    """Return `exam` with every node asked: its status, its probe of itself and the others, a race, and a second look at queues."""
    nodes = _all(exam.nodes, lambda node: _ask_status(node, looker))
    ports = plan_ports(nodes, _public(exam.registry, nodes), looker.settings.broker)
    own_ports = try_ports([port.address for port in ports if HERE in port.sources])
    nodes = _all(nodes, lambda node: _ask_probe(node, _request(ports, node.hostname), looker))
    asked_s = time.monotonic()
    races = _race(nodes, looker) if has_race else ()
    time.sleep(max(0.0, SETTLE_S - (time.monotonic() - asked_s)))
    nodes = _all(nodes, lambda node: _ask_again(node, looker))
    return msgspec.structs.replace(exam, nodes=nodes, ports=ports, own_ports=own_ports, races=races)


def _all(nodes: Sequence[NodeExam], ask: Callable[[NodeExam], T]) -> tuple[T, ...]:
    with ThreadPoolExecutor(max_workers=max(1, min(_MOST_CALLS, len(nodes)))) as pool:
        return tuple(pool.map(ask, nodes))


def _client(node: NodeExam, looker: Looker) -> contextlib.closing[ManagerClient]:
    once = msgspec.structs.replace(looker.settings.wire, retries=0)
    return contextlib.closing(ManagerClient(node.address, looker.identity, once))


def _ask_status(node: NodeExam, looker: Looker) -> NodeExam:
    """Ask twice: the first call pays for the handshake, the second measures the clock."""
    try:
        with _client(node, looker) as client:
            client.status(deadline_s=ANSWER_S)
            before_s, started_s = time.time(), time.monotonic()
            status = client.status(deadline_s=ANSWER_S)
            rtt_s = time.monotonic() - started_s
    except LabelloopError as exc:
        return msgspec.structs.replace(node, trouble=f"{exc.code}: {exc}")
    if status.hostname != node.hostname:
        return msgspec.structs.replace(node, trouble=f"conflict: {node.address} answers as {status.hostname!r}")
    if not status.clock_s:
        return msgspec.structs.replace(node, status=status)
    return msgspec.structs.replace(node, status=status, rtt_s=rtt_s, offset_s=status.clock_s - (before_s + rtt_s / 2))


def _ask_again(node: NodeExam, looker: Looker) -> NodeExam:
    if not node.is_answering:
        return node
    with contextlib.suppress(LabelloopError), _client(node, looker) as client:
        return msgspec.structs.replace(node, later=client.status(deadline_s=ANSWER_S))
    return node


def _request(ports: Sequence[Port], hostname: str) -> m.ProbeRequest:
    addresses = tuple(dict.fromkeys(port.address for port in ports if hostname in port.sources))
    return m.ProbeRequest(addresses=addresses, is_datastore_tried=True)


def _ask_probe(node: NodeExam, request: m.ProbeRequest, looker: Looker) -> NodeExam:
    try:
        if node.is_answering:
            with _client(node, looker) as client:
                return msgspec.structs.replace(node, probe=client.probe(request, deadline_s=PROBE_S))
        if node.hostname == looker.here and looker.probe_here is not None:
            return msgspec.structs.replace(node, probe=looker.probe_here(request))
    except LabelloopError as exc:
        return msgspec.structs.replace(node, probe_trouble=f"{exc.code}: {exc}")
    return node


def _race(nodes: Sequence[NodeExam], looker: Looker) -> tuple[Race, ...]:
    """Let all nodes whose datastore can be used race against each other; nothing to learn from fewer than two."""
    fit = [n for n in nodes if n.is_answering and n.probe is not None and not n.probe.datastore and not n.probe.habits]
    names = tuple(sorted(node.hostname for node in fit))
    if len(names) < 2:
        return ()
    request = m.ProbeRequest(race=secrets.token_hex(8), contestants=names, rounds=RACE_ROUNDS)
    replies = _all(fit, lambda node: _enter(node, request, looker))
    troubles = sorted({reply if isinstance(reply, str) else reply.race_trouble for reply in replies} - {""})
    wins = {
        "mkdir": tuple(reply.claimed for reply in replies if not isinstance(reply, str)),
        "O_EXCL": tuple(reply.created for reply in replies if not isinstance(reply, str)),
    }
    return (Race(contestants=names, rounds=RACE_ROUNDS, trouble="; ".join(troubles), wins=wins),)


def _enter(node: NodeExam, request: m.ProbeRequest, looker: Looker) -> m.ProbeReply | str:
    try:
        with _client(node, looker) as client:
            return client.probe(request, deadline_s=RACE_TIMEOUT_S + ANSWER_S)
    except LabelloopError as exc:
        return f"{node.hostname}: {exc.code}: {exc}"


def _public(registry: str, nodes: Sequence[NodeExam]) -> str:
    """Return the registry's address, '' when it is our own loopback, which means another machine on the nodes."""
    is_here_only = registry.startswith(("127.", "[::1]"))
    return "" if is_here_only and not all(node.ip.startswith("127.") for node in nodes) else registry
