"""What a node does about the inference cluster of brokers: one pure decision from what the good machines say.

Owns the rules by which a cluster neither splits nor hurts itself: the living cluster wins, its running members are never
stopped or reset, whoever is outside joins it, and a new one is founded only where none lives. Must never talk to a broker or a
peer: `cluster.member` does what comes out of here, then looks and asks again, so a step that was lost is simply decided anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import msgspec

from cluster.election import ip_order
from labelloop.messages import BrokerView

FAILED_STARTS = 2


class Action(Enum):
    """`KEEP`: this node is a running member. `ADOPT`: it is one already and only its own record does not say so yet. `START` waits
    for a broker that runs and ends it when it stays silent.

    `RESTART` ends a broker that the others dropped and that has not noticed, or that stays paused though they reach it; nothing is
    emptied, and `START` follows.
    `REJOIN` is `JOIN` after the cluster forgot this node's earlier life. `RESET_AND_FORM`: the majority is lost and this node is
    among the survivors that begin anew; when it is empty, `FOUND` or `JOIN` follow.
    """

    KEEP = "keep"
    ADOPT = "adopt"
    WAIT = "wait"
    START = "start"
    RESTART = "restart"
    FOUND = "found"
    JOIN = "join"
    REJOIN = "rejoin"
    RESET_AND_FORM = "reset-and-form"


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A good machine of role inference and what its manager says of its broker."""

    hostname: str
    ip: str
    broker: BrokerView
    erlang_hash: str = ""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """All that a decision rests on; `machines` includes this node, `me`.

    `survivors`: who forms anew after a lost majority. `unheard`: inference machines that may hold a living cluster and did not
    answer; none inside an order, whose silent machines are bad. `is_remembered`: the cluster refused the join because it still
    knows an earlier life of this node. `failed_starts`: in a row, of this node's broker. `is_stranded`: `is_cut_off` or
    `is_held_up` has held for longer than a minority takes to pause, or to go on once it is none.
    """

    me: str
    machines: tuple[Seen, ...]
    survivors: tuple[str, ...] = ()
    unheard: tuple[str, ...] = ()
    is_remembered: bool = False
    failed_starts: int = 0
    is_stranded: bool = False

    @property
    def mine(self) -> Seen:
        """Return this node's own entry."""
        return next(machine for machine in self.machines if machine.hostname == self.me)


class Living(msgspec.Struct, frozen=True, kw_only=True):
    """A broker cluster with a running member, as its best informed one tells. `erlang_hash` is of its cookie."""

    cluster: str
    members: tuple[str, ...]
    running: tuple[str, ...]
    teller: str
    erlang_hash: str


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What to do and why.

    `host`: whose manager invites, or who has dropped us; `forgetter`: whose manager strikes our earlier life off.
    """

    action: Action
    reason: str
    host: str = ""
    forgetter: str = ""


def lowest(machines: Iterable[Seen]) -> Seen | None:
    """Return the machine with the lowest IP as a number, None without one."""
    return min(machines, key=lambda machine: ip_order(machine.ip), default=None)


def living_cluster(machines: Iterable[Seen]) -> Living | None:
    """Return the cluster that everyone belongs into, None where none lives: most running members, then the lowest IP.

    A node that lost its disk but not its record tells of the same cluster with fewer members: the best informed one counts.
    """
    tellers = [machine for machine in machines if machine.broker.state == "running" and machine.broker.cluster]
    if not tellers:
        return None
    found: dict[str, list[Seen]] = {}
    for machine in tellers:
        found.setdefault(machine.broker.cluster, []).append(machine)

    def knowledge(machine: Seen) -> tuple[int, int, tuple[int, int]]:
        version, number = ip_order(machine.ip)
        return len(machine.broker.running), len(machine.broker.members), (-version, -number)

    best = [(max(group, key=knowledge), min(ip_order(machine.ip) for machine in group)) for group in found.values()]
    teller, _ = min(best, key=lambda pair: (-len(pair[0].broker.running), pair[1]))
    return Living(
        cluster=teller.broker.cluster,
        members=teller.broker.members,
        running=teller.broker.running,
        teller=teller.hostname,
        erlang_hash=teller.erlang_hash,
    )


def decide(view: View) -> Step:
    """Return what this node does now."""
    living = living_cluster(view.machines)
    if _may_run(view, living):
        return Step(action=Action.START, reason="its broker does not answer now: it may be a running member")
    if living is None:
        return _without_cluster(view)
    return _kept(view, living) or _entering(view, living)


def _may_run(view: View, living: Living | None) -> bool:
    """Return whether this node's broker is silent and may be a running member all the same: such a one is only waited for."""
    mine = view.mine.broker
    if mine.state != "unknown" or (living is not None and _is_cookie_foreign(view, living)):
        return False
    return bool(mine.cluster) or (living is not None and view.me in living.members)


