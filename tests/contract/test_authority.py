"""The cluster's authority and joining it through a real registry server: tokens, certificates, renewal, refusals."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from cluster.authority import Authority
from labelloop import messages as m
from labelloop.errors import (
    ConflictError,
    ForbiddenError,
    IntegrityError,
    InvalidInputError,
    LabelloopError,
    NotFoundError,
    UnauthenticatedError,
)
from labelloop.settings import ClusterSettings
from labelloop.tls import enrol, identity_in, is_renewal_due, key_hash, load_identity, make_key, make_request, renew
from labelloop.wire import Client, Peer, Server
from tests.contract.wire_world import SETTINGS, World, address_of, open_world

DAY_S = 86400.0


def nobody(name: str, address: str, key: str) -> bool:
    return False


class Clock:
    def __init__(self) -> None:
        self.now_s = time.time()

    def __call__(self) -> float:
        return self.now_s


def request_for(
    folder: Path, secret: str, kind: m.PeerKind = "node", name: str = "n2", address: str = "127.0.0.2"
) -> m.AdmitRequest:
    folder.mkdir(exist_ok=True)
    make_key(identity_in(folder).key_file)
    csr = make_request(identity_in(folder).key_file, "whatever")
    return m.AdmitRequest(secret=secret, csr_pem=csr, name=name, address=address, kind=kind)


def secret_of(token: str) -> str:
    return token.rpartition(".")[0]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca", ClusterSettings())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as opened:
        yield opened


def registry_of(world: World, is_taken: object = nobody, admitted: list[str] | None = None) -> Server:
    def admit(request: m.AdmitRequest, peer: Peer) -> m.AdmitReply:
        if admitted is not None:
            admitted.append(request.secret)
        return world.authority.admit(request, is_taken)  # type: ignore[arg-type]

    return world.server({"admit": admit, "renew": world.authority.renew}, "registry")


# ---------------------------------------------------------------- the folder


def test_the_ca_key_is_private_and_a_second_opening_finds_the_same_cluster(tmp_path: Path, authority: Authority) -> None:
    assert (tmp_path / "ca" / "ca.key").stat().st_mode & 0o777 == 0o600
    again = Authority(tmp_path / "ca", ClusterSettings())
    assert (again.cluster_id, again.ca_pem) == (authority.cluster_id, authority.ca_pem)


def test_founders_at_the_same_moment_found_one_cluster(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    def found() -> None:
        one = Authority(tmp_path / "ca", ClusterSettings())
        seen.append((one.cluster_id, one.ca_pem))

    threads = [threading.Thread(target=found) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len(set(seen)) == 1


def test_a_key_of_another_ca_is_refused_rather_than_used(tmp_path: Path, authority: Authority) -> None:
    Authority(tmp_path / "other", ClusterSettings())
    (tmp_path / "ca" / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    with pytest.raises(IntegrityError, match="one backup"):
        Authority(tmp_path / "ca", ClusterSettings())


# ---------------------------------------------------------------- tokens


def test_a_token_lies_on_disk_as_a_hash_only_and_reads_secret_dot_ca_hash(tmp_path: Path, authority: Authority) -> None:
    token = authority.create_token("node")
    secret, _, ca_hash = token.rpartition(".")
    assert len(ca_hash) == 64
    for path in (tmp_path / "ca").rglob("*"):
        assert secret not in path.name
        assert path.is_dir() or secret.encode() not in path.read_bytes()


def test_tokens_are_listed_without_their_secret_expire_and_can_be_revoked(tmp_path: Path) -> None:
    clock = Clock()
    authority = Authority(tmp_path / "ca", ClusterSettings(), clock)
    brief, lasting = authority.create_token("ops", 60.0), authority.create_token("client", 3600.0)
    assert [view.kind for view in authority.list_tokens()] == ["ops", "client"]
    assert secret_of(lasting) not in repr(authority.list_tokens())
    clock.now_s += 61.0
    assert [view.kind for view in authority.list_tokens()] == ["client"]
    with pytest.raises(UnauthenticatedError, match="expired"):
        authority.admit(request_for(tmp_path / "a", secret_of(brief), "ops"), nobody)
    authority.revoke_token(authority.list_tokens()[0].token_id)
    with pytest.raises(UnauthenticatedError, match="revoked"):
        authority.admit(request_for(tmp_path / "a", secret_of(lasting), "client"), nobody)
    with pytest.raises(NotFoundError):
        authority.revoke_token(lasting)


def test_a_whole_token_can_be_named_to_revoke_it(authority: Authority) -> None:
    authority.revoke_token(authority.create_token("node"))
    assert authority.list_tokens() == ()


@pytest.mark.parametrize("granted", ["node", "ops", "client"])
@pytest.mark.parametrize("asked", ["node", "ops", "client"])
def test_a_token_admits_its_own_kind_only(tmp_path: Path, authority: Authority, granted: m.PeerKind, asked: m.PeerKind) -> None:
    request = request_for(tmp_path / "a", secret_of(authority.create_token(granted)), asked)
    if granted == asked:
        authority.admit(request, nobody)
    else:
        with pytest.raises(ForbiddenError, match=f"admits a {granted}, not a {asked}"):
            authority.admit(request, nobody)


@pytest.mark.parametrize("secret", ["", "x", "../../ca", "a" * 43])
def test_a_secret_that_was_never_given_admits_nobody(tmp_path: Path, authority: Authority, secret: str) -> None:
    with pytest.raises(UnauthenticatedError):
        authority.admit(request_for(tmp_path / "a", secret), nobody)


# ---------------------------------------------------------------- certificates


def test_a_certificate_says_name_kind_address_starts_an_hour_back_and_ends_after_the_set_days(tmp_path: Path) -> None:
    clock = Clock()
    authority = Authority(tmp_path / "ca", ClusterSettings(certificate_days=7), clock)
    reply = authority.admit(request_for(tmp_path / "a", secret_of(authority.create_token("node"))), nobody)
    certificate = x509.load_pem_x509_certificate(reply.certificate_pem.encode())
    assert certificate.subject.rfc4514_string() == f"CN=n2,OU=node,O={authority.cluster_id}"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.2"]
    assert certificate.not_valid_before_utc.timestamp() == pytest.approx(clock.now_s - 3600.0, abs=1.0)
    assert certificate.not_valid_after_utc.timestamp() == pytest.approx(clock.now_s + 7 * DAY_S, abs=1.0)
    assert reply.cluster_id == authority.cluster_id


def test_a_name_or_address_whose_holder_lives_under_another_key_is_refused(tmp_path: Path, authority: Authority) -> None:
    asked: list[tuple[str, str, str]] = []

    def is_taken(name: str, address: str, key: str) -> bool:
        asked.append((name, address, key))
        return True

    secret = secret_of(authority.create_token("node"))
    with pytest.raises(ConflictError, match=r"n2.*127\.0\.0\.2"):
        authority.admit(request_for(tmp_path / "a", secret), is_taken)
    own = authority.admit(request_for(tmp_path / "a", secret), nobody)
    assert asked == [("n2", "127.0.0.2", key_hash(ssl.PEM_cert_to_DER_cert(own.certificate_pem)))]


def test_a_client_may_share_the_address_of_a_node_but_not_its_name(tmp_path: Path, authority: Authority) -> None:
    request = request_for(tmp_path / "a", secret_of(authority.create_token("client")), "client")
    authority.admit(request, lambda name, address, key: address == "127.0.0.2")
    with pytest.raises(ConflictError):
        authority.admit(request, lambda name, address, key: name == "n2")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "Bad Name"}, "hostname 'Bad Name'"),
        ({"name": "n2,OU=ops"}, "hostname"),
        ({"address": "not-an-ip"}, "'not-an-ip'"),
        ({"address": "0.0.0.0"}, "unicast"),
        ({"address": "224.0.0.1"}, "unicast"),
        ({"csr_pem": "nonsense"}, "signing request"),
    ],
)
def test_malformed_requests_are_refused_with_the_value_named(
    tmp_path: Path, authority: Authority, change: dict[str, str], words: str
) -> None:
    request = request_for(tmp_path / "a", secret_of(authority.create_token("node")))
    with pytest.raises(InvalidInputError, match=words):
        authority.admit(msgspec.structs.replace(request, **change), nobody)


def test_a_request_whose_signature_was_tampered_with_is_refused(tmp_path: Path, authority: Authority) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    request = request_for(tmp_path / "a", secret_of(authority.create_token("node")))
    der = bytearray(x509.load_pem_x509_csr(request.csr_pem.encode()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    pem = ssl.DER_cert_to_PEM_cert(bytes(der)).replace("CERTIFICATE", "CERTIFICATE REQUEST")
    with pytest.raises(InvalidInputError):
        authority.admit(m.AdmitRequest(secret=request.secret, csr_pem=pem, name="n2", address="127.0.0.2", kind="node"), nobody)


# ---------------------------------------------------------------- joining through the wire


def test_a_node_joins_with_a_token_and_is_known_by_name_kind_address_and_key(world: World) -> None:
    registry = registry_of(world)
    folder = world.folder / "n2"
    identity = enrol(address_of(registry), world.authority.create_token("node"), "n2", "127.0.0.2", "node", folder, SETTINGS)
    assert identity == load_identity(folder)
    assert identity.key_file.stat().st_mode & 0o777 == 0o600
    seen: list[Peer] = []

    def job(request: m.JobKey, peer: Peer) -> m.JobReply:
        seen.append(peer)
        return m.JobReply(task="t", job_id="j", version="", chunks=0, done=0, state="done")

    server = world.server({"job": job}, identity=identity, host="127.0.0.2")
    world.client(server, identity).call("job", m.JobKey(task="t", job_id="j"))
    der = ssl.PEM_cert_to_DER_cert(identity.certificate_file.read_text())
    assert seen == [Peer("n2", "node", "127.0.0.2", key_hash(der))]


def test_joining_again_keeps_the_key_so_that_a_rebooted_node_is_not_taken_for_another(world: World) -> None:
    registry = registry_of(world)
    token, folder = world.authority.create_token("node"), world.folder / "n2"
    first = enrol(address_of(registry), token, "n2", "127.0.0.2", "node", folder, SETTINGS).key_file.read_bytes()
    assert enrol(address_of(registry), token, "n2", "127.0.0.2", "node", folder, SETTINGS).key_file.read_bytes() == first


def test_the_secret_never_leaves_for_a_registry_of_another_ca(world: World, tmp_path: Path) -> None:
    admitted: list[str] = []
    impostor = registry_of(world, admitted=admitted)
    token = Authority(tmp_path / "true", ClusterSettings()).create_token("node")
    with pytest.raises(UnauthenticatedError, match="not the cluster of this join token"):
        enrol(address_of(impostor), token, "n2", "127.0.0.2", "node", world.folder / "n2", SETTINGS)
    assert admitted == []
    with pytest.raises(UnauthenticatedError, match="missing"):
        load_identity(world.folder / "n2")


@pytest.mark.parametrize("token", ["", "abc", "secret.1234", "." + "a" * 64])
def test_a_token_that_is_no_token_says_so_without_repeating_it(world: World, token: str) -> None:
    with pytest.raises(InvalidInputError, match="join token") as caught:
        enrol("127.0.0.1:1", token, "n2", "127.0.0.2", "node", world.folder / "n2", SETTINGS)
    assert not token or token not in str(caught.value)


def test_a_certificate_is_due_at_half_its_life_and_renewing_keeps_the_key_while_servers_take_it_up(world: World) -> None:
    registry = registry_of(world)
    folder = world.folder / "n2"
    token = world.authority.create_token("node")
    identity = enrol(address_of(registry), token, "n2", "127.0.0.2", "node", folder, SETTINGS)
    assert not is_renewal_due(identity)
    assert not is_renewal_due(identity, time.time() + 44 * DAY_S)
    assert is_renewal_due(identity, time.time() + 46 * DAY_S)
    server = world.server({}, identity=identity, host="127.0.0.2")
    old = _shown(world, server)
    renew(address_of(registry), identity, SETTINGS)
    new = _shown(world, server)
    assert new != old
    assert key_hash(new) == key_hash(old)


def test_nobody_renews_a_certificate_that_is_not_its_own(world: World) -> None:
    registry = registry_of(world)
    token, folder = world.authority.create_token("client"), world.folder / "c2"
    identity = enrol(address_of(registry), token, "c2", "127.0.0.1", "client", folder, SETTINGS)
    csr = make_request(identity.key_file, "c2")
    other_key = request_for(world.folder / "a", "").csr_pem
    client = Client(address_of(registry), "registry", identity, SETTINGS)
    world.stack.callback(client.close)
    wanted: list[tuple[str, str, str, m.PeerKind]] = [
        (csr, "n2", "127.0.0.1", "client"),
        (csr, "c2", "127.0.0.2", "client"),
        (csr, "c2", "127.0.0.1", "ops"),
        (other_key, "c2", "127.0.0.1", "client"),
    ]
    for pem, name, address, kind in wanted:
        with pytest.raises(ForbiddenError, match="its own certificate only"):
            client.call("renew", m.AdmitRequest(secret="", csr_pem=pem, name=name, address=address, kind=kind))
    client.call("renew", m.AdmitRequest(secret="", csr_pem=csr, name="c2", address="127.0.0.1", kind="client"))


def test_a_node_whose_name_is_taken_hears_it_and_gets_no_certificate(world: World) -> None:
    registry = registry_of(world, is_taken=lambda name, address, key: name == "n2")
    with pytest.raises(ConflictError):
        enrol(address_of(registry), world.authority.create_token("node"), "n2", "127.0.0.2", "node", world.folder / "n2", SETTINGS)
    with pytest.raises(LabelloopError):
        load_identity(world.folder / "n2")


def _shown(world: World, server: Server) -> bytes:
    der = world.raw(server).tls.getpeercert(True)
    assert der is not None
    return der
