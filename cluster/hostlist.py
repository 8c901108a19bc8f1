"""`hosts.toml`: which dockers `labelloop up` sets up, and how to enter them.

Owns the schema. Must never hold a secret: keys and the join token are named as files. Called by `cluster.up`.

    registry = "10.0.0.2:7600"           # as the registry printed it
    token_file = "node.token"            # join token of kind node; mode 0600; relative to this file
    datastore = "/home/datastore"
    mount = "mount-the-nas"              # optional: shell command that mounts it
    folder = "/opt/labelloop"            # where the project goes on each docker
    user = "root"
    key_file = "~/.ssh/id_ed25519"       # default: the agent and the usual files
    known_hosts = "~/.ssh/known_hosts"

    [[hosts]]
    address = "10.0.0.9"                 # any value above but registry and token_file may differ for one host
    port = 22
    name = "gpu-1"                       # host name of the node; default: the docker's own
    ip = ""                              # address of the node; default: the one that reaches the registry
    host_key = "ssh-ed25519 AAAA..."     # pinned; default: as known_hosts says
"""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from cluster.election import parse_ip
from labelloop.errors import InvalidInputError, LabelloopError
from labelloop.ids import parse_node
from labelloop.wire import parse_address

_SHARED = ("datastore", "mount", "folder", "user", "port", "key_file", "known_hosts")


class Host(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One docker to set up, with what the file says for all filled in."""

    address: str
    datastore: str
    name: str = ""
    ip: str = ""
    port: int = 22
    user: str = "root"
    folder: str = "/opt/labelloop"
    mount: str = ""
    key_file: str = ""
    known_hosts: str = "~/.ssh/known_hosts"
    host_key: str = ""

    @property
    def label(self) -> str:
        """Return what people call it: its name, or its address, with the port where that is not SSH's own."""
        return self.name or (self.address if self.port == 22 else f"{self.address}:{self.port}")


class HostList(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file; `token_file` '' = every host has been admitted before."""

    registry: str
    token_file: Path | None
    hosts: tuple[Host, ...]


def read_hosts(path: Path) -> HostList:
    """Return the hosts of a file. Raises InvalidInputError naming the entry and the way out."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise InvalidInputError(f"cannot read {path}: {exc}") from exc
    unknown = set(values) - {"registry", "token_file", "hosts", *_SHARED}
    if unknown:
        raise InvalidInputError(
            f"{path}: unknown entry {sorted(unknown)[0]!r}; there are registry, token_file, hosts, {', '.join(_SHARED)}"
        )
    registry = values.get("registry", "")
    try:
        parse_address(registry)
    except LabelloopError as exc:
        raise InvalidInputError(f"{path}: registry = {registry!r}: {exc}") from exc
    entries = values.get("hosts", [])
    if not isinstance(entries, list) or not entries:
        raise InvalidInputError(f"{path}: no [[hosts]] entry; each needs at least an address")
    shared = {key: values[key] for key in _SHARED if key in values}
    hosts = tuple(_read_host(path, number, shared, entry) for number, entry in enumerate(entries, 1))
    _refuse_twins(path, hosts)
    return HostList(registry=registry, token_file=_token_file(path, values.get("token_file")), hosts=hosts)


def _read_host(path: Path, number: int, shared: dict[str, Any], entry: Any) -> Host:
    label = entry.get("address", "no address") if isinstance(entry, dict) else repr(entry)
    where = f"{path}: [[hosts]] entry {number} ({label})"
    if not isinstance(entry, dict):
        raise InvalidInputError(f"{where}: must be a table with an address")
    try:
        host = msgspec.convert({**shared, **entry}, Host)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(f"{where}: {exc}") from exc
    try:
        if host.name:
            parse_node(host.name)
        if host.ip:
            parse_ip(host.ip, True)
    except LabelloopError as exc:
        raise InvalidInputError(f"{where}: {exc}") from exc
    problem = _why_not(host)
    if problem:
        raise InvalidInputError(f"{where}: {problem}")
    return host


def _why_not(host: Host) -> str:
    """Return what is wrong with a host's values, '' when nothing."""
    if not host.address or host.address.startswith("-") or any(c.isspace() for c in host.address):
        return f"address = {host.address!r} is neither an IP address nor a host name"
    if not 1 <= host.port <= 65535:
        return f"port = {host.port} is not between 1 and 65535"
    for field in ("datastore", "folder"):
        value = getattr(host, field)
        if not value.startswith("/") or "\0" in value or "\n" in value or value == "/":
            return f"{field} = {value!r} is not an absolute path of one line"
    if host.host_key and len(host.host_key.split()) != 2:
        return "host_key must be 'TYPE BASE64', as ssh-keyscan prints it after the host"
    return ""


def _refuse_twins(path: Path, hosts: tuple[Host, ...]) -> None:
    for what, values in (
        ("address", [f"{h.address}:{h.port}" for h in hosts]),
        ("name", [h.label for h in hosts]),
        ("ip", [h.ip for h in hosts if h.ip]),
    ):
        twins = {value for value in values if values.count(value) > 1}
        if twins:
            raise InvalidInputError(f"{path}: two [[hosts]] entries have the {what} {min(twins)!r}")


def _token_file(path: Path, value: Any) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidInputError(f"{path}: token_file must be the name of a file")
    file = (path.parent / Path(value).expanduser()).absolute()
    try:
        mode = file.stat().st_mode
    except OSError as exc:
        raise InvalidInputError(f"{path}: token_file: {exc}; make one with `labelloop token node` (umask 077)") from exc
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidInputError(f"{path}: others may read {file}: chmod 600 {file}")
    return file
