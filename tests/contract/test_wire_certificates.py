"""Who may call what: certificates that are foreign, old or missing, and the kinds of peers a method is open to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.authority import Authority
from labelloop import messages as m
from labelloop.errors import (
    ForbiddenError,
    LabelloopError,
    RetryableError,
    UnauthenticatedError,
)
from labelloop.methods import SERVICES
from labelloop.settings import ClusterSettings
from labelloop.tls import Anonymous, Identity
from labelloop.wire import Client, Server
from tests.contract.wire_world import (
    KEY,
    KINDS,
    SETTINGS,
    World,
    address_of,
    every_method,
    job_reply,
    open_world,
    smallest,
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as opened:
        yield opened


@pytest.fixture
def server(world: World) -> Server:
    return world.server({"job": job_reply})


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
