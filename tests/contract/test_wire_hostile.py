"""What the wire does to peers that are broken or mean: they cost little, learn nothing, and the good are served all the while."""

from __future__ import annotations

import os
import resource
import socket
import ssl
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import rpyc
from rpyc.core import brine, consts
from rpyc.core.stream import SocketStream

from labelloop import messages as m
from labelloop.errors import (
    UnreachableError,
)
from labelloop.settings import WireSettings
from labelloop.tls import client_context
from labelloop.wire import Server
from tests.contract.wire_world import (
    KEY,
    SETTINGS,
    RawPeer,
    World,
    job_reply,
    open_world,
    smallest,
)

HANDLER_CODES = sorted(value for name, value in vars(consts).items() if name.startswith("HANDLE_"))
SERVED = {consts.HANDLE_PING, consts.HANDLE_CLOSE, consts.HANDLE_GETROOT, consts.HANDLE_CALL}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Server]]:
    """One server for the many tests that only send it one odd request each."""
    with open_world(tmp_path_factory.mktemp("shared")) as opened:
        yield opened, opened.server({"job": job_reply})


@pytest.fixture
def raw(shared: tuple[World, Server]) -> Iterator[RawPeer]:
    peer = shared[0].raw(shared[1])
    yield peer
    peer.tls.close()


@pytest.fixture
def server(world: World) -> Server:
    return world.server({"job": job_reply}, settings=msgspec.structs.replace(SETTINGS, max_frame_bytes=2**20))


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def assert_serves(world: World, server: Server) -> None:
    client = world.client(server)
    assert isinstance(client.call("job", KEY, deadline_s=10.0), m.JobReply)
    client.close()


# ---------------------------------------------------------------- sockets that do nothing, or nothing good


def test_two_thousand_idle_sockets_of_one_address_do_not_keep_a_good_client_out(world: World, many_files: None) -> None:
    server = world.server({"job": job_reply}, settings=WireSettings())
    idle = [socket.create_connection(server.address) for _ in range(2000)]
    try:
        for _ in range(10):
            assert_serves(world, server)
        assert len(server._connections) <= WireSettings().max_connections_per_address
    finally:
        for connection in idle:
            connection.close()
    assert_serves(world, server)


def test_known_peers_at_the_cap_are_kept_and_the_next_one_is_turned_away(world: World) -> None:
    server = world.server({"job": job_reply}, settings=msgspec.structs.replace(SETTINGS, max_connections_per_address=4))
    raws = [world.raw(server) for _ in range(4)]
    for raw in raws:
        raw.request(consts.HANDLE_PING, (1, (b"a",)))
        raw.receive()
    with pytest.raises(UnreachableError):
        world.client(server, settings=msgspec.structs.replace(SETTINGS, retries=0)).call("job", KEY)
    for raw in raws:
        raw.request(consts.HANDLE_PING, (1, (b"b",)))
        assert raw.receive() == (2, 7, (1, b"b"))
    raws[0].tls.close()
    assert_serves(world, server)


def test_a_server_out_of_file_descriptors_lives_on_and_serves_when_some_are_free(world: World, many_files: None) -> None:
    server = Server("inference", {"job": job_reply}, world.identity(), SETTINGS, "127.0.0.1", 0)
    server.listen()
    stop_r, stop_w = os.pipe()
    most = _open_files("self") + 12
    pid = os.fork()
    if pid == 0:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            server.start()
            os.read(stop_r, 1)
            server.close()
        finally:
            os._exit(0)
    idle = []
    try:
        idle = [socket.create_connection(server.address) for _ in range(60)]
        while _open_files(str(pid)) < most - 1:
            time.sleep(0.01)  # until the child has really run out
        assert_serves(world, server)
        for connection in idle:
            connection.close()
        assert_serves(world, server)
    finally:
        for connection in idle:
            connection.close()
        os.write(stop_w, b"x")
        os.waitpid(pid, 0)
        os.close(stop_r)
        os.close(stop_w)
        server.close()


