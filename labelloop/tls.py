"""Who a peer is: keys, certificates, the pinned cluster CA, and the TLS contexts made of them.

Owns the three files of an identity folder (`key.pem` 0600, `certificate.pem`, `ca.pem`) and the form of a join token,
`<secret>.<SHA-256 of the CA certificate's DER, hex>`. Must never send a key, nor a token's secret before the CA is pinned;
must never log either. `cryptography` is imported only inside the functions that make keys and requests: the base install does
without it. Called by `labelloop.wire`, by managers (enrol, renew) and by foreign backends (enrol once).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from labelloop.errors import IntegrityError, InvalidInputError, SettingsError, UnauthenticatedError
from labelloop.messages import AdmitReply, AdmitRequest, PeerKind
from labelloop.settings import WireSettings

KEY_FILE = "key.pem"
CERTIFICATE_FILE = "certificate.pem"
CA_FILE = "ca.pem"
ANONYMOUS = "anonymous"


class Identity(msgspec.Struct, frozen=True):
    """A certificate, its key and the CA that both ends trust, as files."""

    certificate_file: Path
    key_file: Path
    ca_file: Path


class Anonymous(msgspec.Struct, frozen=True):
    """A caller that has no certificate yet but knows whom to trust; only `registry.admit` answers it."""

    ca_file: Path


class Peer(msgspec.Struct, frozen=True):
    """The other end as its certificate tells: `kind` is node, ops, client or anonymous; `key` the SHA-256 of its public key."""

    name: str
    kind: str
    address: str
    key: str = ""


# ---------------------------------------------------------------- files


def write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put `data` at `path` with `mode`, complete or not at all; never readable by others for a moment when `mode` forbids it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def identity_in(folder: Path) -> Identity:
    """Return the identity whose three files lie, or will lie, in `folder`."""
    return Identity(folder / CERTIFICATE_FILE, folder / KEY_FILE, folder / CA_FILE)


def load_identity(folder: Path) -> Identity:
    """Return the identity in `folder`. Raises UnauthenticatedError naming the missing file, or a key that others may read."""
    identity = identity_in(folder)
    for path in (identity.key_file, identity.certificate_file, identity.ca_file):
        if not path.is_file():
            raise UnauthenticatedError(f"{path} is missing: join the cluster first (enrol with a join token)")
    if identity.key_file.stat().st_mode & 0o077:
        raise UnauthenticatedError(f"{identity.key_file} is readable by others: chmod 600 it, or enrol anew with a new key")
    return identity


# ---------------------------------------------------------------- tokens and fingerprints


def certificate_hash(pem: str) -> str:
    """Return the SHA-256 (hex) of the first certificate in `pem`, over its DER bytes. Raises IntegrityError."""
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.strip())).hexdigest()
    except ValueError as exc:
        raise IntegrityError("the CA certificate is not PEM") from exc


def make_token(secret: str, ca_pem: str) -> str:
    """Return the join token of `secret` under the CA `ca_pem`."""
    return f"{secret}.{certificate_hash(ca_pem)}"


def split_token(token: str) -> tuple[str, str]:
    """Return (secret, CA hash) of a join token. Raises InvalidInputError, which never repeats the secret."""
    secret, _, ca_hash = token.strip().rpartition(".")
    if not secret or len(ca_hash) != 64 or any(c not in "0123456789abcdef" for c in ca_hash):
        raise InvalidInputError("the join token is not '<secret>.<64 hex digits>': copy it whole, or ask ops for a new one")
    return secret, ca_hash


def _der_parts(data: memoryview) -> list[memoryview]:
    """Return the elements of one DER sequence's content, each with its own header."""
    parts: list[memoryview] = []
    at = 0
    while at < len(data):
        length, head = data[at + 1], 2
        if length & 0x80:
            n = length & 0x7F
            length, head = int.from_bytes(data[at + 2 : at + 2 + n], "big"), 2 + n
        parts.append(data[at : at + head + length])
        at += head + length
    return parts


def _der_content(element: memoryview) -> memoryview:
    return element[2 + (element[1] & 0x7F if element[1] & 0x80 else 0) :]