def _kept(view: View, living: Living) -> Step | None:
    """Return the step of a node whose broker is, or may become, what the living cluster takes it for; None = it must enter."""
    mine = view.mine.broker
    connected = _is_connected(view, living)
    if connected and mine.cluster == living.cluster:
        return Step(action=Action.KEEP, reason=f"running member of {living.cluster}, {_of(living)}")
    if connected:
        return _enter(view, living, Action.ADOPT, "is a running member already, its record is behind")
    is_ours = mine.cluster == living.cluster and view.me in living.members and not view.is_remembered
    if not is_ours or _is_cookie_foreign(view, living):
        return None
    if mine.state == "paused":
        return _paused(view, living)
    if mine.state == "running":
        if is_cut_off(view):
            return _cut_off(view, living)
        return None  # runs, is remembered, remembers nobody: its disk was wiped
    if view.failed_starts >= FAILED_STARTS:
        return None
    return Step(action=Action.START, reason=f"a member of {living.cluster} whose broker is {mine.state}")


def _is_connected(view: View, living: Living) -> bool:
    mine = view.mine.broker
    return mine.state == "running" and (living.teller == view.me or bool(set(mine.running) & set(living.running) - {view.me}))


def is_cut_off(view: View) -> bool:
    """Return whether this node's broker runs as a member of the living cluster, with none of those that run there."""
    living, mine = living_cluster(view.machines), view.mine.broker
    if living is None or mine.state != "running" or mine.cluster != living.cluster or _is_connected(view, living):
        return False
    return view.me in living.members and bool(set(mine.members) & set(living.members) - {view.me})


def is_held_up(view: View) -> bool:
    """Return whether this node's broker is paused though the living cluster, which it is a member of, counts it as running."""
    living, mine = living_cluster(view.machines), view.mine.broker
    return living is not None and mine.state == "paused" and mine.cluster == living.cluster and view.me in living.running


def _paused(view: View, living: Living) -> Step:
    """Wait for the network. Where it is whole again and the broker does not go on, its boot waits for a lock of Erlang that was
    lost when the connections came back at the same moment (seen: RabbitMQ 3.10 on Erlang 25); a new start gets it."""
    if view.is_stranded and is_held_up(view):
        why = f"paused though {living.teller} reaches it: starting its broker anew"
        return Step(action=Action.RESTART, reason=why, host=living.teller)
    return Step(action=Action.WAIT, reason=f"paused in a minority, {_of(living)} of {living.cluster} run: waiting for the network")


def _cut_off(view: View, living: Living) -> Step:
    """Wait, as the network may be down; a minority pauses then. One that was frozen finds its connections whole again and does not
    pause, while the others have dropped it for good: only a new start brings it back, from what the majority knows."""
    others = ", ".join(living.running)
    if view.is_stranded and len(living.running) * 2 > len(living.members):
        why = f"dropped by {others}, which go on, and has not paused: starting its broker anew"
        return Step(action=Action.RESTART, reason=why, host=living.teller)
    return Step(action=Action.WAIT, reason=f"cut off from {others}: waiting for the network")


def _entering(view: View, living: Living) -> Step:
    mine = view.mine.broker
    if view.me in living.members or view.is_remembered:
        if _is_cookie_foreign(view, living):
            why = "its cookie is not the cluster's"
        elif view.failed_starts >= FAILED_STARTS and mine.cluster == living.cluster:
            why = f"its broker failed to start {view.failed_starts} times"
        else:
            why = "the cluster knows an earlier life of it"
        return _enter(view, living, Action.REJOIN, why)
    if mine.cluster == living.cluster:
        return _enter(view, living, Action.JOIN, "the cluster has forgotten it")
    return _enter(view, living, Action.JOIN, f"is in {mine.cluster}, which fewer run" if mine.cluster else "is outside")


