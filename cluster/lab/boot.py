"""What the dockers of a lab run: sshd, and start.sh as a person would type it.

Owns the command lines, the lab's settings, and the waiting for them. Must never reach into a docker past its processes. Called by
`lab`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cluster.lab.dockers import CHECKOUT
from cluster.lab.plan import DATASTORE, REGISTRY, REGISTRY_PORT, SHARED, STATE, LabPlan
from cluster.lab.shell import call, find_program
from labelloop.clients import RegistryClient
from labelloop.errors import DeadlineError, LabelloopError
from labelloop.settings import ClusterSettings, Settings, read_settings
from labelloop.tls import write_file

_READY_S = 180.0
_POLL_S = 0.05
SSH_KEY = "id_ed25519"
MOUNT = f"bindfs {SHARED}/disk {DATASTORE}"


def lab_settings() -> Settings:
    """Return the settings of a lab: few processes a node, whatever the machine has."""
    return Settings(cluster=ClusterSettings(inference_processes=2, concurrency=1))


def settings_of(plan: LabPlan) -> Settings:
    """Return the settings that a lab was made with."""
    return read_settings(None, plan.settings)


def registry_address(plan: LabPlan) -> str:
    """Return host:port of the registry."""
    return f"{plan.address(REGISTRY)}:{REGISTRY_PORT}"


def make_keys(folder: Path) -> None:
    """Make the key that opens every docker's sshd."""
    ssh = folder / "ssh"
    ssh.mkdir(exist_ok=True, mode=0o700)
    if not (ssh / SSH_KEY).exists():
        call(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(ssh / SSH_KEY)])


def commands_of(folder: Path, plan: LabPlan, name: str) -> dict[str, Sequence[str]]:
    """Return what a docker runs, log name → argv."""
    sshd = _sshd(folder, name, plan.address(name))
    if plan.is_shell_only or (plan.has_bare_nodes and name != REGISTRY):
        return {"sshd": sshd}
    return {"sshd": sshd, "boot": _registry(plan) if name == REGISTRY else _node(folder, plan, name)}


def _registry(plan: LabPlan) -> list[str]:
    where = ["--host", plan.address(REGISTRY), "--port", str(REGISTRY_PORT), "--state", f"{STATE}/registry"]
    return [str(CHECKOUT / "start.sh"), "registry", *where, "--datastore", f"{SHARED}/disk"]


def _node(folder: Path, plan: LabPlan, name: str) -> list[str]:
    """Return the line that the registry prints; the token only while the docker was never admitted."""
    argv = [str(CHECKOUT / "start.sh"), "node", "--registry", registry_address(plan)]
    if not (folder / name / "disk" / STATE.lstrip("/") / "identity").exists():
        argv += ["--token-file", f"{SHARED}/token/node.token"]
    argv += ["--datastore", DATASTORE, "--mount", MOUNT]
    return argv if plan.broker == "rabbitmq" else [*argv, "--broker", plan.broker]


def _sshd(folder: Path, name: str, address: str) -> list[str]:
    """Write what the docker's sshd needs, beside its disk, and return its command line: keys only, on the docker's address."""
    own = folder / name / "ssh"
    own.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (own / "host_key").exists():
        call(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(own / "host_key")])
    inside = f"{SHARED}/ssh"
    options = {
        "ListenAddress": address,
        "HostKey": f"{inside}/host_key",
        "AuthorizedKeysFile": f"{inside}/authorized_keys",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "UsePAM": "no",
        "StrictModes": "no",
        "PidFile": "none",
        "SetEnv": f"LABELLOOP_VENV={sys.prefix} LABELLOOP_INSTALL=no",
        "Subsystem": "sftp internal-sftp",
    }
    write_file(own / "sshd_config", "".join(f"{key} {value}\n" for key, value in options.items()).encode(), 0o600)
    write_file(own / "authorized_keys", (folder / "ssh" / f"{SSH_KEY}.pub").read_bytes(), 0o600)
    return [find_program("sshd"), "-D", "-e", "-f", f"{inside}/sshd_config"]


def await_registry(folder: Path, plan: LabPlan) -> None:
    """Return once the registry has written where it listens. Raises DeadlineError with its last words."""
    address_file = folder / REGISTRY / "disk" / STATE.lstrip("/") / "registry" / "address"
    until_s = time.monotonic() + _READY_S
    while not address_file.exists():
        if time.monotonic() > until_s:
            raise DeadlineError(f"the registry did not start: {last_words(folder, REGISTRY)}")
        time.sleep(_POLL_S)


def await_nodes(client: RegistryClient, folder: Path, nodes: Sequence[str]) -> None:
    """Return once every node heartbeats. Raises DeadlineError naming those that do not, with their last words."""
    until_s = time.monotonic() + _READY_S
    while True:
        try:
            alive = {node.status.hostname for node in client.nodes().nodes if node.is_alive}
        except LabelloopError:  # it listens a moment after it has said where
            alive = set()
        missing = [name for name in nodes if name not in alive]
        if not missing:
            return
        if time.monotonic() > until_s:
            words = "; ".join(f"{name}: {last_words(folder, name)}" for name in missing)
            raise DeadlineError(f"{len(missing)} nodes did not register: {words}")
        time.sleep(_POLL_S)


def last_words(folder: Path, name: str) -> str:
    """Return the last lines that a docker's boot has said."""
    path = folder / name / "boot.log"
    lines = path.read_text(errors="replace").strip().splitlines()[-3:] if path.exists() else []
    return " / ".join(lines)[-500:] or "it said nothing"