def test_a_plain_tcp_client_is_hung_up_on(world: World, server: Server) -> None:
    with socket.create_connection(server.address, timeout=10) as plain:
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert _rest(plain).startswith(b"HTTP") is False
    assert_serves(world, server)


def test_a_handshake_that_stops_half_way_is_ended_after_the_handshake_timeout(world: World) -> None:
    server = world.server({"job": job_reply}, settings=msgspec.structs.replace(SETTINGS, handshake_timeout_s=0.3))
    hello, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context(world.identity("c1", "client")).wrap_bio(hello, out, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with socket.create_connection(server.address, timeout=10) as plain:
        plain.sendall(out.read()[:50])
        assert_serves(world, server)
        assert _rest(plain) == b""
    with socket.create_connection(server.address, timeout=10) as silent:
        assert _rest(silent) == b""


@pytest.mark.parametrize("junk", [b"\x00" * 64, os.urandom(4096), b"\x00\x00\x00\x04\x07abcd\n", b"\x00\x00\x00\x02\x00\x01\x01X"])
def test_garbage_inside_tls_ends_that_connection_only(world: World, server: Server, junk: bytes) -> None:
    raw = world.raw(server)
    raw.tls.sendall(junk)
    with pytest.raises((EOFError, OSError)):
        raw.tls.settimeout(10)
        assert raw.receive()[0] == 0
    assert_serves(world, server)


def _open_files(process: str) -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


def _rest(plain: socket.socket) -> bytes:
    """Return all that comes until the other side closes."""
    data = b""
    try:
        while more := plain.recv(4096):
            data += more
    except ConnectionError:
        pass
    return data


# ---------------------------------------------------------------- frames


@pytest.mark.parametrize("length", [2**32 - 1, 2**20 + 1])
def test_a_length_over_the_limit_is_refused_from_the_header_before_any_of_it_is_read(
    world: World, server: Server, length: int
) -> None:
    raw = world.raw(server)
    raw.tls.sendall(struct.pack("!LB", length, 0))
    assert raw.is_closed()
    assert_serves(world, server)


def test_a_zlib_bomb_is_refused_and_a_small_compressed_request_is_answered(world: World, server: Server) -> None:
    raw = world.raw(server)
    ping = bytes([consts.MSG_REQUEST]) + brine.dump((7, (consts.HANDLE_PING, (1, (b"a" * 5000,)))))
    raw.send_frame(zlib.compress(ping), is_compressed=1)
    assert raw.receive() == (2, 7, (1, b"a" * 5000))
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(512)) + packer.flush()
    assert len(bomb) < 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    raw.send_frame(bomb, is_compressed=1)
    assert raw.is_closed()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 * 1024  # of the bomb's 512 MiB, in KiB
    assert_serves(world, server)


def test_a_request_that_is_a_huge_structure_is_refused_by_the_count_of_its_values(world: World, server: Server) -> None:
    for body in (b"\x15\xff\xff\xff\xff", b"\x15" + struct.pack("!L", 500_000) + b"\x51" * 500_000, b"\x10" * 500_000):
        raw = world.raw(server)
        raw.send_frame(bytes([consts.MSG_REQUEST]) + body)
        assert raw.is_closed()
    assert_serves(world, server)


@pytest.mark.parametrize("message_type", [0, consts.MSG_REPLY, consts.MSG_EXCEPTION, 255])
def test_a_message_that_is_no_request_ends_the_connection(world: World, server: Server, message_type: int) -> None:
    raw = world.raw(server)
    raw.send_frame(bytes([message_type]) + brine.dump((7, (1, b"x"))))
    assert raw.is_closed()


# ---------------------------------------------------------------- rpyc's own requests


