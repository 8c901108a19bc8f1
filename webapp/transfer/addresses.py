"""Listings of the web and of S3 through fsspec, past a guard on every connection.

Owns where `labelloop.addresses` is asked: public unicast only, unless 'host:port' or 'address:port' is in `intake.allowed_hosts`.
The address that is judged is the one that is connected to: the check stands where the socket is made, behind name resolution and
behind every redirect. Owns too how much of an answer is read. Called by the reader of listings.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import aiohttp
import fsspec
import fsspec.implementations.http

from labelloop.addresses import why_not_reach
from labelloop.errors import InvalidInputError, UnreachableError, UnsafeLinkError
from webapp.transfer.readers.base import Reach
from webapp.transfer.sources import SourceFile, read_source

TIMEOUT_S = 30.0
MOST_PAGE_BYTES = 16 * 2**20
MOST_FOLDERS = 100_000


class Guard:
    """Makes sockets to addresses that may be reached. `allowed` are 'host:port' or 'address:port'."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._allowed = frozenset(allowed) | frozenset(_addresses_of(allowed))

    def make_socket(self, about: Any) -> socket.socket:
        """Return a socket for an entry of getaddrinfo. Raises UnsafeLinkError."""
        family, kind, protocol, _, address = about
        reason = why_not_reach(str(address[0]))
        if reason and f"{address[0]}:{address[1]}" not in self._allowed:
            raise UnsafeLinkError(f"port {address[1]} is refused because {reason}; an operator can add it to intake.allowed_hosts")
        return socket.socket(family, kind, protocol)

    def connector(self) -> aiohttp.TCPConnector:
        """Return a connector of aiohttp whose every socket is guarded."""
        return aiohttp.TCPConnector(socket_factory=self.make_socket, limit=8)


def _addresses_of(allowed: tuple[str, ...]) -> Iterator[str]:
    """Yield 'address:port' for each allowed name, as it resolves now."""
    for entry in allowed:
        host, _, port = entry.rpartition(":")
        with contextlib.suppress(OSError, ValueError, UnicodeError):
            for found in socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM):
                yield f"{found[4][0]}:{port}"


class Listing:
    """Files below one address."""

    def __init__(self, system: Any, top: str, link: str | None) -> None:
        self._system = system
        self._top = top
        self._link = link

    def names(self) -> Iterator[str]:
        """Yield the names of all files, folder by folder, each folder in order. Raises UnreachableError, UnsafeLinkError."""
        waiting = [self._top]
        seen = {self._top}
        while waiting:
            if len(seen) > MOST_FOLDERS:
                raise InvalidInputError(f"more than {MOST_FOLDERS} folders: list a part of them at a time")
            folder = waiting.pop()
            entries = sorted(self._ls(folder), key=lambda entry: str(entry["name"]))
            yield from (str(entry["name"]) for entry in entries if entry["type"] == "file")
            for entry in reversed(entries):
                name = str(entry["name"])
                if entry["type"] == "directory" and name not in seen and name.startswith(self._top):
                    seen.add(name)
                    waiting.append(name)

    def _ls(self, folder: str) -> list[dict[str, Any]]:
        with _renamed(folder):
            return [entry for entry in self._system.ls(folder, detail=True) if str(entry["name"]).startswith(self._top)]

    def read(self, name: str, most_bytes: int) -> bytes:
        """Return a file's bytes. Raises InvalidInputError (too large), UnreachableError, UnsafeLinkError."""
        with _renamed(name):
            data = bytes(self._system.cat_file(name, start=0, end=most_bytes + 1))
        if len(data) > most_bytes:
            raise InvalidInputError(f"more than {most_bytes} bytes: make it smaller")
        return data

    def short(self, name: str) -> str:
        """Return a file's name below the address."""
        return unquote(name.removeprefix(self._top).lstrip("/"))

    def link_of(self, name: str) -> str | None:
        """Return where a browser and the nodes find a file; None = nowhere without the source's keys."""
        if self._link is None:
            return None
        return name if self._link == "" else f"{self._link}/{quote(self.short(name))}"


