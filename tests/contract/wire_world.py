"""A real CA, real servers and raw peers for the contract tests of the wire. Holds no test."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from msgspec import inspect
from rpyc.core import brine, consts

from cluster.authority import Authority
from labelloop import messages as m
from labelloop.methods import SERVICES
from labelloop.settings import ClusterSettings, WireSettings
from labelloop.tls import Identity, client_context
from labelloop.wire import Client, Peer, Server

SETTINGS = WireSettings(deadline_s=20.0)
HEADER = "!LB"


class World:
    """A cluster's CA in a folder, identities made at will, servers and clients that are closed at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder / "ca", ClusterSettings())
        self.stack = contextlib.ExitStack()

    def identity(self, name: str = "n1", kind: m.PeerKind = "node", address: str = "127.0.0.1") -> Identity:
        return self.authority.own_identity(name, address, kind, self.folder / f"{name}-{kind}-{address}")

    def server(
        self,
        handlers: Mapping[str, Callable[[Any, Peer], m.Message]],
        service: str = "inference",
        settings: WireSettings = SETTINGS,
        identity: Identity | None = None,
        host: str = "127.0.0.1",
    ) -> Server:
        server = Server(service, handlers, identity or self.identity(address=host), settings, host, 0)
        server.listen()
        server.start()
        self.stack.callback(server.close, 2.0)
        return server

    def client(self, server: Server, identity: Any = None, settings: WireSettings = SETTINGS) -> Client:
        client = Client(address_of(server), server.service, identity or self.identity("c1", "client"), settings)
        self.stack.callback(client.close)
        return client

    def raw(self, server: Server, identity: Identity | None = None) -> RawPeer:
        plain = socket.create_connection(server.address, timeout=10)
        context = client_context(identity or self.identity("c1", "client"))
        peer = RawPeer(context.wrap_socket(plain, server_hostname=server.address[0]))
        self.stack.callback(peer.tls.close)
        return peer


@contextlib.contextmanager
def open_world(folder: Path) -> Iterator[World]:
    """Give a world and hold that nothing of it is left running afterwards."""
    before = set(threading.enumerate())
    world = World(folder)
    with world.stack:
        yield world
    assert [t.name for t in set(threading.enumerate()) - before if t.name.startswith("wire-")] == []


class RawPeer:
    """A TLS peer with a good certificate that speaks rpyc's bytes by hand."""

    def __init__(self, tls: ssl.SSLSocket) -> None:
        self.tls = tls

    def send_frame(self, body: bytes, is_compressed: int = 0) -> None:
        self.tls.sendall(brine.Struct(HEADER).pack(len(body), is_compressed) + body + b"\n")

    def request(self, handler: Any, package: Any, seq: int = 7) -> None:
        self.send_frame(bytes([consts.MSG_REQUEST]) + brine.dump((seq, (handler, package))))

    def receive(self) -> tuple[int, int, Any]:
        """Return (message type, seq, content)."""
        size, is_compressed = brine.Struct(HEADER).unpack(self._exactly(5))
        assert is_compressed == 0
        body = self._exactly(size + 1)[:-1]
        return (body[0], *brine.load(body[1:]))

    def is_closed(self) -> bool:
        """Wait for the peer to close; True when it did so without a word."""
        try:
            return self.tls.recv(1) == b""
        except (ConnectionError, ssl.SSLError):
            return True

    def _exactly(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            more = self.tls.recv(n - len(data))
            if not more:
                raise EOFError
            data += more
        return data


def address_of(server: Server) -> str:
    return f"{server.address[0]}:{server.address[1]}"


def job_reply(request: m.JobKey, peer: Peer) -> m.JobReply:
    """A quick handler of inference.job: says who asked."""
    return m.JobReply(task=request.task, job_id=request.job_id, version=peer.name, chunks=1, done=1, state="done")


KEY = m.JobKey(task="birds", job_id="j1")


def smallest(kind: type[m.Message]) -> m.Message:
    """Return a valid message of `kind` with the plainest values in its required fields."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return kind(**{f.name: _plain(f.type) for f in info.fields if f.required})


def _plain(info: inspect.Type) -> Any:
    match info:
        case inspect.StrType():
            return "x"
        case inspect.IntType():
            return 1
        case inspect.FloatType():
            return 1.0
        case inspect.BoolType():
            return True
        case inspect.BytesType():
            return b""
        case inspect.LiteralType():
            return info.values[0]
        case inspect.VarTupleType():
            return ()
        case inspect.DictType():
            return {}
        case inspect.StructType():
            assert issubclass(info.cls, m.Message)
            return smallest(info.cls)
    raise AssertionError(f"no plain value of {info}")


def every_method() -> list[tuple[str, str]]:
    return [(service, name) for service, table in SERVICES.items() for name in table]


KINDS: tuple[str, ...] = get_args(m.PeerKind)
