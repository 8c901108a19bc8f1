"""Which network addresses a link may reach: the SSRF guard.

Owns name resolution for links; `labelloop.addresses` judges each address. Must never connect or read. Called by `intake.fetch`
before each hop; the address that was judged is the address that is connected to, so a name cannot change between the two.
"""

from __future__ import annotations

import socket

from labelloop.addresses import inner_address, why_not_reach
from labelloop.errors import UnreachableError, UnsafeLinkError

__all__ = ["inner_address", "resolve", "why_not_reach"]


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
