"""The wires of a lab: one bridge in a network namespace of its own, one wire to each docker, one to the machine.

Owns all network devices of the lab. Must never change a device, route or rule of the machine itself but the one wire it adds,
which goes when the keeper's namespace does. Called by `lab` and `faults`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence

from cluster.lab.shell import call, succeeds
from labelloop.errors import ConflictError, DeadlineError, InternalError

_NETWORKS = range(1, 255)
_GONE_S = 10.0
BRIDGE = "br0"


def in_bridge(keeper: int, argv: Sequence[str], text: str = "") -> str:
    """Run a program in the bridge's network namespace and return what it prints."""
    return call(["nsenter", "--target", str(keeper), "--net", "--", *argv], text)


def port_of(number: int) -> str:
    """Return the name of the bridge's port to the docker with this last number."""
    return f"p{number}"


def make_bridge(keeper: int) -> tuple[int, str]:
    """Make the bridge and the machine's wire to it; return (third number of the subnet, name of the machine's end).

    A subnet is taken by making the device that is named after it: two labs never get the same. Raises ConflictError.
    """
    network, link = _take_network(keeper)
    in_bridge(
        keeper,
        ["ip", "-batch", "-"],
        f"link set lo up\nlink add {BRIDGE} type bridge forward_delay 0\nlink set {BRIDGE} up\n"
        f"link set host0 master {BRIDGE}\nlink set host0 up\n",
    )
    call(["ip", "-batch", "-"], f"address add 10.77.{network}.1/24 dev {link}\nlink set {link} up\n")
    return network, link


def _take_network(keeper: int) -> tuple[int, str]:
    used = _used_networks()
    first = os.getpid()
    for step in range(len(_NETWORKS)):
        network = _NETWORKS[(first + step) % len(_NETWORKS)]
        link = f"lab-{network}"
        if network in used:
            continue
        try:
            call(["ip", "link", "add", "name", link, "type", "veth", "peer", "name", "host0", "netns", str(keeper)])
        except InternalError:
            if not succeeds(["ip", "link", "show", link]):
                raise
            continue
        return network, link
    raise ConflictError("all subnets 10.77.1.0 to 10.77.254.0 are taken: end a lab with `labelloop lab down`")


def _used_networks() -> set[int]:
    routes = json.loads(call(["ip", "-json", "-4", "route", "show", "table", "all"]) or "[]")
    found = set()
    for route in routes:
        parts = str(route.get("dst", "")).split("/")[0].split(".")
        if parts[:2] == ["10", "77"]:
            found.add(int(parts[2]))
    return found


def plug_in(keeper: int, first: int, number: int) -> None:
    """Lay the wire between the bridge and the docker whose process 1 is `first`; a stale wire of an earlier life goes."""
    port = port_of(number)
    if succeeds(["nsenter", "--target", str(keeper), "--net", "--", "ip", "link", "show", port]):
        in_bridge(keeper, ["ip", "link", "delete", port])
    wire = ["ip", "link", "add", "name", port, "netns", str(keeper), "type", "veth"]
    # the same hardware address in every life: the others still know it
    call([*wire, "peer", "name", "eth0", "address", f"02:4c:41:42:00:{number:02x}", "netns", str(first)])
    in_bridge(keeper, ["ip", "-batch", "-"], f"link set {port} master {BRIDGE}\nlink set {port} up\n")


def await_up(keeper: int, port: str) -> None:
    """Return when the bridge passes frames through a port: the kernel notices a new wire in its own time."""
    until_s = time.monotonic() + _GONE_S
    while json.loads(in_bridge(keeper, ["ip", "-json", "link", "show", port]))[0].get("operstate") != "UP":
        if time.monotonic() > until_s:
            raise DeadlineError(f"the wire {port} does not come up")
        time.sleep(0.02)


def remove_link(link: str) -> None:
    """Return when the machine's own wire is gone: the kernel takes it with the bridge's namespace, in its own time."""
    until_s = time.monotonic() + _GONE_S
    while succeeds(["ip", "link", "show", link]):
        if time.monotonic() > until_s:
            if not succeeds(["ip", "link", "delete", link]):
                raise DeadlineError(f"the device {link} does not go: ip link delete {link}")
            return
        time.sleep(0.02)
