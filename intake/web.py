"""Downloads over http and https: guarded addresses, judged redirects, hard limits on size and time.

Owns connections and their reuse. Must never follow a redirect, or connect to an address, that `intake.guard` has not judged.
Called by `intake.fetch` from several threads; one connection serves one download at a time, the idle ones are under a lock.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterator
from http.client import HTTPException
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, LocationParseError

from intake.guard import resolve
from intake.limits import Fetched, check_size, shown
from labelloop.errors import (
    InvalidInputError,
    LabelloopError,
    NotFoundError,
    TooLargeError,
    UnreachableError,
    UnreadableItemError,
    UnsafeLinkError,
)
from labelloop.settings import IntakeSettings

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK_BYTES = 65536
_IDLE_PER_HOST = 8
_IDLE_HOSTS = 64
_DEFAULT_PORT = {"http": 80, "https": 443}
_HEADERS = {"User-Agent": "labelloop", "Accept": "*/*", "Accept-Encoding": "identity"}


@functools.lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


class _Place(NamedTuple):
    """Where one hop goes: the address was judged, the name is for Host header and certificate."""

    scheme: str
    host: str
    address: str
    port: int

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORT[self.scheme] else f"{host}:{self.port}"


class _Link:
    """One connection to one place, which another thread may cut at any moment, the TLS handshake included."""

    def __init__(self, place: _Place) -> None:
        self.place = place
        self._handle: socket.socket | None = None
        if place.scheme == "https":
            self.http: HTTPConnection = HTTPSConnection(
                place.address, place.port, ssl_context=_tls(), server_hostname=place.host, assert_hostname=place.host
            )
        else:
            self.http = HTTPConnection(place.address, place.port)
        connect = self.http._new_conn

        def connect_and_remember() -> socket.socket:
            made = connect()
            self._handle = made.dup()  # the TLS layer takes the first one away
            return made

        self.http._new_conn = connect_and_remember  # type: ignore[method-assign]

    def set_timeout(self, left_s: float) -> None:
        self.http.timeout = left_s
        if self.http.sock is not None:
            self.http.sock.settimeout(left_s)

    def cut(self) -> None:
        handle = self._handle
        if handle is not None:
            with contextlib.suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.http.close()
        if self._handle is not None:
            self._handle.close()
            self._handle = None


class WebFetcher:
    """Downloads http and https links under one set of limits, keeping idle connections."""

    def __init__(self, settings: IntakeSettings) -> None:
        self._settings = settings
        self._idle: dict[_Place, list[_Link]] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for links in idle.values():
            for link in links:
                link.close()

    def fetch(self, link: str) -> Fetched:
        """Return the bytes behind `link`; raises as `intake.fetch.Fetcher.fetch`."""
        deadline = time.monotonic() + self._settings.fetch_timeout_s
        url = link
        for _ in range(self._settings.max_redirects + 1):
            answer = self._hop(url, link, deadline)
            if isinstance(answer, Fetched):
                return answer
            url = urljoin(url, answer)
            if urlsplit(url).scheme not in ("http", "https"):
                raise UnsafeLinkError(f"link {shown(link)!r} redirects to {shown(url)!r}, which is refused")
        raise InvalidInputError(
            f"link {shown(link)!r} redirects more than {self._settings.max_redirects} times; use its final address"
        )

    def _hop(self, url: str, link: str, deadline: float) -> Fetched | str:
        """Return the content at `url` or where it redirects to. A stale idle connection is replaced once."""
        place, target = self._locate(url, link)
        for is_last in (False, True):
            connection, was_idle = self._take(place)
            try:
                with self._time_limit(connection, link, deadline):
                    return self._exchange(connection, target, link)
            except UnreachableError:
                if is_last or not was_idle:
                    raise
        raise UnreachableError(f"link {shown(link)!r} cannot be fetched")

    def _locate(self, url: str, link: str) -> tuple[_Place, str]:
        try:
            parts = urllib3.util.parse_url(url)
        except LocationParseError as exc:
            raise InvalidInputError(f"link {shown(link)!r} is no URL: {exc}") from exc
        if not parts.host or parts.scheme not in _DEFAULT_PORT:
            raise InvalidInputError(f"link {shown(link)!r} names no host")
        if parts.auth:
            raise UnsafeLinkError(f"link to {parts.host!r} carries a user name or password, which is refused; use a signed address")
        host = parts.host.strip("[]")
        port = parts.port or _DEFAULT_PORT[parts.scheme]
        return _Place(parts.scheme, host, resolve(host, port, self._settings.allowed_hosts), port), parts.request_uri

    def _take(self, place: _Place) -> tuple[_Link, bool]:
        with self._lock:
            idle = self._idle.get(place)
            if idle:
                return idle.pop(), True
        return _Link(place), False

    @contextlib.contextmanager
    def _time_limit(self, connection: _Link, link: str, deadline: float) -> Iterator[None]:
        """Cut the connection at `deadline`, even under a peer that sends one byte at a time; rename what breaks inside."""
        is_late = threading.Event()

        def cut() -> None:
            is_late.set()
            connection.cut()

        left_s = max(0.001, deadline - time.monotonic())
        connection.set_timeout(left_s)
        timer = threading.Timer(left_s, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except LabelloopError:
            connection.close()
            raise
        except (HTTPError, HTTPException, OSError, ValueError) as exc:
            connection.close()
            if is_late.is_set() or isinstance(exc, TimeoutError):
                raise self._too_late(link) from exc
            raise UnreachableError(f"link {shown(link)!r} cannot be fetched: {exc}") from exc
        else:
            if is_late.is_set():
                connection.close()
                raise self._too_late(link)
        finally:
            timer.cancel()
            timer.join()

    def _too_late(self, link: str) -> TooLargeError:
        return TooLargeError(
            f"link {shown(link)!r} took longer than {self._settings.fetch_timeout_s:g} s; "
            "try a faster source or raise intake.fetch_timeout_s"
        )

    def _exchange(self, connection: _Link, target: str, link: str) -> Fetched | str:
        headers = {**_HEADERS, "Host": connection.place.host_header}
        connection.http.request("GET", target, headers=headers, preload_content=False, decode_content=False)
        reply = connection.http.getresponse()
        if reply.status in _REDIRECTS and "location" in reply.headers:
            connection.close()
            return str(reply.headers["location"])
        self._check_status(reply.status, link)
        data = self._body(reply, link)
        self._keep(connection)
        return Fetched(data, reply.headers.get("content-type", ""))

    def _check_status(self, status: int, link: str) -> None:
        if status in (404, 410):
            raise NotFoundError(f"link {shown(link)!r} answered {status}: nothing is there")
        if status in (408, 429) or status >= 500:
            raise UnreachableError(f"link {shown(link)!r} answered {status}; it may work later")
        if status != 200:
            raise InvalidInputError(f"link {shown(link)!r} answered {status} instead of 200")

    def _body(self, reply: urllib3.HTTPResponse, link: str) -> bytes:
        length = reply.headers.get("content-length", "")
        if length.isdigit():
            check_size(int(length), self._settings.max_item_bytes, link)
        parts: list[bytes] = []
        size = 0
        while part := reply.read1(_CHUNK_BYTES):
            size += len(part)
            check_size(size, self._settings.max_item_bytes, link)
            parts.append(part)
        if length.isdigit() and size < int(length):
            raise UnreachableError(f"link {shown(link)!r} broke off after {size} of {length} bytes; it may work later")
        data = b"".join(parts)
        coding = reply.headers.get("content-encoding", "identity").lower()
        return data if coding in ("identity", "") else self._inflate(data, coding, link)

    def _inflate(self, data: bytes, coding: str, link: str) -> bytes:
        """Return gzip or deflate content, which some stores send unasked, within the size limit."""
        if coding not in ("gzip", "deflate"):
            raise UnreadableItemError(f"link {shown(link)!r} came in content encoding {coding!r}; serve it as identity or gzip")
        try:
            out = zlib.decompressobj(47 if coding == "gzip" else 15).decompress(data, self._settings.max_item_bytes + 1)
        except zlib.error as exc:
            raise UnreadableItemError(f"link {shown(link)!r} has broken {coding}: {exc}") from exc
        check_size(len(out), self._settings.max_item_bytes, link)
        return out

    def _keep(self, connection: _Link) -> None:
        with self._lock:
            idle = self._idle.setdefault(connection.place, [])
            if connection.http.sock is not None and len(idle) < _IDLE_PER_HOST and len(self._idle) <= _IDLE_HOSTS:
                idle.append(connection)
                return
        connection.close()
