"""The one way out to a webhook's address: checked, resolved once, never redirected, bounded in time and size.

Owns the guard against addresses that people must not reach through the app (SSRF): every address of the name must be public or
lie in a network that `web.allowed_webhook_networks` names, and the address that was judged is the one that is connected to, so a
name cannot change between the two. Called by `webapp.webhooks.service` (check) and `webapp.webhooks.sender` (post).
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from labelloop.addresses import read_address, why_not_reach
from labelloop.errors import InvalidInputError, SettingsError, UnreachableError, UnsafeLinkError

TIMEOUT_S = 10.0
_MOST_URL_CHARS = 1000


class Target(NamedTuple):
    """A parsed address."""

    is_tls: bool
    host: str
    port: int
    path: str


def parse_url(url: str) -> Target:
    """Return the parts of a webhook's address. Raises InvalidInputError naming what is wrong."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise InvalidInputError(f"address {url[:200]!r} is malformed: {exc}") from exc
    if parts.scheme not in ("http", "https") or not parts.hostname or len(url) > _MOST_URL_CHARS:
        raise InvalidInputError(f"address {url[:200]!r}: use http:// or https://, a host and up to {_MOST_URL_CHARS} characters")
    if parts.username or parts.password:
        raise InvalidInputError("an address with a password in it is kept nowhere: check the signature instead")
    if any(ord(c) <= 32 or ord(c) > 126 for c in url):
        raise InvalidInputError(f"address {url[:200]!r}: write blanks and other letters percent-encoded")
    is_tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(is_tls, parts.hostname, port or (443 if is_tls else 80), path)


def resolve(target: Target, allowed: tuple[str, ...]) -> str:
    """Return the address to connect to. Raises UnsafeLinkError naming it, UnreachableError when the name does not resolve."""
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise UnreachableError(f"host {target.host!r} does not resolve: {exc}") from exc
    try:
        networks = [ipaddress.ip_network(one, strict=False) for one in allowed]
    except ValueError as exc:
        raise SettingsError(f"web.allowed_webhook_networks: {exc}") from exc
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        why = why_not_reach(address)
        if why and not any(read_address(address) in network for network in networks):
            raise UnsafeLinkError(
                f"address {target.host}:{target.port} is refused because {why}; "
                "whoever runs the app can allow its network in web.allowed_webhook_networks"
            )
    return addresses[0]


def post(url: str, body: bytes, headers: Mapping[str, str], allowed: tuple[str, ...], timeout_s: float = TIMEOUT_S) -> int:
    """Send one message and return the answer's status. Raises UnsafeLinkError, UnreachableError."""
    target = parse_url(url)
    address = resolve(target, allowed)
    try:
        with socket.create_connection((address, target.port), timeout=timeout_s) as sock, sock.dup() as other_end:
            # a peer that sends a byte now and then; TLS takes `sock` over, so the timer has the connection by another number
            end = threading.Timer(3 * timeout_s, _break_off, (other_end,))
            end.start()
            try:
                return _ask(sock, target, body, headers)
            finally:
                end.cancel()
    except (OSError, http.client.HTTPException) as exc:
        raise UnreachableError(f"{target.host}:{target.port} does not answer: {exc or type(exc).__name__}") from exc


def _ask(sock: socket.socket, target: Target, body: bytes, headers: Mapping[str, str]) -> int:
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.sock = ssl.create_default_context().wrap_socket(sock, server_hostname=target.host) if target.is_tls else sock
    try:
        connection.request("POST", target.path, body, dict(headers))
        return connection.getresponse().status
    finally:
        connection.close()


def _break_off(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
