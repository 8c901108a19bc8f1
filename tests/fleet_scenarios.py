"""Fleets of simulated brokers in every state an order may find them in, and how they come to rest.

Called by the tests of membership.
"""

from __future__ import annotations

from collections.abc import Callable

from labelloop.errors import LabelloopError
from tests.simulated_fleet import Crash, Fleet, SimBroker

NAMES = ("a", "b", "c", "d")


def formed(seed: int = 0, names: tuple[str, ...] = NAMES) -> Fleet:
    """Return a fleet that is one cluster, with two messages in it."""
    fleet = Fleet(names, seed)
    fleet.order()
    fleet.run()
    fleet.publish(names[0], "m1", "m2")
    return fleet


def _one_wiped(name: str) -> Callable[[int], Fleet]:
    def make(seed: int) -> Fleet:
        fleet = formed(seed)
        fleet.wipe(name)
        return fleet

    return make


def _fresh(seed: int) -> Fleet:
    return Fleet(NAMES, seed)


def _lower_ip_added(seed: int) -> Fleet:
    fleet = Fleet((), seed)
    for number, name in enumerate("bcd", start=2):
        fleet.add(name, number)
    fleet.order()
    fleet.run()
    fleet.publish("b", "m1", "m2")
    fleet.add("a", 1)
    return fleet


def _cookie_changed(seed: int) -> Fleet:
    fleet = formed(seed)
    broker = fleet.brokers["c"]
    broker.stop()
    broker.cookie = "changed by hand"
    fleet.violations.clear()
    return fleet


def _renamed(name: str) -> Callable[[int], Fleet]:
    def make(seed: int) -> Fleet:
        fleet = formed(seed)
        fleet.rename(name, f"{name}2")
        return fleet

    return make


def _half_joined(step: int) -> Callable[[int], Fleet]:
    def make(seed: int) -> Fleet:
        fleet = Fleet(NAMES[:3], seed)
        fleet.order()
        fleet.run()
        fleet.publish("a", "m1", "m2")
        fleet.add("d")
        fleet.order()
        fleet.fuse = step
        fleet.advance("d")
        fleet.fuse = -1
        return fleet

    return make


def _forgotten_while_down(seed: int) -> Fleet:
    fleet = formed(seed)
    fleet.brokers["d"].is_up = False
    fleet.brokers["a"].forget("d")
    return fleet


def _split_in_two(seed: int) -> Fleet:
    """Two nodes that saw different good lists founded two clusters."""
    fleet = Fleet(NAMES, seed)
    fleet.order(views={"a": "ab", "b": "ab", "c": "cd", "d": "cd"})
    for _ in range(20):
        for name in NAMES:
            fleet.advance(name)
    assert len(fleet.living()) == 2
    return fleet


def _all_down(seed: int) -> Fleet:
    fleet = formed(seed)
    for broker in fleet.brokers.values():
        broker.is_up = False
    return fleet


SCENARIOS: dict[str, Callable[[int], Fleet]] = {
    "fresh": _fresh,
    "already members": formed,
    "a member whose disk was wiped": _one_wiped("c"),
    "a wiped master": _one_wiped("a"),
    "a lower IP is added while messages are queued": _lower_ip_added,
    "a changed cookie": _cookie_changed,
    "a renamed host": _renamed("c"),
    "a renamed master": _renamed("a"),
    "forgotten while it was down": _forgotten_while_down,
    "two nodes saw different good lists": _split_in_two,
    "all brokers are down": _all_down,
    **{f"a join half finished at {step}": _half_joined(step) for step in range(6)},
}


def messages(broker: SimBroker) -> set[str]:
    """Return the messages that a broker holds."""
    assert broker.database is not None
    return set(broker.database.messages)


def settle(fleet: Fleet, rounds: int = 40) -> None:
    """Work until all keep; members that no order names are struck off by upkeep, as the daemon's loop does it."""
    for _ in range(rounds):
        for name in list(fleet.managers):
            fleet.advance(name)
            manager = fleet.managers[name]
            try:
                manager.member.tend(manager.circle)
            except (LabelloopError, Crash):
                continue
        if fleet.is_whole():
            break
    fleet.fuse = -1
    fleet.run()
