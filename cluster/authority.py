"""The cluster's certificate authority: its key, its join tokens, and whom it has admitted.

Owns one folder: `ca.key` (0600), `ca.pem` (its subject carries the cluster id), `tokens/` (one file a token, hashes only) and
`issued/` (`cluster.ledger`: who holds a certificate, which are revoked).
A certificate's common name is the holder's name, its organisational unit the kind, its alternative name the address; only
nodes may serve, so only their certificates say so. Must never write or log a secret, and never sign what a token does not grant.
Called by `cluster.registry` (admit, renew), which runs on the machine of the CA, and by the ops command (tokens).

Tokens are files so that the registry and the ops command may work on one folder at the same time.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ipaddress
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from cluster.ledger import Issued, Ledger
from labelloop.decoding import decode_json
from labelloop.errors import ConflictError, ForbiddenError, IntegrityError, InvalidInputError, NotFoundError, UnauthenticatedError
from labelloop.ids import parse_node
from labelloop.messages import AdmitReply, AdmitRequest, PeerKind
from labelloop.settings import ClusterSettings
from labelloop.tls import Identity, Peer, identity_in, make_key, make_request, make_token, write_file

KINDS: tuple[PeerKind, ...] = ("node", "ops", "client")
CA_DAYS = 3650
START_BACK_S = 3600.0

IsTaken = Callable[[str, str, str], bool]


class TokenView(msgspec.Struct, frozen=True, kw_only=True):
    """A join token as people may see it: its id, what it grants and until when (Unix time); never the secret."""

    token_id: str
    kind: PeerKind
    expires_s: float


def key_fingerprint(key: Any) -> str:
    """Return the SHA-256 (hex) of a public key: the same as `Peer.key` of its holder."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


