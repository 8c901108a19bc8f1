"""When a cluster counts as whole again: a pure decision over what the registry and the brokers say.

Owns the rule, and gives its reason. Must never ask anything itself. Called by `scripts.chaos.trial` and the benchmarks of recovery
and forming.
"""

from __future__ import annotations

from collections.abc import Mapping

from labelloop.messages import NodesReply, NodeStatus, Role

MOST_REPLICAS = 3  # five from five members on: see `Broker.balance`


def wanted_replicas(n_members: int) -> int:
    """Return how many replicas each shared queue must have in a broker cluster of `n_members`."""
    return 5 if n_members >= 5 else min(MOST_REPLICAS, n_members)


def why_not_whole(reply: NodesReply, wanted: Mapping[str, Role]) -> str:
    """Return what is missing for all of `wanted` (host name → role) to be up in the registry's epoch; '' = whole."""
    if reply.state != "running":
        return f"the registry is {reply.state}: {reply.last_reason}"
    nodes = {view.status.hostname: view for view in reply.nodes}
    for name, role in sorted(wanted.items()):
        view = nodes.get(name)
        if view is None or not view.is_alive:
            return f"{name} is not alive"
        if trouble := why_not_up(view.status, role, reply.epoch):
            return f"{name}: {trouble}"
    return _why_not_masters(reply, wanted) or _why_not_brokers({n: nodes[n].status for n in wanted}, wanted)


def why_not_up(status: NodeStatus, role: Role, epoch: int) -> str:
    """Return why one node is not up in its role; '' = it is."""
    if (status.role, status.epoch) != (role, epoch):
        return f"is {status.role or 'nothing'} in epoch {status.epoch}, wanted is {role} in epoch {epoch}"
    if status.broker.state != "running":
        return f"its broker is {status.broker.state} {status.broker.reason}".strip()
    if status.datastore:
        return status.datastore
    if not status.processes:
        return "no role process runs"
    late = [f"{process.name} is {process.state}" for process in status.processes if process.state != "running"]
    return ", ".join(late)


def _why_not_masters(reply: NodesReply, wanted: Mapping[str, Role]) -> str:
    for role in sorted(set(wanted.values())):
        masters = [v.status.hostname for v in reply.nodes if v.is_alive and v.status.role == role and v.status.is_master]
        if len(masters) != 1:
            return f"the {role} role has {len(masters)} masters {masters}"
    return ""


def _why_not_brokers(nodes: Mapping[str, NodeStatus], wanted: Mapping[str, Role]) -> str:
    """The brokers of the inference nodes are one cluster with all members running."""
    inference = sorted(name for name, role in wanted.items() if role == "inference")
    for name in inference:
        broker = nodes[name].broker
        if broker.kind != "rabbitmq":
            continue
        if sorted(broker.members) != inference:
            return f"the broker of {name} is in a cluster of {sorted(broker.members)}, wanted are {inference}"
        if sorted(broker.running) != inference:
            return f"the broker of {name} sees only {sorted(broker.running)} run"
    clusters = {nodes[name].broker.cluster for name in inference}
    return f"the inference brokers are in the clusters {sorted(clusters)}" if len(clusters) > 1 else ""


def why_not_replicated(replicas: Mapping[str, int], n_members: int) -> str:
    """Return which shared queue has too few or too many replicas; '' = none. `replicas`: queue → number of running replicas."""
    wanted = wanted_replicas(n_members)
    wrong = {name: n for name, n in sorted(replicas.items()) if n != wanted}
    return ", ".join(f"queue {name} has {n} replicas, wanted are {wanted}" for name, n in wrong.items())
