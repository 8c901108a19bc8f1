"""What the registry does next: one pure decision from what is wanted and what is seen.

Must never call anybody or look at a clock. Called by `cluster.registry` each cycle. Level-triggered: the view is made afresh
every time, so a cycle that was missed or failed is simply decided again.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from cluster.election import ip_order
from labelloop.messages import MachineInfo, Role


class Action(Enum):
    """`ORDER_ALL` opens a new epoch; `ORDER_SOME` repeats the present one to nodes that lag; `RELEASE` takes roles away."""

    WAIT = "wait"
    LEARN = "learn"
    ORDER_ALL = "order-all"
    ORDER_SOME = "order-some"
    RELEASE = "release"
    KEEP = "keep"


class NodeSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A node by its last heartbeat; `age_s` since then."""

    hostname: str
    ip: str
    port: int
    age_s: float
    role: str = ""
    epoch: int = 0


class View(msgspec.Struct, frozen=True, kw_only=True):
    """All that a decision rests on.

    `wanted`: hostname → role. `ordered`: the machines that were good when `epoch` was ordered. `look_until_s`: nodes not seen yet
    count as unknown until then, not as dead. `retry_at_s` and `failure`: when, and why, after a failed order.
    """

    wanted: dict[str, Role]
    nodes: tuple[NodeSeen, ...] = ()
    epoch: int = 0
    ordered: tuple[MachineInfo, ...] = ()
    is_confirmed: bool = True
    dead_after_s: float = 5.0
    look_until_s: float = 0.0
    retry_at_s: float = 0.0
    failure: str = ""


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


def next_action(view: View, now_s: float) -> tuple[Action, str]:
    """Return what to do and why. `now_s` monotonic seconds."""
    seen_epoch = max((node.epoch for node in view.nodes), default=0)
    if seen_epoch > view.epoch or not view.is_confirmed:
        ahead = next((node.hostname for node in view.nodes if node.epoch == seen_epoch), "a node")
        return Action.LEARN, (
            f"{ahead} knows epoch {seen_epoch}, this registry {view.epoch}: "
            "it learns from heartbeats and gives no order until `labelloop form` confirms"
        )
    if not view.wanted:
        return Action.WAIT, f"{len(view.nodes)} nodes seen, no roles wanted yet: `labelloop form --train N --inference N`"
    return _next_order(view, now_s)


def _next_order(view: View, now_s: float) -> tuple[Action, str]:
    alive = alive_wanted(view)
    missing = sorted(set(view.wanted) - {machine.hostname for machine in alive})
    if missing and now_s < view.look_until_s:
        return Action.WAIT, f"first look round, {', '.join(missing)} not heard of yet"
    if not alive:
        return Action.WAIT, f"none of the wanted nodes is alive: {', '.join(missing)}"
    change = _change(view, alive)
    late = lagging(view)
    surplus = unwanted(view)
    if not change and not late and not surplus:
        return Action.KEEP, f"{len(alive)} of {len(view.wanted)} nodes as wanted in epoch {view.epoch}"
    if now_s < view.retry_at_s:
        return Action.WAIT, f"pause after a failed order: {view.failure or change or ', '.join(late or surplus)}"
    if change:
        return Action.ORDER_ALL, change
    if late:
        return Action.ORDER_SOME, f"{', '.join(late)} not in epoch {view.epoch} yet"
    return Action.RELEASE, f"{', '.join(surplus)} not wanted any more"


def _change(view: View, alive: tuple[MachineInfo, ...]) -> str:
    """Return in words how the live machines differ from those last ordered; '' when they do not."""
    before = {machine.hostname: machine for machine in view.ordered}
    after = {machine.hostname: machine for machine in alive}
    words = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None:
            words.append(f"{name} is there")
        elif new is None:
            words.append(f"{name} is dead" if name in view.wanted else f"{name} is not wanted any more")
        elif old.type != new.type:
            words.append(f"{name} becomes {new.type}")
        elif (old.ip, old.port) != (new.ip, new.port):
            words.append(f"{name} moved to {new.ip}:{new.port}")
    return ", ".join(words)
