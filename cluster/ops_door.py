"""How an ops command reaches the registry: its address, an ops identity, a client.

Owns the choice of the identity: made by the CA where the registry's folder is at hand, else by a join token, once. Quick on
purpose: what reads or makes certificates is imported only when one has to be made. Called by the commands of this room.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

from cluster.commands import ADDRESS_FILE
from labelloop.clients import RegistryClient
from labelloop.errors import SettingsError, UnauthenticatedError
from labelloop.settings import Settings, read_settings
from labelloop.tls import Identity, certificate_hash, load_identity, split_token

_DAY_S = 86400.0
_OPS_NAME = "ops"


class OpsDoor(NamedTuple):
    """A client of the registry, the identity that it uses, the settings."""

    client: RegistryClient
    identity: Identity
    settings: Settings


@contextlib.contextmanager
def open_door(args: argparse.Namespace) -> Iterator[OpsDoor]:
    """Yield the way to the registry that the arguments name. Raises SettingsError, UnreachableError, UnauthenticatedError."""
    settings = read_settings(args.settings)
    folder = registry_folder(args, settings)
    address = args.registry or _remembered_address(folder)
    identity = _identity(args, settings, folder, address)
    with contextlib.closing(RegistryClient(address, identity, settings.wire)) as client:
        yield OpsDoor(client, identity, settings)


def registry_folder(args: argparse.Namespace, settings: Settings) -> Path:
    """Return the registry's folder of `--state` or the settings."""
    return cast(Path, (args.state or Path(settings.state_dir) / "registry").absolute())


def _identity(args: argparse.Namespace, settings: Settings, folder: Path, address: str) -> Identity:
    half_life_s = settings.cluster.certificate_days * _DAY_S / 2
    if args.token_file is None and (folder / "authority").exists():
        kept = _kept(folder / "ops", half_life_s)
        if kept is not None and kept.ca_file.read_bytes() == (folder / "authority" / "ca.pem").read_bytes():
            return kept
        from cluster.authority import Authority
        from cluster.joining import own_address

        authority = Authority(folder / "authority", settings.cluster)
        return authority.own_identity(_OPS_NAME, own_address(address), "ops", folder / "ops")
    own = Path(settings.state_dir) / "ops"
    kept = _kept(own, half_life_s)
    if kept is not None and _is_of(kept, args.token_file):
        return kept
    return _made(args.token_file, settings, own, address)


def _made(token_file: Path | None, settings: Settings, folder: Path, address: str) -> Identity:
    """Return an identity renewed, or made with a join token."""
    from cluster.joining import join, own_address
    from labelloop.tls import renew

    if token_file is None and (folder / "certificate.pem").exists():
        identity = load_identity(folder)
        renew(address, identity, settings.wire)
        return identity
    if not _is_of(_kept(folder, float("inf")), token_file):
        (folder / "certificate.pem").unlink(missing_ok=True)  # of another cluster
    return join(address, token_file, _OPS_NAME, own_address(address), "ops", folder, settings.wire)


def _kept(folder: Path, half_life_s: float) -> Identity | None:
    """Return the identity in `folder` while its certificate is young: the file is as old as the certificate."""
    try:
        identity = load_identity(folder)
        age_s = time.time() - identity.certificate_file.stat().st_mtime
    except (UnauthenticatedError, FileNotFoundError):
        return None
    return identity if 0 <= age_s < half_life_s else None


def _is_of(identity: Identity | None, token_file: Path | None) -> bool:
    """Return whether an identity is of the cluster that the token, if any, leads into."""
    if identity is None or token_file is None:
        return identity is not None
    from cluster.joining import read_token

    return split_token(read_token(token_file))[1] == certificate_hash(identity.ca_file.read_text())


def _remembered_address(folder: Path) -> str:
    try:
        return (folder / ADDRESS_FILE).read_text().strip()
    except FileNotFoundError:
        raise SettingsError(f"no registry has run in {folder}: give --registry HOST:PORT, or its --state") from None
