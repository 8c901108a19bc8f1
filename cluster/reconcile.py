"""What the registry does next: one pure decision from what is wanted and what is seen.

Must never call anybody or look at a clock. Called by `cluster.steward` each cycle. Level-triggered: the view is made afresh
every time, so a cycle that was missed or failed is simply decided again.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import msgspec

from cluster.election import ip_order
from labelloop.messages import BrokerView, MachineInfo, Role

DRAIN_LEAST_S = 3.0  # callers look at the topology every two seconds


class Action(Enum):
    """`ORDER_ALL` opens a new epoch; `ORDER_SOME` repeats the present one to nodes that lag; `RELEASE` takes roles away."""

    WAIT = "wait"
    LEARN = "learn"
    ORDER_ALL = "order-all"
    ORDER_SOME = "order-some"
    RELEASE = "release"
    KEEP = "keep"


class NodeSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A node by its last heartbeat; `age_s` since then, `work` what its processes say they are at ('' = nothing)."""

    hostname: str
    ip: str
    port: int
    age_s: float
    role: str = ""
    epoch: int = 0
    work: str = ""
    broker: BrokerView = BrokerView()


class View(msgspec.Struct, frozen=True, kw_only=True):
    """All that a decision rests on.

    `wanted`: hostname → role. `ordered`: the machines that all agreed to be good when `epoch` was ordered; `attempted`: those that
    it was ordered to, None = no order since this registry started. `drained`: who shall be drained now, `ordered_drained`: who is
    by the last order. `busy`: an order of this epoch is in flight to them. `look_until_s`: nodes not seen yet count as unknown
    until then, not as dead.
    `retry_at_s`: when to order again after nodes disagreed; `node_retry_at_s`: when a node that failed may be asked again;
    `failure`: why. `survivors`: who shall form the broker cluster anew now, and `loss` why.
    """

    wanted: dict[str, Role]
    nodes: tuple[NodeSeen, ...] = ()
    epoch: int = 0
    ordered: tuple[MachineInfo, ...] = ()
    attempted: tuple[MachineInfo, ...] | None = None
    drained: tuple[str, ...] = ()
    ordered_drained: tuple[str, ...] = ()
    busy: frozenset[str] = frozenset()
    is_confirmed: bool = True
    dead_after_s: float = 5.0
    look_until_s: float = 0.0
    retry_at_s: float = 0.0
    node_retry_at_s: dict[str, float] = {}
    failure: str = ""
    survivors: tuple[str, ...] = ()
    loss: str = ""


def alive_wanted(view: View) -> tuple[MachineInfo, ...]:
    """Return the wanted machines that heartbeat, lowest IP first."""
    found = [
        MachineInfo(hostname=node.hostname, ip=node.ip, port=node.port, type=view.wanted[node.hostname])
        for node in view.nodes
        if node.hostname in view.wanted and node.age_s < view.dead_after_s
    ]
    return tuple(sorted(found, key=lambda m: ip_order(m.ip)))


def lagging(view: View) -> tuple[str, ...]:
    """Return the live wanted nodes that have not applied the present epoch or hold another role, by name."""
    return tuple(
        sorted(
            node.hostname
            for node in view.nodes
            if node.age_s < view.dead_after_s
            and node.hostname in view.wanted
            and (node.epoch != view.epoch or node.role != view.wanted[node.hostname])
        )
    )


def unwanted(view: View) -> tuple[str, ...]:
    """Return the live nodes that hold a role nobody wants of them any more, by name."""
    return tuple(sorted(n.hostname for n in view.nodes if n.role and n.hostname not in view.wanted and n.age_s < view.dead_after_s))


def due(view: View, names: Iterable[str], now_s: float) -> tuple[str, ...]:
    """Return those of `names` that may be asked now: nothing in flight to them, no pause after a failure."""
    return tuple(name for name in names if name not in view.busy and now_s >= view.node_retry_at_s.get(name, 0.0))


def next_action(view: View, now_s: float) -> tuple[Action, str]:
    """Return what to do and why. `now_s` monotonic seconds."""
    seen_epoch = max((node.epoch for node in view.nodes), default=0)
    if seen_epoch > view.epoch or not view.is_confirmed:
        ahead = next((node.hostname for node in view.nodes if node.epoch == seen_epoch), "a node")
        return Action.LEARN, (
            f"{ahead} knows epoch {seen_epoch}, this registry {view.epoch}: "
            "it learns from heartbeats and gives no order until `labelloop confirm`"
        )
    if not view.wanted:
        surplus = due(view, unwanted(view), now_s)
        if surplus:
            return Action.RELEASE, f"{', '.join(surplus)} not wanted any more"
        return Action.WAIT, f"{len(view.nodes)} nodes seen, no roles wanted yet: `labelloop form --train N --inference N`"
    return _next_order(view, now_s)