def key_hash(certificate_der: bytes) -> str:
    """Return the SHA-256 (hex) of the SubjectPublicKeyInfo of a certificate: the key's name, whatever certificate it wears."""
    to_be_signed = _der_parts(_der_content(memoryview(certificate_der)))[0]
    fields = _der_parts(_der_content(to_be_signed))
    after_version = 1 if fields[0][0] == 0xA0 else 0
    return hashlib.sha256(fields[after_version + 5]).hexdigest()


def peer_of(connection: ssl.SSLSocket, address: str) -> Peer:
    """Return who is at the other end of a finished handshake; without a certificate, an anonymous peer at `address`.

    Raises UnauthenticatedError when the certificate lacks name, kind or address.
    """
    shown: dict[str, Any] | None = connection.getpeercert()
    der = connection.getpeercert(True)
    if not shown or der is None:
        return Peer(name="", kind=ANONYMOUS, address=address)
    subject = {key: value for group in shown.get("subject", ()) for key, value in group}
    addresses = [value for kind, value in shown.get("subjectAltName", ()) if kind == "IP Address"]
    name, kind = subject.get("commonName", ""), subject.get("organizationalUnitName", "")
    if not name or kind not in ("node", "ops", "client") or not addresses:
        raise UnauthenticatedError(f"the certificate of {address} names no holder of a known kind: enrol anew")
    return Peer(name=name, kind=kind, address=addresses[0], key=key_hash(der))


# ---------------------------------------------------------------- contexts


def server_context(identity: Identity, is_certificate_needed: bool = True) -> ssl.SSLContext:
    """Return the TLS 1.3 context of a server; peers without a certificate pass only where `is_certificate_needed` is False."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # nothing but answers reaches a client: an idle socket that is readable has been closed
    _trust(context, identity.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED if is_certificate_needed else ssl.CERT_OPTIONAL
    _show(context, identity)
    return context


def client_context(identity: Identity | Anonymous) -> ssl.SSLContext:
    """Return the TLS 1.3 context of a caller: trusts the cluster's CA alone and checks the address in the server's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _trust(context, identity.ca_file)
    if isinstance(identity, Identity):
        _show(context, identity)
    return context


def unverified_context() -> ssl.SSLContext:
    """Return a context that trusts anybody: only to fetch a CA certificate that is then held against a token's hash."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _trust(context: ssl.SSLContext, ca_file: Path) -> None:
    try:
        context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise UnauthenticatedError(f"cannot use the CA certificate {ca_file}: {exc}; enrol anew") from exc


def _show(context: ssl.SSLContext, identity: Identity) -> None:
    try:
        context.load_cert_chain(identity.certificate_file, identity.key_file)
    except (OSError, ssl.SSLError) as exc:
        raise UnauthenticatedError(f"cannot use {identity.certificate_file} with its key: {exc}; enrol anew") from exc


class ContextSource:
    """Gives the context of an identity and makes a new one when its certificate file has been renewed. Thread-safe."""

    def __init__(self, identity: Identity | Anonymous, is_server: bool = False, is_certificate_needed: bool = True) -> None:
        self._identity = identity
        self._is_server = is_server
        self._is_certificate_needed = is_certificate_needed
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._seen: tuple[int, int] = (0, 0)

    def get(self) -> ssl.SSLContext:
        """Return the context; a renewed certificate that cannot be read yet keeps the one in use."""
        with self._lock:
            seen = self._look()
            if self._context is None or seen != self._seen:
                try:
                    self._context, self._seen = self._make(), seen
                except UnauthenticatedError:
                    if self._context is None:
                        raise
            return self._context

    def _look(self) -> tuple[int, int]:
        path = self._identity.certificate_file if isinstance(self._identity, Identity) else self._identity.ca_file
        with contextlib.suppress(OSError):
            stat = path.stat()
            return stat.st_mtime_ns, stat.st_ino
        return self._seen

    def _make(self) -> ssl.SSLContext:
        if self._is_server and isinstance(self._identity, Identity):
            return server_context(self._identity, self._is_certificate_needed)
        return client_context(self._identity)


# ---------------------------------------------------------------- joining and renewing


def _cryptography() -> Any:
    try:
        from cryptography import x509
    except ImportError as exc:
        raise SettingsError("making keys needs the package 'cryptography': pip install 'labelloop[join]'") from exc
    return x509


def make_key(path: Path) -> None:
    """Create a P-256 key of mode 0600 at `path` unless one is there: a node keeps its key over restarts and renewals."""
    if path.exists():
        return
    _cryptography()
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    write_file(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)


def make_request(key_file: Path, name: str) -> str:
    """Return a certificate signing request (PEM) for `name`, signed with the key; address and kind are the CA's to write."""
    x509 = _cryptography()
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

    key = load_pem_private_key(key_file.read_bytes(), None)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return str(request.public_bytes(Encoding.PEM).decode())