def _client_errors() -> tuple[type[Exception], ...]:
    """Return what the clients raise, that of S3 where it is installed."""
    known: tuple[type[Exception], ...] = (aiohttp.ClientError, OSError, TimeoutError, ValueError)
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        return known
    return (*known, BotoCoreError, ClientError)


@contextlib.contextmanager
def _renamed(what: str) -> Iterator[None]:
    try:
        yield
    except UnsafeLinkError:
        raise
    except _client_errors() as exc:
        inner: BaseException | None = exc
        while inner is not None:
            if isinstance(inner, UnsafeLinkError):
                raise inner from exc
            inner = inner.__cause__ or inner.__context__
        if isinstance(exc, FileNotFoundError | PermissionError):  # another try says the same
            why = "there is no such thing" if isinstance(exc, FileNotFoundError) else "it does not let us read"
            raise InvalidInputError(f"{what[:200]!r} cannot be read: {why}") from exc
        raise UnreachableError(f"{what[:200]!r} cannot be read: {str(exc)[:200]}") from exc


@contextlib.contextmanager
def open_listing(url: str, reach: Reach, most_bytes: int, project: str) -> Iterator[Listing]:
    """Open https://..., http://..., s3://bucket/prefix (public), or source:NAME of an operator (for `project`).

    Of each file `most_bytes` are read at most. Raises InvalidInputError.
    """
    guard, source = Guard(reach.allowed_hosts), SourceFile(url)
    if url.startswith("source:"):
        source = read_source(reach.sources_dir, url.removeprefix("source:"), project)
    parts = urlsplit(source.url)
    if parts.scheme in ("http", "https") and parts.hostname and not parts.username:
        yield Listing(
            _web(guard, max(most_bytes, MOST_PAGE_BYTES)), source.url if source.url.endswith("/") else f"{source.url}/", ""
        )
    elif parts.scheme == "s3" and parts.netloc:
        top = f"{parts.netloc}/{parts.path.strip('/')}".rstrip("/")
        link = None if source.key else f"https://{parts.netloc}.s3.amazonaws.com{parts.path.rstrip('/')}"
        yield Listing(_s3(guard, source), top, None if source.endpoint else link)
    else:
        raise InvalidInputError(f"address {url[:80]!r}: use https://..., http://..., s3://bucket/folder, or source:NAME")


def _web(guard: Guard, most_bytes: int) -> Any:
    async def client(**given: Any) -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        answers = _bounded(most_bytes)
        return aiohttp.ClientSession(connector=guard.connector(), timeout=timeout, trust_env=False, response_class=answers, **given)

    return fsspec.implementations.http.HTTPFileSystem(get_client=client, skip_instance_cache=True, use_listings_cache=False)


def _bounded(most_bytes: int) -> type[aiohttp.ClientResponse]:
    """Return answers that are read up to a size: a server need not keep to the range that it is asked for."""

    class Bounded(aiohttp.ClientResponse):
        async def read(self) -> bytes:
            if self._body is None:
                body = bytearray()
                async for piece in self.content.iter_any():
                    body += piece
                    if len(body) > most_bytes + 1:
                        self.close()
                        raise InvalidInputError(f"an answer of more than {most_bytes} bytes: make it smaller")
                self._body = bytes(body)
            return await super().read()

    return Bounded


def _s3(guard: Guard, source: SourceFile) -> Any:
    try:
        import s3fs
    except ImportError as exc:
        raise InvalidInputError("S3 is not installed here: an operator installs labelloop[s3]") from exc
    return s3fs.S3FileSystem(
        key=source.key or None,
        secret=source.secret or None,
        anon=not source.key,
        endpoint_url=source.endpoint or None,
        config_kwargs={"connector_args": {"socket_factory": guard.make_socket}, "connect_timeout": TIMEOUT_S},
        skip_instance_cache=True,
        use_listings_cache=False,
    )
