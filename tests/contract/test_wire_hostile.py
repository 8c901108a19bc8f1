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

from cluster.authority import Authority
from labelloop import messages as m
from labelloop.errors import (
    ForbiddenError,
    LabelloopError,
    RetryableError,
    UnauthenticatedError,
    UnreachableError,
)
from labelloop.methods import SERVICES
from labelloop.settings import ClusterSettings, WireSettings
from labelloop.tls import Anonymous, Identity, client_context
from labelloop.wire import Client, Server
from tests.contract.wire_world import (
    KEY,
    KINDS,
    SETTINGS,
    RawPeer,
    World,
    address_of,
    every_method,
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
    raw = world.raw(world.server({"probe": _answer(m.ProbeReply)}, "manager"))  # of its own: the same is logged once in a while
    with caplog.at_level("INFO"):
        raw.request(consts.HANDLE_GETATTR, (consts.LABEL_VALUE, ("root", "__class__")))
        assert raw.receive()[0] == consts.MSG_EXCEPTION
    [line] = [record.getMessage() for record in caplog.records if record.name == "labelloop.refusals"]
    assert "at 127.0.0.1: 'a request that is no call': rpyc request code" in line


# ---------------------------------------------------------------- certificates


def test_a_certificate_of_another_ca_is_refused_by_the_server(world: World, server: Server, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "other", ClusterSettings()).own_identity("c9", "127.0.0.1", "client", tmp_path / "c9")
    mixed = Identity(stranger.certificate_file, stranger.key_file, world.identity().ca_file)
    with pytest.raises(UnauthenticatedError, match="refuses our certificate"):
        world.client(server, mixed).call("job", KEY)


def test_a_server_of_another_ca_is_refused_by_the_client(world: World, server: Server, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "other", ClusterSettings()).own_identity("c9", "127.0.0.1", "client", tmp_path / "c9")
    with pytest.raises(UnauthenticatedError, match="not valid here"):
        world.client(server, stranger).call("job", KEY)


def test_a_server_that_shows_the_certificate_of_another_address_is_refused(world: World) -> None:
    server = world.server({"job": job_reply}, identity=world.identity("n9", "node", "127.0.0.9"))
    with pytest.raises(UnauthenticatedError, match="IP address mismatch"):
        world.client(server).call("job", KEY)


def test_a_client_certificate_cannot_pose_as_a_server(world: World, tmp_path: Path) -> None:
    from labelloop.tls import identity_in, make_key, make_request, write_file

    token = world.authority.create_token("client")
    identity = identity_in(tmp_path)
    make_key(identity.key_file)
    request = m.AdmitRequest(
        secret=token.split(".")[0], csr_pem=make_request(identity.key_file, "c2"), name="c2", address="127.0.0.1", kind="client"
    )
    reply = world.authority.admit(request, lambda name, address, key: False)
    write_file(identity.certificate_file, reply.certificate_pem.encode())
    write_file(identity.ca_file, reply.ca_pem.encode())
    impostor = world.server({"job": job_reply}, identity=identity)
    with pytest.raises(UnauthenticatedError, match="purpose"):
        world.client(impostor).call("job", KEY)


@pytest.mark.parametrize("offset_days", [-100.0, 100.0])
def test_an_expired_certificate_and_one_of_the_future_are_refused(world: World, server: Server, offset_days: float) -> None:
    away = Authority(world.folder / "ca", ClusterSettings(), clock=lambda: time.time() + offset_days * 86400)
    identity = away.own_identity("c3", "127.0.0.1", "client", world.folder / "c3")
    with pytest.raises(UnauthenticatedError):
        world.client(server, identity).call("job", KEY)


def test_a_peer_without_certificate_is_refused_in_the_handshake_of_all_services_but_the_registry(world: World) -> None:
    for service in ("manager", "train", "inference"):
        server = world.server({}, service)
        method, row = next(iter(SERVICES[service].items()))
        client = Client(address_of(server), service, Anonymous(world.identity().ca_file), SETTINGS)
        with pytest.raises(UnauthenticatedError, match="CERTIFICATE_REQUIRED"):
            client.call(method, smallest(row.request))
        client.close()


def test_a_peer_without_certificate_may_send_small_frames_only(world: World) -> None:
    server = world.server({}, "registry")
    client = Client(address_of(server), "registry", Anonymous(world.identity().ca_file), SETTINGS)
    world.stack.callback(client.close)
    request = m.AdmitRequest(secret="", csr_pem="x" * 70000, name="n", address="127.0.0.1", kind="node")
    with pytest.raises(RetryableError):
        client.call("admit", request)


def test_every_method_is_open_to_the_kinds_of_its_row_and_closed_to_all_others(world: World) -> None:
    servers = {
        service: world.server({name: _answer(row.reply) for name, row in table.items()}, service)
        for service, table in SERVICES.items()
    }
    callers: dict[str, Identity | Anonymous] = {kind: world.identity(f"who-{kind}", kind) for kind in KINDS}  # type: ignore[arg-type]
    callers["anonymous"] = Anonymous(world.identity().ca_file)
    for kind, identity in callers.items():
        for service, name in every_method():
            row = SERVICES[service][name]
            assert _outcome(servers[service], identity, name, row.request) == _expected(kind, row.kinds), (kind, service, name)


def _answer(reply: type[m.Message]):  # type: ignore[no-untyped-def]
    return lambda request, peer: smallest(reply)


def _outcome(server: Server, identity: Identity | Anonymous, name: str, request: type[m.Message]) -> str:
    client = Client(address_of(server), server.service, identity, SETTINGS)
    try:
        client.call(name, smallest(request))
    except LabelloopError as exc:
        return exc.code
    finally:
        client.close()
    return "ok"


def _expected(kind: str, kinds: frozenset[str]) -> str:
    if kind in kinds:
        return "ok"
    return UnauthenticatedError.code if kind == "anonymous" else ForbiddenError.code


def test_who_was_refused_what_is_in_the_servers_log_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    server = world.server({"probe": _answer(m.ProbeReply)}, "manager")
    client = world.client(server, world.identity("c1", "client"))
    with caplog.at_level("INFO"):
        for _ in range(3):
            with pytest.raises(ForbiddenError):
                client.call("probe", m.ProbeRequest())
    lines = [record.getMessage() for record in caplog.records if record.name == "labelloop.refusals"]
    assert lines == ["manager: refused client c1 at 127.0.0.1: 'manager.probe': manager.probe is for node or ops; c1 is a client"]
