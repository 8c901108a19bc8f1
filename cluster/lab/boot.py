"""What the dockers of a lab run: sshd, and start.sh as a person would type it.

Owns the command lines, the lab's settings, and the waiting for them. Must never reach into a docker past its processes. Called by
`lab`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.lab.plan import REGISTRY, REGISTRY_PORT, LabPlan
from labelloop.settings import ClusterSettings, Settings, read_settings


def lab_settings() -> Settings:
    """Return the settings of a lab: few processes a node, and quick to notice."""
    return Settings(cluster=ClusterSettings(inference_processes=2, concurrency=1))


def settings_of(plan: LabPlan) -> Settings:
    """Return the settings that a lab was made with."""
    return read_settings(None, plan.settings)


def registry_address(plan: LabPlan) -> str:
    """Return host:port of the registry."""
    return f"{plan.address(REGISTRY)}:{REGISTRY_PORT}"


def commands_of(folder: Path, plan: LabPlan, name: str, lab: Any) -> dict[str, Sequence[str]]:
    """Return what a docker runs, log name → argv."""
    if plan.is_shell_only:
        return {}
    raise NotImplementedError


def await_registry(folder: Path, plan: LabPlan) -> None: ...


def await_nodes(client: Any, nodes: Sequence[str], lab: Any) -> None: ...


def create_token(authority: Any, kind: str) -> str:
    return str(authority.create_token(kind))