def _enter(view: View, living: Living, action: Action, why: str) -> Step:
    master = lowest(view.machines)
    inside = [machine for machine in view.machines if machine.hostname in living.running and machine.hostname != view.me]
    forgetter = lowest(inside)
    if forgetter is None or master is None:
        return Step(action=Action.WAIT, reason=f"none of {_of(living)} of {living.cluster} is a good machine: waiting for one")
    host = master if master in inside else forgetter
    return Step(
        action=action,
        reason=f"{view.me} {why}: {action.value} {living.cluster} ({_of(living)}) through {host.hostname}",
        host=host.hostname,
        forgetter=forgetter.hostname,
    )


def _without_cluster(view: View) -> Step:
    """Return the step where no good machine reports a living cluster."""
    mine = view.mine.broker
    founders = [machine for machine in view.machines if machine.hostname in view.survivors]
    if founders:
        if mine.cluster and view.me in view.survivors:
            return Step(
                action=Action.RESET_AND_FORM, reason=f"the majority of {mine.cluster} is lost, {_names(founders)} begin anew"
            )
        return _first(view, founders)
    if mine.cluster and mine.state == "paused":
        return Step(action=Action.WAIT, reason=f"{mine.cluster} has lost its majority: paused until members or an order come")
    if mine.cluster:
        return Step(action=Action.START, reason=f"a member of {mine.cluster}, which nobody runs")
    asleep = [machine for machine in view.machines if machine.broker.cluster]
    if asleep:
        who = ", ".join(f"{machine.hostname} ({machine.broker.cluster}, {machine.broker.state})" for machine in asleep)
        return Step(action=Action.WAIT, reason=f"a cluster is there but does not run: {who}")
    if view.unheard:
        return Step(action=Action.WAIT, reason=f"{', '.join(view.unheard)} may run a cluster and cannot be asked")
    return _first(view, view.machines)


def _first(view: View, founders: Iterable[Seen]) -> Step:
    founder = lowest(founders)
    assert founder is not None
    if founder.hostname == view.me:
        return Step(action=Action.FOUND, reason=f"no cluster lives and {view.me} has the lowest IP of {_names(founders)}")
    return Step(
        action=Action.JOIN,
        reason=f"no cluster lives yet: {founder.hostname} founds it, then it invites",
        host=founder.hostname,
        forgetter=founder.hostname,
    )


def _is_cookie_foreign(view: View, living: Living) -> bool:
    mine = view.mine.erlang_hash
    return bool(mine and living.erlang_hash) and mine != living.erlang_hash


def _of(living: Living) -> str:
    return f"{len(living.running)} of {len(living.members)} members running"


def _names(machines: Iterable[Seen]) -> str:
    return ", ".join(machine.hostname for machine in machines)


# ------------------------------------------------------------ what the lowest running member does for the others


def caretaker(view: BrokerView, machines: Iterable[tuple[str, str]]) -> str:
    """Return the host name that forgets and balances for all: the lowest IP among the running members; '' = nobody may.

    `machines` are (hostname, ip) of the good inference machines. Nobody may without a majority: the cluster could not agree.
    """
    if len(view.running) * 2 <= len(view.members):
        return ""
    inside = [(ip_order(ip), hostname) for hostname, ip in machines if hostname in view.running]
    return min(inside)[1] if inside else ""


def to_forget(view: BrokerView, listed: Iterable[str], dead_s: dict[str, float], forget_after_s: float) -> dict[str, str]:
    """Return the members to strike off, each with the reason.

    `dead_s`: seconds that each member has not run. `listed`: the inference machines of the last order, good or bad; a dead member
    that no order names any more was removed, released or renamed and is not waited for. Empty = not known.
    """
    known = set(listed)
    found = {}
    for name in view.members:
        if name in view.running or name not in dead_s:
            continue
        if known and name not in known:
            found[name] = "does not run and no order names it any more"
        elif dead_s[name] >= forget_after_s:
            found[name] = f"has not run for {dead_s[name]:.0f} s while the rest holds a majority"
    return found
