"""What is wrong with the brokers as seen: cookie, state, members, queues. Pure; called by `report`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from cluster.doctor.exam import Exam, Finding, NodeExam, Severity
from labelloop.messages import BrokerView, NodeStatus

_FEW = 64  # messages that may wait for a consumer or come in between two looks without a word


def check_cookies(exam: Exam) -> Iterator[Finding]:
    """Find inference nodes whose erlang cookie is not the one of most members: they cannot be in one RabbitMQ cluster."""
    held = [s for s in _inference(exam) if s.erlang_hash and s.broker.kind == "rabbitmq"]
    counted = Counter(s.erlang_hash for s in held)
    if len(counted) < 2:
        return
    weight = {h: max(len(s.broker.running) for s in held if s.erlang_hash == h) for h in counted}
    usual = max(counted, key=lambda h: (weight[h], counted[h], h))
    for status in held:
        if status.erlang_hash != usual:
            yield Finding(
                severity=Severity.ERROR,
                check="cookie",
                node=status.hostname,
                what=f"the erlang cookie of {status.hostname} ({status.erlang_hash}) is not that of the others ({usual})",
                why="RabbitMQ members with other cookies refuse each other: its queues have no replicas there",
                way_out="it takes the cluster's cookie when it is ordered to join: `labelloop form`; never copy a cookie by hand",
            )


def check_brokers(exam: Exam) -> Iterator[Finding]:
    """Find brokers that do not run, and inference nodes outside the cluster or in another one."""
    for node in exam.nodes:
        if node.status is None or not node.is_answering or not node.status.role:
            continue
        finding = _state_finding(node.status)
        if finding is not None:
            yield finding
    yield from _outsiders(exam)


def _state_finding(status: NodeStatus) -> Finding | None:
    broker = status.broker
    if broker.state == "running":
        return None
    sentences = {
        "paused": ("is in the smaller part of a partition and has paused", "it goes on by itself once the network is whole again"),
        "stopped": ("does not run", "its manager starts it again; if it stays down, /var/log/rabbitmq there says why"),
        "unknown": ("does not say how it is", "is it still starting? else `labelloop logs` of that node and /var/log/rabbitmq"),
    }
    what, way_out = sentences[broker.state]
    return Finding(
        severity=Severity.WARNING if broker.state == "unknown" else Severity.ERROR,
        check="broker",
        node=status.hostname,
        what=f"the broker of {status.hostname} {what}{f': {broker.reason}' if broker.reason else ''}",
        why="calls to this node answer a retryable error meanwhile; accepted work lies in the datastore",
        way_out=way_out,
    )


def _outsiders(exam: Exam) -> Iterator[Finding]:
    members = [s for s in _inference(exam) if s.broker.kind == "rabbitmq" and s.broker.state == "running"]
    counted = Counter(s.broker.cluster for s in members)
    if len(counted) < 2:
        return
    usual = max(counted, key=lambda c: (c != "", counted[c], c))
    for status in members:
        if status.broker.cluster != usual:
            where = f"in the cluster {status.broker.cluster}" if status.broker.cluster else "outside the cluster"
            yield Finding(
                severity=Severity.ERROR,
                check="broker",
                node=status.hostname,
                what=f"the broker of {status.hostname} is {where}, the others are in {usual or 'none'}",
                why="its workers see none of the work of the others",
                way_out="`labelloop form` orders it to join; its last reason in `labelloop nodes` says what it waits for",
            )


def check_members(exam: Exam) -> Iterator[Finding]:
    """Find members of the RabbitMQ cluster that do not run, and nodes that do not agree on who is a member."""
    views = {s.hostname: s.broker for s in _inference(exam) if s.broker.kind == "rabbitmq" and s.broker.state == "running"}
    usual = _usual_members(views)
    for hostname, broker in views.items():
        if broker.members and set(broker.members) != set(usual):
            yield Finding(
                severity=Severity.WARNING,
                check="members",
                node=hostname,
                what=f"{hostname} counts {_names(broker.members)} as members, the others {_names(usual)}",
                why="a queue may get a replica where nobody is, or lack one",
                way_out="wait half a minute and look again; if it stays, stop and start the docker of that node",
            )
    running = {name for broker in views.values() for name in broker.running}
    for name in sorted({member for broker in views.values() for member in broker.members} - running):
        yield Finding(
            severity=Severity.WARNING,
            check="members",
            node=name,
            what=f"{name} is a member of the RabbitMQ cluster and does not run",
            why="one replica of each queue is missing; with too few members running the cluster pauses",
            way_out="start its docker again; after five minutes the others forget it and it joins anew when it returns",
        )
    for queue in sorted({queue for broker in views.values() for queue in broker.short}):
        hostname = next(name for name, broker in views.items() if queue in broker.short)
        yield Finding(
            severity=Severity.WARNING,
            check="members",
            node=hostname,
            what=f"queue {queue} is not copied yet to a running member that shall hold it",
            why="while it is being copied, the death of one more docker may stop it",
            way_out=f"wait half a minute and look again; if it stays, see `labelloop logs {hostname} --service manager`",
        )


def _usual_members(views: dict[str, BrokerView]) -> tuple[str, ...]:
    counted = Counter(tuple(sorted(broker.members)) for broker in views.values() if broker.members)
    return max(counted, key=lambda members: (counted[members], len(members), members)) if counted else ()


def check_queues(exam: Exam) -> Iterator[Finding]:
    """Find queues without a consumer, queues that grow, and messages that the broker gave up on."""
    seen: set[tuple[str, str]] = set()
    for node in exam.nodes:
        if node.status is None or not node.is_answering or not node.status.role:
            continue
        for queue, count in node.status.broker.queues.items():
            finding = _queue_finding(node, queue, count)
            key = (node.status.broker.cluster or node.hostname, queue)
            if finding is not None and key not in seen:
                seen.add(key)
                yield finding


def _queue_finding(node: NodeExam, queue: str, count: int) -> Finding | None:
    assert node.status is not None
    consumers = node.status.broker.consumers.get(queue)
    later = node.later.broker.queues.get(queue, count) if node.later is not None else count
    if queue.endswith(".dead"):
        return _dead_letters(node.hostname, queue, count) if count else None
    if count and consumers == 0:
        what = f"queue {queue} holds {count} message(s) and nobody consumes it"
        way_out = f"see that the workers of {node.hostname} run: `labelloop status`, `labelloop logs {node.hostname}`"
        return _queue(Severity.ERROR, node.hostname, what, way_out)
    if later - count > _FEW and later > 2 * _FEW:
        what = f"queue {queue} grows: {count} messages, {later} at the second look"
        return _queue(
            Severity.WARNING, node.hostname, what, "more work comes in than is done: add nodes, or wait for the burst to pass"
        )
    return None


def _queue(severity: Severity, node: str, what: str, way_out: str) -> Finding:
    why = "this work waits; nothing of it is lost, as the datastore holds it too"
    return Finding(severity=severity, check="queue", node=node, what=what, why=why, way_out=way_out)


def _dead_letters(node: str, queue: str, count: int) -> Finding:
    return Finding(
        severity=Severity.WARNING,
        check="dead letters",
        node=node,
        what=f"{count} message(s) in {queue} were delivered too often without an answer",
        why="something in them kills its worker; their items are answered as failed",
        way_out=f"`labelloop logs {node}` names the worker that fell; the failed items of the job name the link",
    )


def _inference(exam: Exam) -> list[NodeStatus]:
    return [node.status for node in exam.with_role("inference") if node.status is not None]


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(sorted(names)) or "nobody"
