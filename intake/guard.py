"""Which network addresses a link may reach: the SSRF guard.

Owns name resolution for links and the judgement of each address. Must never connect or read. Called by `intake.fetch` before
each hop; the address that was judged is the address that is connected to, so a name cannot change between the two.
"""

from __future__ import annotations

import ipaddress
import socket

from labelloop.errors import UnreachableError, UnsafeLinkError

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def inner_address(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address carries (mapped, compatible, 6to4, Teredo, NAT64), or `address` itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    carried = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
    if carried is None and (address in _NAT64 or address in _COMPATIBLE) and int(address) > 1:
        carried = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return carried or address


def why_not_reach(text: str) -> str | None:
    """Return why the address `text` must not be fetched from, or None when it is a public unicast address."""
    address = inner_address(ipaddress.ip_address(text.partition("%")[0]))
    kinds = ("is_loopback", "is_link_local", "is_multicast", "is_unspecified", "is_private", "is_reserved")
    kind = next((k.removeprefix("is_").replace("_", "-") for k in kinds if getattr(address, k)), None)
    if kind is None and not address.is_global:
        kind = "not public"
    return f"{text} is {kind}" if kind else None


def resolve(host: str, port: int, allowed_hosts: tuple[str, ...]) -> str:
    """Return the one IP address to connect to for `host`.

    Every address of the name must be public, unless 'host:port' or 'address:port' is in `allowed_hosts`.
    Raises UnsafeLinkError naming the address, UnreachableError when the name does not resolve.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise UnreachableError(f"host {host!r} does not resolve: {exc}") from exc
    addresses = [str(entry[4][0]) for entry in found]
    if f"{host}:{port}" in allowed_hosts:
        return addresses[0]
    for address in addresses:
        reason = why_not_reach(address)
        if reason and f"{address}:{port}" not in allowed_hosts:
            raise UnsafeLinkError(
                f"link to {host}:{port} is refused because {reason}; an operator can add '{host}:{port}' to intake.allowed_hosts"
            )
    return addresses[0]