@pytest.mark.parametrize("code", [*HANDLER_CODES, 0, 21, 99, "ping", None])
@pytest.mark.parametrize(
    "package",
    [
        (consts.LABEL_VALUE, ()),
        (consts.LABEL_VALUE, ("root", "__class__")),
        (consts.LABEL_VALUE, ("inference.job", "__call__", (), ())),
        (consts.LABEL_LOCAL_REF, ("builtins.type", 1, 2)),
        (consts.LABEL_LOCAL_REF, (b"what a ping would echo",)),
        (consts.LABEL_TUPLE, (b"what a ping would echo",)),
        (consts.LABEL_REMOTE_REF, ("builtins.object", 1, 2)),
        (consts.LABEL_TUPLE, ((consts.LABEL_LOCAL_REF, ("builtins.type", 1, 2)), (consts.LABEL_VALUE, "__init__"))),
        (9, "no such label"),
        "not a package",
    ],
)
def test_every_rpyc_request_code_gets_a_plain_error_and_the_connection_goes_on(raw: RawPeer, code: object, package: Any) -> None:
    raw.request(code, package)
    message_type, seq, content = raw.receive()
    is_plain_value = isinstance(package, tuple) and package[0] == consts.LABEL_VALUE
    if code in SERVED and message_type == consts.MSG_REPLY:
        assert is_plain_value
        assert (code, package[1]) in {(consts.HANDLE_CLOSE, ()), (consts.HANDLE_GETROOT, ())}
        return
    assert (message_type, seq) == (consts.MSG_EXCEPTION, 7)
    assert content[0] in ("forbidden", "invalid_input")
    assert "Traceback" not in content[1]
    assert "site-packages" not in content[1]
    raw.request(consts.HANDLE_PING, (consts.LABEL_VALUE, (b"still here",)), seq=8)
    assert raw.receive() == (consts.MSG_REPLY, 8, (consts.LABEL_VALUE, b"still here"))


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("inference.job",),
        ("inference.job", ()),
        ("inference.job", (b"a", b"b")),
        ("inference.job", ("text",)),
        ("inference.job", (None,)),
        (b"inference.job", (b"",)),
        ("inference.job", (b"",), (("key", b""),)),
        ("inference.job", (b"",), (), ()),
        ("inference.__init__", (b"",)),
        ("inference.job.__globals__", (b"",)),
        ("train.models", (b"",)),
        ("job", (b"",)),
        ("inference.job", (b"\xc1 not messagepack",)),
        ("inference.job", (b"\x82\xa6schema\x63\xa4task\xa1x",)),
    ],
)
def test_a_call_is_a_listed_name_and_one_byte_string_or_an_error(raw: RawPeer, args: tuple[object, ...]) -> None:
    raw.request(consts.HANDLE_CALL, (consts.LABEL_VALUE, args))
    message_type, _, content = raw.receive()
    assert message_type == consts.MSG_EXCEPTION
    assert content[0] in ("invalid_input", "not_found")


def test_rpycs_own_client_reaches_the_root_as_a_plain_value_and_nothing_behind_it(world: World, server: Server) -> None:
    raw = world.raw(server)
    connection = rpyc.connect_stream(SocketStream(raw.tls), config={"close_catchall": True, "sync_request_timeout": 10})
    assert connection.root == ("inference", world.authority.ca_pem)
    connection.close()


def test_who_reaches_for_an_attribute_is_in_the_servers_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    probed = world.server({"probe": lambda request, peer: smallest(m.ProbeReply)}, "manager")
    raw = world.raw(probed)  # of its own: the same is logged once in a while
    with caplog.at_level("INFO"):
        raw.request(consts.HANDLE_GETATTR, (consts.LABEL_VALUE, ("root", "__class__")))
        assert raw.receive()[0] == consts.MSG_EXCEPTION
    [line] = [record.getMessage() for record in caplog.records if record.name == "labelloop.refusals"]
    assert "at 127.0.0.1: 'a request that is no call': rpyc request code" in line
