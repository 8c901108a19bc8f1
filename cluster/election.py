"""Who leads, and which lists of machines are well formed: pure functions over `machines_info`.

Must never touch a socket or file. Called by `cluster.initial` on every node (all must come to the same answer) and by the
registry before it gives an order.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from labelloop.errors import InvalidInputError
from labelloop.ids import parse_node
from labelloop.messages import MachineInfo, Role

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_ip(value: str, is_loopback_allowed: bool) -> Address:
    """Return `value` as a unicast address. Raises InvalidInputError naming it.

    Loopback addresses are nodes of one machine; on several machines each would mean itself, so they are refused there.
    """
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise InvalidInputError(f"ip {value!r} is not an address like 10.0.0.9") from None
    if address.is_multicast or address.is_unspecified or (address.is_reserved and not address.is_loopback):
        raise InvalidInputError(f"ip {value!r} is not a unicast address")
    if address.is_loopback and not is_loopback_allowed:
        raise InvalidInputError(f"ip {value!r} is loopback, but this cluster spans machines: give an address others can reach")
    return address


def ip_order(ip: str) -> tuple[int, int]:
    """Return the sort key of an address: as a number, so that 10.0.0.9 comes before 10.0.0.10."""
    address = ipaddress.ip_address(ip)
    return (address.version, int(address))


def check_machines(machines: Sequence[MachineInfo], is_loopback_allowed: bool) -> None:
    """Raise InvalidInputError naming the first entry that is malformed or repeats another's ip or hostname."""
    if not machines:
        raise InvalidInputError("machines_info is empty: name at least one machine")
    hostnames: dict[str, int] = {}
    ips: dict[Address, int] = {}
    for index, machine in enumerate(machines):
        where = f"machines_info[{index}] ({machine.hostname!r})"
        try:
            parse_node(machine.hostname)
            address = parse_ip(machine.ip, is_loopback_allowed)
        except InvalidInputError as exc:
            raise InvalidInputError(f"{where}: {exc}") from exc
        if not 1 <= machine.port <= 65535:
            raise InvalidInputError(f"{where}: port {machine.port} is not between 1 and 65535")
        if machine.type not in ("train", "inference"):
            raise InvalidInputError(f"{where}: type {machine.type!r} is neither 'train' nor 'inference'")
        if hostnames.setdefault(machine.hostname, index) != index:
            raise InvalidInputError(f"{where}: the hostname is also that of machines_info[{hostnames[machine.hostname]}]")
        if ips.setdefault(address, index) != index:
            raise InvalidInputError(f"{where}: ip {machine.ip!r} is also that of machines_info[{ips[address]}]")


def master_of(machines: Iterable[MachineInfo], role: Role) -> MachineInfo | None:
    """Return the good machine of `role` with the lowest IP as a number, None when there is none."""
    return min((machine for machine in machines if machine.type == role), key=lambda m: ip_order(m.ip), default=None)


def choose_masters(good: Sequence[MachineInfo]) -> tuple[str, str, tuple[str, ...]]:
    """Return (master_train, master_inference, warnings): IPs of the good machines that lead; '' and a warning without one."""
    train, inference = master_of(good, "train"), master_of(good, "inference")
    warnings = tuple(
        f"no good {role} machine: {loss}"
        for role, master, loss in (
            ("train", train, "nothing can be trained"),
            ("inference", inference, "nothing can be pre-labelled"),
        )
        if master is None
    )
    return (train.ip if train else "", inference.ip if inference else "", warnings)


def choose_roles(
    held: dict[str, Role], alive: Sequence[MachineInfo], train: int, inference: int, gpus: frozenset[str] = frozenset()
) -> dict[str, Role]:
    """Return who does what for `train` + `inference` machines out of `alive`.

    Nodes keep their role where they can; then come those without a role, for training first those with GPUs (`gpus`, by host
    name) and for inference those without, each by the lowest IP.
    Raises InvalidInputError when there are too few.
    """
    if train < 0 or inference < 0 or train + inference == 0:
        raise InvalidInputError(f"{train} train and {inference} inference machines: ask for at least one, and none below 0")
    if train + inference > len(alive):
        names = ", ".join(machine.hostname for machine in alive) or "none"
        raise InvalidInputError(f"asked for {train} train and {inference} inference machines, {len(alive)} alive: {names}")
    wanted: dict[Role, int] = {"train": train, "inference": inference}
    order = sorted(alive, key=lambda m: ip_order(m.ip))
    chosen: dict[str, Role] = {}
    for role in wanted:
        keepers = [m.hostname for m in order if held.get(m.hostname) == role]
        chosen.update(dict.fromkeys(keepers[: wanted[role]], role))
    for role, n in wanted.items():
        missing = n - sum(1 for r in chosen.values() if r == role)
        free = [m.hostname for m in order if m.hostname not in chosen]
        free.sort(key=lambda name: (name in held, (name in gpus) is (role == "inference")))  # a stable sort: by IP within
        chosen.update(dict.fromkeys(free[:missing], role))
    return chosen
