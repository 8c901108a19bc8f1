"""How a daemon gets its identity: the one in its folder, or a new one under a join token.

Must never log or keep a token's secret. Called by manager_rpc.py (kind node) and by the ops command (kind ops).
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from pathlib import Path

import msgspec
from cryptography import x509

from labelloop.errors import RetryableError, SettingsError, UnauthenticatedError
from labelloop.messages import PeerKind
from labelloop.settings import WireSettings
from labelloop.tls import Identity, enrol, load_identity
from labelloop.wire import parse_address

logger = logging.getLogger(__name__)
_RETRY_S = 0.5


class Holder(msgspec.Struct, frozen=True):
    """Whom a certificate names, and of which cluster."""

    name: str
    address: str
    kind: str
    cluster_id: str


def holder_of(identity: Identity) -> Holder:
    """Return what the certificate in use says of its holder."""
    certificate = x509.load_pem_x509_certificate(identity.certificate_file.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    def subject(oid: x509.ObjectIdentifier) -> str:
        return str(certificate.subject.get_attributes_for_oid(oid)[0].value)

    return Holder(
        name=subject(x509.NameOID.COMMON_NAME),
        address=str(names.get_values_for_type(x509.IPAddress)[0]),
        kind=subject(x509.NameOID.ORGANIZATIONAL_UNIT_NAME),
        cluster_id=subject(x509.NameOID.ORGANIZATION_NAME),
    )


def join(
    registry: str, token_file: Path | None, name: str, address: str, kind: PeerKind, folder: Path, settings: WireSettings
) -> Identity:
    """Return the identity in `folder`, after enrolling once where there is none or it names somebody else.

    Waits for a registry that does not answer yet. Raises UnauthenticatedError, ConflictError, ForbiddenError; SettingsError when
    a token is needed and none was given.
    """
    try:
        identity = load_identity(folder)
        held = holder_of(identity)
        if (held.name, held.address, held.kind) == (name, address, kind):
            return identity
        logger.info("%s names %s at %s: enrolling anew as %s at %s", folder, held.name, held.address, name, address)
    except UnauthenticatedError as exc:
        logger.info("%s", exc)
    token = read_token(token_file)
    is_told = False
    while True:
        try:
            return enrol(registry, token, name, address, kind, folder, settings)
        except RetryableError as exc:
            if not is_told:
                logger.warning("cannot join through %s yet: %s; trying again", registry, exc)
            is_told = True
            time.sleep(_RETRY_S)


def read_token(path: Path | None) -> str:
    """Return the join token in a file. Raises SettingsError saying how to get one."""
    if path is None:
        raise SettingsError("no identity yet: give --token-file with a token of `labelloop token KIND`")
    try:
        return path.read_text().strip()
    except OSError as exc:
        raise SettingsError(f"cannot read the join token: {exc}; make one with `labelloop token KIND`") from exc


def own_address(registry: str) -> str:
    """Return the address of this machine from which the registry is reached; no packet is sent."""
    host, port = parse_address(registry)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, port))
        except OSError as exc:
            raise SettingsError(f"no route to the registry {registry}: {exc}; give --ip") from exc
        return str(probe.getsockname()[0])


def machine_address() -> str:
    """Return the address of this machine that others reach: the one of its default route.

    Raises SettingsError where it has none. No packet is sent.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # an address of documentation: only the route matters
        return str(probe.getsockname()[0])
    raise SettingsError("this machine has no default route, so no address of its own is known: give --host")
