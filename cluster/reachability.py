"""Which machines answer: one ping of every manager, all at once.

Owns the pings of `initial` and nothing after them. Must never change anything anywhere. Called by the manager.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from labelloop.clients import ManagerClient
from labelloop.errors import LabelloopError
from labelloop.messages import BadMachine, Empty, MachineInfo, NodeStatus
from labelloop.settings import WireSettings
from labelloop.tls import Identity
from labelloop.wire import Client

_MOST_PINGS = 64
_POLL_S = 0.02
_PING_S = 2.0

Ping = Callable[[MachineInfo], NodeStatus]


def make_ping(identity: Identity, settings: WireSettings, timeout_s: float) -> Ping:
    """Return a ping: one `status` call to the machine's manager, within `timeout_s` and without retries."""

    def ping(machine: MachineInfo) -> NodeStatus:
        with contextlib.closing(ManagerClient(address_of(machine), identity, settings)) as client:
            return client.status(Empty(), deadline_s=timeout_s)

    return ping


def address_of(machine: MachineInfo) -> str:
    """Return 'host:port' of a machine's manager, an IPv6 address in brackets."""
    return f"[{machine.ip}]:{machine.port}" if ":" in machine.ip else f"{machine.ip}:{machine.port}"


def split_machines(
    machines: Sequence[MachineInfo], me: str, ping: Ping
) -> tuple[tuple[MachineInfo, ...], tuple[BadMachine, ...], dict[str, NodeStatus]]:
    """Return (good, bad with reasons, what the good others said), in the order of `machines`; `me` is good without a ping."""
    others = [machine for machine in machines if machine.hostname != me]
    with ThreadPoolExecutor(max_workers=max(1, min(_MOST_PINGS, len(others)))) as pool:
        answers = dict(zip((m.hostname for m in others), pool.map(lambda m: _try(ping, m), others), strict=True))
    good: list[MachineInfo] = []
    bad: list[BadMachine] = []
    said: dict[str, NodeStatus] = {}
    for machine in machines:
        answer = answers.get(machine.hostname, "")
        if isinstance(answer, NodeStatus):
            said[machine.hostname] = answer
        if isinstance(answer, str) and answer:
            bad.append(BadMachine(machine=machine, reason=answer))
        else:
            good.append(machine)
    return tuple(good), tuple(bad), said


def _try(ping: Ping, machine: MachineInfo) -> NodeStatus | str:
    try:
        status = ping(machine)
    except LabelloopError as exc:
        return f"{exc.code}: {exc}"
    if status.hostname != machine.hostname:
        return f"{address_of(machine)} answers as {status.hostname!r}"
    return status


def wait_for_rpc(address: str, service: str, identity: Identity, settings: WireSettings, timeout_s: float) -> str:
    """Return '' once `service` answers a ping at `address`, or why it did not within `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    with contextlib.closing(Client(address, service, identity, settings)) as client:
        while True:
            try:
                client.ping(deadline_s=_PING_S)
                return ""
            except LabelloopError as exc:
                if time.monotonic() >= deadline_s:
                    return f"{exc.code}: {exc}"
                time.sleep(_POLL_S)
