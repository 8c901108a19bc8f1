"""Strangers, impostors and malformed orders against real daemons: each is refused and logged, and the daemons go on.

What the wire does by itself is tested in tests/contract; here it is registry and managers as they run.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import rpyc
from rpyc.core import brine, consts
from rpyc.core.stream import SocketStream

from cluster.authority import Authority
from cluster.hostsfile import read_block
from labelloop import messages as m
from labelloop.clients import RegistryClient
from labelloop.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    LabelloopError,
    NotFoundError,
    NotReadyError,
    UnauthenticatedError,
)
from labelloop.methods import SERVICES
from labelloop.settings import ClusterSettings
from labelloop.tls import Anonymous, Identity, client_context, enrol
from labelloop.wire import Client
from tests.cluster.two_managers import NODES, SETTINGS, Cluster, running_cluster, until
from tests.contract.wire_world import KINDS, smallest

pytestmark = pytest.mark.slow
NEWLINE = "gpu-1\n10.66.66.66 evil"
DAEMONS = ("registry", "train-1", "inference-1")


@pytest.fixture(scope="module")
def formed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("hostile"), "tests.cluster.standin") as cluster:
        cluster.registry.form(m.FormRequest(roles={"train-1": "train", "inference-1": "inference"}), deadline_s=120)
        until(lambda: len(cluster.role_pids()) == 5 and all(cluster.role_pids().values()), "all roles run")
        yield cluster


@pytest.fixture
def unmoved(formed: Cluster) -> Iterator[Cluster]:
    """The cluster, which after the test must answer, run the same processes and keep the same state on disk."""
    pids, kept = formed.role_pids(), _kept(formed)
    daemons = {name: formed.pid(name) for name in DAEMONS}
    yield formed
    assert formed.role_pids() == pids
    assert {name: formed.pid(name) for name in DAEMONS} == daemons
    assert _kept(formed) == kept


def _kept(cluster: Cluster) -> dict[str, bytes]:
    files = [path for name in NODES for path in (cluster.folder / name / "assignment.json", cluster.folder / name / "hosts")]
    return {str(path): path.read_bytes() for path in [*files, cluster.folder / "registry" / "wanted.json"]}


def _address(cluster: Cluster, daemon: str) -> tuple[str, int]:
    return ("127.0.0.1", cluster.registry_port) if daemon == "registry" else (NODES[daemon], cluster.node(daemon).port)


def _service(daemon: str) -> str:
    return "registry" if daemon == "registry" else "manager"


def _identity(cluster: Cluster, kind: str) -> Identity | Anonymous:
    if kind == "anonymous":
        return Anonymous(cluster.ops.ca_file)
    return cluster.authority.own_identity(f"who-{kind}", "127.0.0.1", kind, cluster.folder / f"who-{kind}")  # type: ignore[arg-type]


def _call(cluster: Cluster, daemon: str, identity: Identity | Anonymous, method: str, request: m.Message) -> m.Message:
    host, port = _address(cluster, daemon)
    with contextlib.closing(Client(f"{host}:{port}", _service(daemon), identity, SETTINGS.wire)) as client:
        return client.call(method, request, deadline_s=20.0)


# ---------------------------------------------------------------- who may call what


@pytest.mark.parametrize("kind", [*KINDS, "anonymous"])
@pytest.mark.parametrize("daemon", DAEMONS)
def test_no_daemon_answers_a_kind_of_peer_that_the_methods_row_does_not_name(unmoved: Cluster, daemon: str, kind: str) -> None:
    identity = _identity(unmoved, kind)
    for name, row in SERVICES[_service(daemon)].items():
        if kind in row.kinds:
            continue
        expected = UnauthenticatedError if kind == "anonymous" else ForbiddenError
        with pytest.raises(expected):
            _call(unmoved, daemon, identity, name, smallest(row.request))


def test_a_refused_caller_is_in_the_log_of_the_daemon(unmoved: Cluster) -> None:
    for daemon, method in (("registry", "form"), ("train-1", "invite")):
        row = SERVICES[_service(daemon)][method]
        with pytest.raises(ForbiddenError):
            _call(unmoved, daemon, _identity(unmoved, "client"), method, smallest(row.request))
        wanted = f"refused client who-client at 127.0.0.1: '{_service(daemon)}.{method}'"
        until(lambda log=daemon, words=wanted: words in unmoved.log(log), wanted)  # type: ignore[misc]


def test_neither_ops_nor_a_node_outside_the_order_gets_the_cookie_or_the_queues_or_strikes_a_member(unmoved: Cluster) -> None:
    mole = unmoved.authority.own_identity("mole", "127.0.0.7", "node", unmoved.folder / "mole")
    epoch = unmoved.node("inference-1").epoch
    for identity, name in ((unmoved.ops, "inference-1"), (mole, "inference-1")):
        for node, method, request in (
            ("inference-1", "invite", m.InviteRequest(hostname=name, epoch=epoch)),
            ("inference-1", "forget", m.ForgetRequest(hostname=name, epoch=epoch)),
            ("train-1", "link", m.LinkRequest(hostname=name, epoch=epoch)),
        ):
            with pytest.raises(ForbiddenError):
                _call(unmoved, node, identity, method, request)
    reply = _call(unmoved, "inference-1", mole, "invite", m.InviteRequest(hostname="mole", epoch=epoch))
    assert isinstance(reply, m.InviteReply)
    assert (reply.is_ready, reply.cookie) == (False, "")
    with pytest.raises(NotReadyError, match="did not find mole among the good train machines"):
        _call(unmoved, "train-1", mole, "link", m.LinkRequest(hostname="mole", epoch=epoch))


def test_a_certificate_of_another_ca_opens_nothing(unmoved: Cluster, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "ca", ClusterSettings()).own_identity("train-1", "127.0.0.2", "node", tmp_path / "id")
    mixed = Identity(stranger.certificate_file, stranger.key_file, unmoved.ops.ca_file)
    for daemon in DAEMONS:
        method = "nodes" if daemon == "registry" else "status"
        with pytest.raises(UnauthenticatedError):
            _call(unmoved, daemon, mixed, method, m.Empty())
        _await_line(unmoved, daemon, "closed the connection of 127.0.0.1: ", "certificate verify failed")


# ---------------------------------------------------------------- tokens and names


def test_a_wrong_an_expired_and_a_revoked_token_admit_nobody(unmoved: Cluster, tmp_path: Path) -> None:
    good = unmoved.authority.create_token("node")
    expired = unmoved.authority.create_token("node", life_s=0.0)
    revoked = unmoved.authority.create_token("node")
    unmoved.authority.revoke_token(revoked)
    wrong = f"{'x' * 43}.{good.rpartition('.')[2]}"
    address = f"127.0.0.1:{unmoved.registry_port}"
    for name, token in (("wrong", wrong), ("expired", expired), ("revoked", revoked)):
        with pytest.raises(UnauthenticatedError, match="unknown, expired or revoked"):
            enrol(address, token, name, "127.0.0.7", "node", tmp_path / name, SETTINGS.wire)
        assert not (tmp_path / name / "certificate.pem").exists()
        until(lambda who=name: f"node '{who}' at '127.0.0.7'" in unmoved.log("registry"), name)  # type: ignore[misc]
    assert good.split(".")[0] not in unmoved.log("registry")


def test_a_second_docker_of_a_living_name_or_address_is_refused_logged_and_the_first_goes_on(
    unmoved: Cluster, tmp_path: Path
) -> None:
    address, token = f"127.0.0.1:{unmoved.registry_port}", unmoved.authority.create_token("node")
    for name, ip in (("train-1", "127.0.0.8"), ("twin", "127.0.0.2")):
        with pytest.raises(ConflictError, match="held by a living peer"):
            enrol(address, token, name, ip, "node", tmp_path / name, SETTINGS.wire)
    until(lambda: "held by a living peer" in unmoved.log("registry"))
    assert unmoved.node("train-1").ip == "127.0.0.2"


def test_a_node_with_a_stolen_name_cannot_heartbeat_over_the_living_one(unmoved: Cluster, tmp_path: Path) -> None:
    twin = unmoved.authority.own_identity("train-1", "127.0.0.2", "node", tmp_path / "twin")  # as if the CA had been tricked
    fake = msgspec.structs.replace(unmoved.status("train-1"), role="", rpc="127.0.0.2:1")
    address = f"127.0.0.1:{unmoved.registry_port}"
    with (
        contextlib.closing(RegistryClient(address, twin, SETTINGS.wire)) as client,
        pytest.raises(ConflictError, match="another key"),
    ):
        client.heartbeat(m.Heartbeat(status=fake))
    assert unmoved.node("train-1").role == "train"
    until(lambda: "under another key" in unmoved.log("registry"))


@pytest.mark.parametrize("name", [NEWLINE, "gpu 1", "", "-x", "x" * 64, "GPU", "a.b", "../x", "ü"])
def test_a_hostname_that_is_none_is_one_error_and_reaches_no_file_and_no_log_line(
    unmoved: Cluster, tmp_path: Path, name: str
) -> None:
    ghost = m.MachineInfo(hostname=name, ip="127.0.0.9", port=9, type="inference")
    machines = tuple(
        m.MachineInfo(hostname=n, ip=ip, port=unmoved.node(n).port, type="train" if n == "train-1" else "inference")
        for n, ip in NODES.items()
    )
    order = m.InitialRequest(
        machines_info=(*machines, ghost),
        task_category="",
        task_extra_info=m.TaskExtraInfo(labels=()),
        task_datastore_path="",
        epoch=10**6,
    )
    for node in NODES:
        with pytest.raises(InvalidInputError, match="hostname"):
            _call(unmoved, node, unmoved.ops, "initial", order)
    with pytest.raises(InvalidInputError, match="hostname"):
        _admit_by_hand(unmoved, name, tmp_path)
    for method in ("add", "drain", "remove", "revoke"):
        with pytest.raises((InvalidInputError, NotFoundError)):
            _call(unmoved, "registry", unmoved.ops, method, m.NodeRequest(hostname=name))
    for request in (m.AssignRequest(roles={name: "train"}), m.FormRequest(roles={name: "train"})):
        method = "assign" if isinstance(request, m.AssignRequest) else "form"
        with pytest.raises((InvalidInputError, NotFoundError)):
            _call(unmoved, "registry", unmoved.ops, method, request)
    race = m.ProbeRequest(race="r1", contestants=("train-1", name))
    with pytest.raises(InvalidInputError):
        _call(unmoved, "train-1", unmoved.ops, "probe", race)
    for node in NODES:
        _await_line(unmoved, node, "manager: refused ops ", "'manager.initial': ", "hostname")
    _await_line(unmoved, "registry", f"refused: 127.0.0.1 as node {name!r} at '127.0.0.9': ", "hostname")
    for node in NODES:
        assert "evil" not in {found for _, found in read_block(unmoved.folder / node / "hosts")}
    for daemon in DAEMONS:
        assert not any(line.startswith("10.66.66.66") for line in unmoved.log(daemon).splitlines())


def _admit_by_hand(cluster: Cluster, name: str, folder: Path) -> m.Message:
    """Ask for a certificate of `name` past what `enrol` checks."""
    from labelloop.tls import make_key, make_request

    make_key(folder / "key.pem")
    secret = cluster.authority.create_token("node").split(".")[0]
    request = m.AdmitRequest(
        secret=secret, csr_pem=make_request(folder / "key.pem", "x"), name=name, address="127.0.0.9", kind="node"
    )
    return _call(cluster, "registry", Anonymous(cluster.ops.ca_file), "admit", request)


@pytest.mark.parametrize(
    "request_",
    [
        m.ProbeRequest(addresses=("127.0.0.1",)),
        m.ProbeRequest(addresses=("127.0.0.1:99999",)),
        m.ProbeRequest(addresses=tuple(f"127.0.0.1:{n}" for n in range(1, 1000))),
        m.ProbeRequest(race="../../x", contestants=("train-1", "inference-1")),
        m.ProbeRequest(race="r", contestants=("inference-1", "ghost")),
        m.ProbeRequest(race="r", contestants=("train-1", "inference-1"), rounds=10**9),
    ],
)
def test_a_malformed_probe_is_one_error_and_leaves_nothing_in_the_datastore(unmoved: Cluster, request_: m.ProbeRequest) -> None:
    with pytest.raises(InvalidInputError):
        _call(unmoved, "train-1", unmoved.ops, "probe", request_)
    assert not [path for path in unmoved.datastore.iterdir() if path.name.startswith(".race")]


# ---------------------------------------------------------------- sockets


@pytest.mark.parametrize("daemon", DAEMONS)
@pytest.mark.parametrize("junk", [b"", b"GET / HTTP/1.0\r\n\r\n", b"\x00" * 4096, os.urandom(4096), b"AMQP\x00\x00\x09\x01"])
def test_a_plain_tcp_client_is_hung_up_on_and_the_daemon_answers(unmoved: Cluster, daemon: str, junk: bytes) -> None:
    told = "closed the connection of 127.0.0.1: "
    before = unmoved.log(daemon).count(told)
    with socket.create_connection(_address(unmoved, daemon), timeout=15) as plain:
        plain.sendall(junk)
        if junk:
            assert not _rest(plain).startswith((b"HTTP", b"AMQP"))
    until(lambda: unmoved.log(daemon).count(told) > before, "the stranger is in the log")
    _assert_answers(unmoved, daemon)


@pytest.mark.parametrize("daemon", DAEMONS)
def test_rpycs_own_client_gets_no_attribute_and_no_netref_of_a_daemon(unmoved: Cluster, daemon: str) -> None:
    connection = rpyc.connect_stream(SocketStream(_tls(unmoved, daemon)), config={"sync_request_timeout": 15})
    try:
        root: Any = connection.root
        assert isinstance(root, tuple)  # a plain value: the service's name and the CA certificate
        for reach in _reaches(connection, root):
            with pytest.raises(Exception) as caught:
                reach()
            assert "Traceback" not in str(caught.value) or "labelloop" not in str(caught.value)
    finally:
        connection.close()
    _await_line(unmoved, daemon, "refused ops ", "'a request that is no call': ")
    _assert_answers(unmoved, daemon)


def _reaches(connection: Any, root: object) -> tuple[Callable[[], Any], ...]:
    return (
        lambda: connection.sync_request(consts.HANDLE_GETATTR, root, "__class__"),
        lambda: connection.sync_request(consts.HANDLE_CALLATTR, root, "__init__", ()),
        lambda: connection.sync_request(consts.HANDLE_DIR, root),
        lambda: connection.sync_request(consts.HANDLE_SETATTR, root, "x", 1),
        lambda: connection.sync_request(consts.HANDLE_PICKLE, root, 2),
        lambda: connection.sync_request(consts.HANDLE_INSTANCECHECK, root, (1, 2, 3)),
        lambda: connection.modules.os.getpid(),
        lambda: connection.eval("1 + 1"),
    )


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_frame_over_the_limit_is_refused_from_its_header(unmoved: Cluster, daemon: str) -> None:
    tls = _tls(unmoved, daemon)
    with contextlib.closing(tls):
        tls.sendall(struct.pack("!LB", 2**32 - 1, 0))
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            assert tls.recv(1) == b""
    _assert_answers(unmoved, daemon)


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_call_that_names_a_private_thing_is_no_method(unmoved: Cluster, daemon: str) -> None:
    tls = _tls(unmoved, daemon)
    with contextlib.closing(tls):
        for name in ("__class__", "manager._supervisor", f"{_service(daemon)}.__init__", f"{_service(daemon)}.stop"):
            body = bytes([consts.MSG_REQUEST]) + brine.dump((7, (consts.HANDLE_CALL, (consts.LABEL_VALUE, (name, (b"",))))))
            tls.sendall(struct.pack("!LB", len(body), 0) + body + b"\n")
            size, _ = struct.unpack("!LB", _exactly(tls, 5))
            answer = _exactly(tls, size + 1)
            assert answer[0] == consts.MSG_EXCEPTION
            assert b"Traceback" not in answer
    _assert_answers(unmoved, daemon)


def _tls(cluster: Cluster, daemon: str) -> ssl.SSLSocket:
    host, port = _address(cluster, daemon)
    plain = socket.create_connection((host, port), timeout=15)
    return client_context(cluster.ops).wrap_socket(plain, server_hostname=host)


def _exactly(tls: ssl.SSLSocket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        more = tls.recv(n - len(data))
        assert more, "hung up on"
        data += more
    return data


def _await_line(cluster: Cluster, daemon: str, *parts: str) -> None:
    """Return once the daemon has logged a line that holds all of `parts`."""
    until(lambda: any(all(part in line for part in parts) for line in cluster.log(daemon).splitlines()), " ".join(parts))


def _rest(plain: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionError):
        while more := plain.recv(4096):
            data += more
    return data


def _assert_answers(cluster: Cluster, daemon: str) -> None:
    method = "nodes" if daemon == "registry" else "status"
    try:
        _call(cluster, daemon, cluster.ops, method, m.Empty())
    except LabelloopError as exc:
        raise AssertionError(f"{daemon} does not answer any more") from exc
