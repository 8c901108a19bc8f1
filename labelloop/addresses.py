"""Which network addresses are public: the judgement behind every guard against requests that a person sends us on (SSRF).

Owns the words for each kind of address. Must never resolve a name or connect. Called by `intake.guard` (links),
`webapp.webhooks.door` (webhooks) and `webapp.transfer.addresses` (listings).
"""

from __future__ import annotations

import ipaddress

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")
_KINDS = ("is_loopback", "is_link_local", "is_multicast", "is_unspecified", "is_private", "is_reserved", "is_site_local")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def inner_address(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address carries (mapped, compatible, 6to4, Teredo, NAT64), or `address` itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    carried = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
    if carried is None and (address in _NAT64 or address in _COMPATIBLE) and int(address) > 1:
        carried = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return carried or address


def read_address(text: str) -> Address:
    """Return the address that `text` means, without its zone and as the IPv4 address that it carries. Raises ValueError."""
    return inner_address(ipaddress.ip_address(text.partition("%")[0]))


def why_not_reach(text: str) -> str | None:
    """Return why the address `text` must not be fetched from, or None when it is a public unicast address."""
    address = read_address(text)
    kind = next((k.removeprefix("is_").replace("_", "-") for k in _KINDS if getattr(address, k, False)), None)
    if kind is None and not address.is_global:
        kind = "not public"
    return f"{text} is {kind}" if kind else None
