"""A formed cluster in a lab, as faults and trials stand on it: who is what, which process is which, and the ways to it.

Owns the clients, and the finding of processes by what they are. Must never hurt anything: `faults` does. Called by
`scripts/bench chaos`, `recover`, `form` and by tests/cluster. For one thread, but for its clients.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec

from cluster.lab.dockers import CHECKOUT, command_of
from cluster.lab.lab import Lab
from cluster.lab.plan import STATE
from labelloop import messages as m
from labelloop.clients import Cluster, InferenceClient
from labelloop.errors import NotFoundError, NotReadyError
from labelloop.settings import ClusterSettings, InferenceSettings, Settings

logger = logging.getLogger(__name__)

FORM_S = 300.0
_INSIDE = "scripts.chaos.inside"


def chaos_settings() -> Settings:
    """Return the settings of the labs of chaos: few processes a node, small chunks, so that a job is many messages."""
    return Settings(
        cluster=ClusterSettings(inference_processes=2, concurrency=1),
        inference=InferenceSettings(chunk_items=50),
    )


class LabGround:
    """The lab's dockers in their roles: the first `train` nodes train, the others infer. Use as a context manager."""

    def __init__(self, lab: Lab, wanted: Mapping[str, m.Role]) -> None:
        self.lab = lab
        self.wanted = dict(wanted)
        self.datastore = lab.datastore
        self.registry = lab.ops_client()
        self.cluster = Cluster(lab.registry_address, lab.client_identity(), lab.settings.wire)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the clients; the lab stays."""
        self.cluster.close()
        self.registry.close()

    def form(self) -> None:
        """Give every docker its role by the registry, and return when they have them."""
        self.registry.form(m.FormRequest(roles=self.wanted), deadline_s=FORM_S)

    # ------------------------------------------------------------ who is what

    def of(self, role: m.Role) -> tuple[str, ...]:
        """Return the nodes wanted in a role, in the order of their addresses."""
        return tuple(name for name in self.lab.nodes if self.wanted.get(name) == role)

    def master(self, role: m.Role) -> str:
        """Return the living master of a role. Raises NotReadyError while there is none."""
        for view in self.registry.nodes(deadline_s=10.0).nodes:
            if view.is_alive and view.status.role == role and view.status.is_master:
                return view.status.hostname
        raise NotReadyError(f"no node is {role} master")

    def other(self, role: m.Role) -> str:
        """Return the last node of a role that is not its master."""
        return [name for name in self.of(role) if name != self.master(role)][-1]

    def inference_at(self, node: str) -> InferenceClient:
        """Return a client of one node's own inference_rpc, without repeats; close it. Raises NotFoundError."""
        for view in self.registry.nodes(deadline_s=10.0).nodes:
            if view.status.hostname == node and view.status.rpc:
                once = msgspec.structs.replace(self.lab.settings.wire, retries=0)
                return InferenceClient(view.status.rpc, self.lab.client_identity(), once)
        raise NotFoundError(f"{node} has no inference_rpc")

    def replicas(self) -> Mapping[str, int]:
        """Return the running replicas of each shared queue, as the first inference broker that answers counts them."""
        for name in self.of("inference"):
            if self.lab.pid(name):
                return msgspec.json.decode(self.inside(name, "replicas"), type=dict[str, int])
        raise NotReadyError("every inference docker is down")

    # ------------------------------------------------------------ processes

    def inside(self, node: str, *words: str) -> str:
        """Run `scripts.chaos.inside` in a docker and return what it prints. Raises NotReadyError with its last words."""
        argv = ["env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-m", _INSIDE, *words]
        done = self.lab.run(node, argv, timeout_s=30.0)
        if done.returncode:
            raise NotReadyError(f"{' '.join(words)} in {node}: {done.stderr.strip()[-300:]}")
        return done.stdout

    def processes(self, node: str) -> dict[str, tuple[int, ...]]:
        """Return the machine's pids of a docker's processes by what they are.

        'broker', 'manager', 'guard', 'training-child', and for each role process its name with its depth: 'inference-rpc/0' the
        parent and '/1' its forks, 'inference-worker/2-bulk' the child that computes chunks, and so on.
        """
        commands = {pid: command_of(pid) for pid in self.lab.pids(node)}
        parents = {pid: _parent(pid) for pid in commands}
        found: dict[str, list[int]] = {}
        for pid, command in commands.items():
            if kind := _kind(command):
                depth = _depth(pid, commands, parents)
                name = kind if kind in _NAMES.values() else f"{kind}/{depth}{_lane(kind, depth, pid)}"
                found.setdefault(name, []).append(pid)
        return {kind: tuple(pids) for kind, pids in sorted(found.items())}

    def pid(self, node: str, kind: str) -> int:
        """Return the first process of a kind; 0 while there is none."""
        return next(iter(self.processes(node).get(kind, ())), 0)

    def role_config(self, node: str, process: str) -> str:
        """Return the path of a role process's configuration as the docker sees it."""
        disk = self.lab.disk(node)
        found = sorted(disk.glob(f"{STATE.lstrip('/')}/**/roles/{process}.json"))
        if not found:
            raise NotFoundError(f"{node} has no {process}")
        return f"/{found[0].relative_to(disk)}"


_NAMES = {"beam.smp": "broker", "manager_rpc.py": "manager", "cluster.guard": "guard", "roles.train.child": "training-child"}


def _kind(command: str) -> str:
    for text, name in _NAMES.items():
        if text in command:
            return name
    for word in command.split():
        if word.endswith(".json") and "/roles/" in word:
            return Path(word).stem
    return ""


def _depth(pid: int, commands: Mapping[int, str], parents: Mapping[int, int]) -> int:
    parent = parents[pid]
    if parent in commands and commands[parent] == commands[pid]:
        return 1 + _depth(parent, commands, parents)
    return 0


def _lane(kind: str, depth: int, pid: int) -> str:
    """Return which of the two inference workers a process belongs to: the bulk one runs at a lower priority."""
    if kind != "inference-worker" or not depth:
        return ""
    try:
        return "-bulk" if os.getpriority(os.PRIO_PROCESS, pid) > 0 else "-interactive"
    except ProcessLookupError:
        return ""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
