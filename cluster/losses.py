"""Whether the inference brokers have lost their majority, and who then forms anew: pure, from the broker views in heartbeats.

Must never look at a clock or call anybody; the 30 s are counted by `cluster.steward`. A majority that runs anywhere forbids it,
and so does any broker that runs at all: with `pause_minority` a broker runs only while it sees a majority.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cluster.election import ip_order
from cluster.reconcile import NodeSeen


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """A broker cluster none of whose brokers runs. `survivors`: who could begin anew, lowest IP first."""

    cluster: str
    members: tuple[str, ...]
    survivors: tuple[str, ...]

    @property
    def reason(self) -> str:
        """Return the sentence of the log."""
        return (
            f"broker cluster {self.cluster} lost its majority ({', '.join(self.members)} are its members, none runs): "
            f"{', '.join(self.survivors)} form anew"
        )


def lost_majority(nodes: Sequence[NodeSeen], wanted: Sequence[str], dead_after_s: float) -> Loss | None:
    """Return the loss that the living nodes tell of, None while a broker runs, nothing was formed, or nobody is left to form.

    `wanted`: the inference nodes that may survive (neither removed nor drained).
    """
    alive = [n for n in nodes if n.age_s < dead_after_s and n.broker.kind == "rabbitmq" and n.broker.cluster]
    if not alive or any(node.broker.state == "running" for node in alive):
        return None
    cluster = _largest([[n for n in alive if n.broker.cluster == name] for name in {n.broker.cluster for n in alive}])
    group = _largest(_sides([node for node in cluster if node.hostname in wanted]))
    if not group:
        return None
    members = {name for node in cluster for name in node.broker.members} or set(wanted)
    return Loss(
        cluster=cluster[0].broker.cluster, members=tuple(sorted(members)), survivors=tuple(node.hostname for node in _by_ip(group))
    )


def _by_ip(nodes: Sequence[NodeSeen]) -> list[NodeSeen]:
    return sorted(nodes, key=lambda node: ip_order(node.ip))


def _largest(groups: Sequence[list[NodeSeen]]) -> list[NodeSeen]:
    """Return the group with most nodes, on a tie the one that holds the lowest IP."""
    return min((g for g in groups if g), key=lambda g: (-len(g), ip_order(_by_ip(g)[0].ip)), default=[])


def _sides(nodes: Sequence[NodeSeen]) -> list[list[NodeSeen]]:
    """Return the nodes in groups that see each other; one group when their brokers do not say whom they see."""
    if not any(set(node.broker.running) - {node.hostname} for node in nodes):
        return [list(nodes)]
    left, sides = {node.hostname: node for node in nodes}, []
    while left:
        side, edge = [], [left.pop(min(left))]
        while edge:
            node = edge.pop()
            side.append(node)
            near = [o for o in left.values() if o.hostname in node.broker.running or node.hostname in o.broker.running]
            edge += [left.pop(other.hostname) for other in near]
        sides.append(side)
    return sides
