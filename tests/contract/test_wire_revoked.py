"""A revoked certificate is refused by every server that has been told, at once and with a sentence; everybody else goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from labelloop.errors import UnauthenticatedError
from labelloop.revocation import REVOKED_FILE, RevokedSerials, plain_serial, write_revoked
from labelloop.tls import Identity
from tests.contract.wire_world import KEY, World, job_reply, open_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as opened:
        yield opened


def _serial(identity: Identity) -> str:
    return f"{x509.load_pem_x509_certificate(identity.certificate_file.read_bytes()).serial_number:X}"


def test_a_revoked_caller_is_refused_on_its_open_connection_and_on_a_new_one_and_others_are_not(world: World) -> None:
    own, bad = world.identity("server"), world.identity("c1", "client")
    server = world.server({"job": job_reply}, identity=own)
    open_line, other = world.client(server, bad), world.client(server, world.identity("c2", "client"))
    open_line.call("job", KEY)
    assert write_revoked(own.certificate_file.parent, [_serial(bad)])
    for client in (open_line, world.client(server, bad)):
        with pytest.raises(UnauthenticatedError, match="certificate of c1 was revoked: enrol anew"):
            client.call("job", KEY)
    other.call("job", KEY)


def test_a_revocation_taken_back_lets_the_caller_in_again(world: World) -> None:
    own, caller = world.identity("server"), world.identity("c1", "client")
    client = world.client(world.server({"job": job_reply}, identity=own), caller)
    write_revoked(own.certificate_file.parent, [_serial(caller)])
    with pytest.raises(UnauthenticatedError):
        client.call("job", KEY)
    write_revoked(own.certificate_file.parent, [])
    client.call("job", KEY)


def test_with_a_list_that_cannot_be_read_nobody_is_let_in(world: World) -> None:
    own = world.identity("server")
    client = world.client(world.server({"job": job_reply}, identity=own))
    (own.certificate_file.parent / REVOKED_FILE).write_text("[half")
    with pytest.raises(UnauthenticatedError, match="cannot be read, so nobody is let in"):
        client.call("job", KEY)


def test_serial_numbers_are_the_same_however_they_are_written(tmp_path: Path) -> None:
    assert write_revoked(tmp_path, ["0x00AB", "0C"])
    assert not write_revoked(tmp_path, ["ab", "c"])
    listed = RevokedSerials(tmp_path)
    assert listed.has("AB") and listed.has("000c") and not listed.has("b")
    assert plain_serial("00") == "0"


def test_an_empty_list_writes_no_file(tmp_path: Path) -> None:
    assert not write_revoked(tmp_path, [])
    assert list(tmp_path.iterdir()) == []