def _next_order(view: View, now_s: float) -> tuple[Action, str]:
    alive = alive_wanted(view)
    missing = sorted(set(view.wanted) - {machine.hostname for machine in alive})
    if missing and now_s < view.look_until_s:
        return Action.WAIT, f"first look round, {', '.join(missing)} not heard of yet"
    if not alive:
        return Action.WAIT, f"none of the wanted nodes is alive: {', '.join(missing)}"
    news = _change(view, view.ordered if view.attempted is None else view.attempted, alive)
    if news or view.survivors:
        return Action.ORDER_ALL, "; ".join(filter(None, [news, view.loss]))
    return _mend(view, alive, now_s)


def _mend(view: View, alive: tuple[MachineInfo, ...], now_s: float) -> tuple[Action, str]:
    """Return what to do where everything wanted was ordered once: repeat what failed, or nothing."""
    quarrel = _change(view, view.ordered, alive)
    late, surplus = lagging(view), unwanted(view)
    if not quarrel and not late and not surplus and not view.busy:  # a node says it took an order before it has applied it
        return Action.KEEP, f"{len(alive)} of {len(view.wanted)} nodes as wanted in epoch {view.epoch}"
    if quarrel and now_s >= view.retry_at_s and not view.busy:
        return Action.ORDER_ALL, f"again: {quarrel}"
    late_due, surplus_due = due(view, late, now_s), due(view, surplus, now_s)
    if late_due:
        return Action.ORDER_SOME, f"{', '.join(late_due)} not in epoch {view.epoch} yet"
    if surplus_due:
        return Action.RELEASE, f"{', '.join(surplus_due)} not wanted any more"
    if view.busy:
        return Action.WAIT, f"{', '.join(sorted(view.busy))} at work on the order of epoch {view.epoch}"
    return Action.WAIT, f"pause after a failed order: {view.failure or quarrel or ', '.join(late or surplus)}"


def _change(view: View, before: tuple[MachineInfo, ...], alive: tuple[MachineInfo, ...]) -> str:
    """Return in words how the live machines differ from `before`; '' when they do not."""
    olds = {machine.hostname: machine for machine in before}
    news = {machine.hostname: machine for machine in alive}
    words = []
    for name in sorted(olds.keys() | news.keys()):
        old, new = olds.get(name), news.get(name)
        if old is None:
            words.append(f"{name} is there")
        elif new is None:
            words.append(f"{name} is dead" if name in view.wanted else f"{name} is not wanted any more")
        elif old.type != new.type:
            words.append(f"{name} becomes {new.type}")
        elif (old.ip, old.port) != (new.ip, new.port):
            words.append(f"{name} moved to {new.ip}:{new.port}")
    drained, was_drained = set(view.drained) & news.keys(), set(view.ordered_drained) & news.keys()
    words += [f"{name} is drained" for name in sorted(drained - was_drained)]
    words += [f"{name} works again" for name in sorted(was_drained - drained)]
    return ", ".join(words)


# ------------------------------------------------------------ draining


class Drain(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a draining node may stop its role processes now, and why (not)."""

    is_over: bool
    reason: str


def drain_of(node: NodeSeen, waited_s: float, patience_s: float, dead_after_s: float) -> Drain:
    """Return how far a draining node is, `waited_s` after it was asked.

    An inference node is out of the topology from the first moment and stops when nothing is running on it and callers have had
    the time to look elsewhere. A train node stops between two trainings; the train master takes labels in until then, as there
    is no other door for them, and the next lowest IP takes over when it stops. After `patience_s` it stops all the same: a
    training goes on elsewhere from its last checkpoint and queued work is delivered again, so nothing is lost by it.
    """
    if node.age_s >= dead_after_s:
        return Drain(is_over=True, reason="it is dead")
    if node.work and waited_s < patience_s:
        return Drain(is_over=False, reason=f"waiting for its work to end: {node.work}")
    if node.work:
        return Drain(is_over=True, reason=f"its work has not ended in {patience_s:.0f} s and goes on elsewhere: {node.work}")
    if node.role == "inference" and waited_s < min(DRAIN_LEAST_S, patience_s):
        return Drain(is_over=False, reason="waiting for callers to look elsewhere")
    return Drain(is_over=True, reason="no work is running on it")