class Authority:
    """Opens the CA in `folder`, founding one (and with it the cluster id) where there is none.

    `clock` gives Unix time. One instance may be used by many threads: nothing changes in it after the constructor.
    """

    def __init__(self, folder: Path, settings: ClusterSettings, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._settings = settings
        self._clock = clock
        self.ledger = Ledger(folder / "issued", clock)
        self._tokens = folder / "tokens"
        self._tokens.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.ca_file.exists():
            self._found()
        self._key = self._load_key()
        self._ca = x509.load_pem_x509_certificate(self.ca_file.read_bytes())
        if key_fingerprint(self._ca.public_key()) != key_fingerprint(self._key.public_key()):
            raise IntegrityError(f"{self.ca_file} is not of the key {folder / 'ca.key'}: restore both from one backup")
        self.ca_pem = self._ca.public_bytes(Encoding.PEM).decode()

    @property
    def ca_file(self) -> Path:
        """The CA certificate: public, and what everybody trusts."""
        return self._folder / "ca.pem"

    @property
    def cluster_id(self) -> str:
        """The id of the cluster, made when the CA was founded."""
        return str(self._ca.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)[0].value)

    # ------------------------------------------------------------ tokens

    def create_token(self, kind: PeerKind, life_s: float | None = None) -> str:
        """Return a new join token that admits peers of `kind` for `life_s` seconds (default `cluster.token_life_s`)."""
        if kind not in KINDS:
            raise InvalidInputError(f"kind {kind!r} is none of {', '.join(KINDS)}")
        life_s = self._settings.token_life_s if life_s is None else life_s
        secret = secrets.token_hex(32)  # never begins with a '-', which a command line would take for an option
        hashed = _hash_secret(secret)
        view = TokenView(token_id=hashed[:16], kind=kind, expires_s=self._clock() + life_s)
        write_file(self._token_file(hashed), msgspec.json.encode(view), 0o600)
        return make_token(secret, self.ca_pem)

    def revoke_token(self, token_id: str) -> None:
        """Make a token worthless; whom it admitted stays. `token_id` as listed, or the whole token. Raises NotFoundError."""
        if "." in token_id:
            token_id = _hash_secret(token_id.rpartition(".")[0])[:16]
        found = [path for path in self._tokens.glob("*.json") if path.stem[:16] == token_id]
        if not found:
            raise NotFoundError(f"no join token has the id {token_id!r}: list the tokens")
        for path in found:
            path.unlink(missing_ok=True)

    def list_tokens(self) -> tuple[TokenView, ...]:
        """Return the tokens that are good now, the next to expire first; expired ones are removed from disk."""
        views = []
        for path in self._tokens.glob("*.json"):
            view = self._read_token(path)
            if view is not None:
                views.append(view)
        return tuple(sorted(views, key=lambda view: view.expires_s))

    def _token_file(self, hashed: str) -> Path:
        return self._tokens / f"{hashed}.json"

    def _read_token(self, path: Path) -> TokenView | None:
        try:
            view = decode_json(TokenView, path.read_bytes())
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        if view.expires_s <= self._clock():
            path.unlink(missing_ok=True)
            return None
        return view

    # ------------------------------------------------------------ certificates

    def admit(self, request: AdmitRequest, is_taken: IsTaken) -> AdmitReply:
        """Return a certificate for a request under a join token.

        `is_taken(name, address, key)`: another key than `key` (fingerprint) still heartbeats under that name or address;
        the address is '' for peers that are no nodes, as they may share a machine with one.
        Raises UnauthenticatedError, ForbiddenError, ConflictError, InvalidInputError.
        """
        token = self._read_token(self._token_file(_hash_secret(request.secret)))
        if token is None:
            raise UnauthenticatedError("the join token is unknown, expired or revoked: ask ops for a new one")
        if token.kind != request.kind:
            raise ForbiddenError(f"the join token admits a {token.kind}, not a {request.kind}")
        return self._reply(request, is_taken)

    def renew(self, request: AdmitRequest, peer: Peer) -> AdmitReply:
        """Return a fresh certificate for the holder of a good one, for the same key, name, address and kind.

        Raises ForbiddenError when any of them differs.
        """
        csr = _read_request(request.csr_pem)
        asked = (request.name, request.address, request.kind, key_fingerprint(csr.public_key()))
        if asked != (peer.name, peer.address, peer.kind, peer.key):
            raise ForbiddenError(f"{peer.name} may renew its own certificate only: same key, name, address and kind")
        return self._reply(request, lambda name, address, key: False)

    def own_identity(self, name: str, address: str, kind: PeerKind, folder: Path) -> Identity:
        """Return an identity in `folder` for a process on the CA's own machine (the registry): it serves, whatever its kind.

        The key in `folder` is kept, the certificate made anew at each call.
        """
        identity = identity_in(folder)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        make_key(identity.key_file)
        csr = _read_request(make_request(identity.key_file, name))
        pem = self._sign(csr.public_key(), parse_node(name), _parse_ip(address), kind, is_server=True)
        write_file(identity.ca_file, self.ca_pem.encode())
        write_file(identity.certificate_file, pem.encode())
        return identity

    def _reply(self, request: AdmitRequest, is_taken: IsTaken) -> AdmitReply:
        name, address = parse_node(request.name), _parse_ip(request.address)
        key = _read_request(request.csr_pem).public_key()
        if any(issued.key == key_fingerprint(key) for issued in self.ledger.revoked()):
            raise ForbiddenError(f"the key of {name} was revoked: remove its identity folder and join again with a token")
        is_node = request.kind == "node"
        if is_taken(name, str(address) if is_node else "", key_fingerprint(key)):
            raise ConflictError(
                f"name {name} or address {address} is held by a living peer with another key: "
                "choose another, or stop that peer first"
            )
        pem = self._sign(key, name, address, request.kind, is_server=is_node)
        self._note(pem, name, request.kind, key)
        return AdmitReply(certificate_pem=pem, ca_pem=self.ca_pem, cluster_id=self.cluster_id)

    def _sign(self, key: Any, name: str, address: Any, kind: PeerKind, is_server: bool) -> str:
        now_s = self._clock()
        subject = x509.Name(
            [
                x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, self.cluster_id),
                x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, kind),
                x509.NameAttribute(x509.NameOID.COMMON_NAME, name),
            ]
        )
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH] + [ExtendedKeyUsageOID.SERVER_AUTH] * is_server
        builder = (
            _builder(subject, self._ca.subject, key, now_s, now_s + self._settings.certificate_days * 86400.0)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(address)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    def _note(self, pem: str, name: str, kind: str, key: Any) -> None:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        expires_s = certificate.not_valid_after_utc.timestamp()
        serial = format(certificate.serial_number, "x")
        self.ledger.note(Issued(serial=serial, name=name, kind=kind, key=key_fingerprint(key), expires_s=expires_s))

    # ------------------------------------------------------------ founding

    def _found(self) -> None:
        """Make key and certificate; of two founders at once the first wins and both use its files."""
        key = ec.generate_private_key(ec.SECP256R1())
        _create(self._folder / "ca.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
        winner = self._load_key()
        now_s = self._clock()
        subject = x509.Name(
            [
                x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, secrets.token_hex(8)),
                x509.NameAttribute(x509.NameOID.COMMON_NAME, "labelloop cluster CA"),
            ]
        )
        certificate = (
            _builder(subject, subject, winner.public_key(), now_s, now_s + CA_DAYS * 86400.0)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_signing_only(), critical=True)
            .sign(winner, hashes.SHA256())
        )
        _create(self.ca_file, certificate.public_bytes(Encoding.PEM), 0o644)

    def _load_key(self) -> ec.EllipticCurvePrivateKey:
        path = self._folder / "ca.key"
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError, TypeError) as exc:
            raise IntegrityError(f"cannot read the CA key {path}: {exc}; restore it from the backup") from exc
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise IntegrityError(f"{path} is not an elliptic-curve key: restore it from the backup")
        return key


def _hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _create(path: Path, data: bytes, mode: int) -> None:
    """Create `path` complete or leave the one that is there."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    write_file(beside, data, mode)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(beside, path)
    finally:
        beside.unlink()


def _read_request(pem: str) -> x509.CertificateSigningRequest:
    try:
        csr = x509.load_pem_x509_csr(pem.encode())
        is_signed = csr.is_signature_valid
    except (ValueError, TypeError, InvalidSignature) as exc:
        raise InvalidInputError(f"not a certificate signing request: {exc}") from exc
    key = csr.public_key()
    if not is_signed or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidInputError("a certificate signing request must be signed with a P-256 key of its own")
    return csr


def _parse_ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError as exc:
        raise InvalidInputError(f"address {address!r} is not an IP address") from exc
    if ip.is_multicast or ip.is_unspecified or ip == ipaddress.ip_address("255.255.255.255"):
        raise InvalidInputError(f"address {address} is no unicast address")
    return ip


def _time(unix_s: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(unix_s, datetime.UTC)


def _builder(subject: x509.Name, issuer: x509.Name, key: Any, now_s: float, end_s: float) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(now_s - START_BACK_S))
        .not_valid_after(_time(end_s))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _signing_only() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
