"""What is wrong with the cluster, as sentences that each name a way out.

Owns the sentences. Pure: it judges the last reading and asks nobody. Called by `webapp.admin.cluster`.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from labelloop import messages as m

READING_OLD_S = 15.0


class Reading(msgspec.Struct, frozen=True):
    """What the registry last said: nodes from their heartbeats, where to call, its last actions (the newest last)."""

    nodes: m.NodesReply
    topology: m.Topology
    actions: tuple[m.Action, ...] = ()


class Trouble(msgspec.Struct, frozen=True):
    """One thing that is missing or broken, and what to do; `node` '' = it is no node's own."""

    sentence: str
    way_out: str
    node: str = ""


def find_troubles(reading: Reading | None, problem: str, age_s: float) -> tuple[Trouble, ...]:
    """Return what is wrong, the worst first; `problem` is why there is no newer reading, `age_s` how old this one is."""
    return tuple(_whole(reading, problem, age_s)) + (tuple(_each(reading, age_s)) if reading else ())


def _whole(reading: Reading | None, problem: str, age_s: float) -> Iterator[Trouble]:
    if problem:
        yield Trouble(f"the registry does not answer: {problem}", "start `labelloop registry` again; labels wait here until then")
    if reading is None:
        if not problem:
            yield Trouble("nothing has been heard of the cluster yet", "start `labelloop pilot` with --registry")
        return
    if age_s > READING_OLD_S and not problem:
        yield Trouble(f"the last reading of the cluster is {age_s:.0f} s old", "start `labelloop pilot` with --registry")
    if reading.nodes.state == "learning":
        why = "it waits for a person to confirm what it learned"
        yield Trouble(f"the registry has lost its state: {why}", "look at `labelloop nodes`, then run `labelloop confirm`")
    if not reading.topology.train_rpc:
        yield Trouble("no train worker is online, so no label is learned", "boot a node, then `labelloop assign NODE=train`")
    if not reading.topology.inference_rpc:
        text = "no inference worker is online, so there are no new drafts"
        yield Trouble(text, "boot a node, then `labelloop assign NODE=inference`")


def _each(reading: Reading, age_s: float) -> Iterator[Trouble]:
    queues: dict[str, tuple[int, int | None]] = {}
    for view in reading.nodes.nodes:
        name = view.status.hostname
        if not view.is_alive:
            sentence = f"node {name} has been silent for {view.age_s + age_s:.0f} s"
            yield Trouble(sentence, f"boot it again, or `labelloop remove {name}` if it is gone for good", name)
            continue
        yield from _of_node(view.status)
        for queue, n in view.status.broker.queues.items():
            queues[queue] = (n, view.status.broker.consumers.get(queue))
    yield from _of_queues(queues)


def _of_node(status: m.NodeStatus) -> Iterator[Trouble]:
    name, broker = status.hostname, status.broker
    if status.datastore:
        yield Trouble(f"node {name} cannot use the datastore: {status.datastore}", f"mount it on {name} again", name)
    if status.role and broker.state in ("paused", "stopped"):
        why = f": {broker.reason}" if broker.reason else ""
        yield Trouble(f"the broker of node {name} is {broker.state}{why}", f"run `labelloop doctor`, then look at {name}", name)
    for process in status.processes:
        if process.state in ("backing-off", "stopped") and process.reason:
            sentence = f"{process.name} on node {name} does not run: {process.reason}"
            yield Trouble(sentence, f"read `labelloop logs {name} {process.name}`", name)


def _of_queues(queues: dict[str, tuple[int, int | None]]) -> Iterator[Trouble]:
    for queue, (n, consumers) in sorted(queues.items()):
        if n and queue.endswith(".dead"):
            sentence = f"{n} messages in {queue} were delivered too often without an answer"
            yield Trouble(sentence, "read the letters below; `labelloop doctor` says more")
        elif n and consumers == 0:
            yield Trouble(f"nobody fetches from queue {queue}, where {n} messages wait", "start a worker of its role")