def enrol(
    registry: str, token: str, name: str, address: str, kind: PeerKind, folder: Path, settings: WireSettings | None = None
) -> Identity:
    """Join the cluster of `registry` ('host:port') under a join token and return the identity written into `folder`.

    The key is made in `folder` and stays there; the CA is fetched, held against the token's hash, and only then the secret leaves.
    Raises UnauthenticatedError (wrong CA, wrong, expired or revoked token), ConflictError (name or address in use),
    UnreachableError, SettingsError (package `cryptography` missing).
    """
    from labelloop.wire import Client, fetch_ca  # wire imports this module

    settings = settings or WireSettings()
    secret, ca_hash = split_token(token)
    identity = identity_in(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    make_key(identity.key_file)
    ca_pem = fetch_ca(registry, settings)
    if certificate_hash(ca_pem) != ca_hash:
        raise UnauthenticatedError(f"{registry} is not the cluster of this join token: its CA has another hash")
    write_file(identity.ca_file, ca_pem.encode())
    request = AdmitRequest(secret=secret, csr_pem=make_request(identity.key_file, name), name=name, address=address, kind=kind)
    with contextlib.closing(Client(registry, "registry", Anonymous(identity.ca_file), settings)) as client:
        reply = client.call("admit", request)
    return _accept(reply, identity)


def renew(registry: str, identity: Identity, settings: WireSettings | None = None) -> None:
    """Replace the certificate by a fresh one for the same key, name, address and kind, asked for under the one in use.

    Servers and clients of this process take it up with their next connection. Raises UnreachableError, UnauthenticatedError.
    """
    from labelloop.wire import Client

    name, kind, address = _holder(identity)
    request = AdmitRequest(secret="", csr_pem=make_request(identity.key_file, name), name=name, address=address, kind=kind)
    with contextlib.closing(Client(registry, "registry", identity, settings or WireSettings())) as client:
        _accept(client.call("renew", request), identity)


def is_renewal_due(identity: Identity, now_s: float | None = None) -> bool:
    """Return True once half of the certificate's life is over; `now_s` is Unix time."""
    certificate = _cryptography().load_pem_x509_certificate(identity.certificate_file.read_bytes())
    start, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    return bool((time.time() if now_s is None else now_s) >= start + (end - start) / 2)


def _holder(identity: Identity) -> tuple[str, PeerKind, str]:
    x509 = _cryptography()
    certificate = x509.load_pem_x509_certificate(identity.certificate_file.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    name = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
    kind = certificate.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATIONAL_UNIT_NAME)[0].value
    return name, kind, str(names.get_values_for_type(x509.IPAddress)[0])


def _accept(reply: Any, identity: Identity) -> Identity:
    """Write the certificate of an AdmitReply; it must be of our key and of the pinned CA."""
    if not isinstance(reply, AdmitReply):
        raise IntegrityError(f"the registry answered {type(reply).__name__} to a certificate request")
    if certificate_hash(reply.ca_pem) != certificate_hash(identity.ca_file.read_text()):
        raise UnauthenticatedError("the registry answered with a certificate of another CA than the pinned one")
    trial = identity.certificate_file.with_name(".trial.pem")
    write_file(trial, reply.certificate_pem.encode())
    try:
        client_context(Identity(trial, identity.key_file, identity.ca_file))
        trial.replace(identity.certificate_file)
    finally:
        trial.unlink(missing_ok=True)
    return identity
