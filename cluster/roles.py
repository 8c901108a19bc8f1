"""Which processes a role consists of, and with what configuration: pure.

Owns the table of role processes and what in their configuration is worth a restart. Must never start one (the supervisor
does) nor import them. Called by the manager.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from cluster.process import ProcessSpec, kill_tree, mark_of
from labelloop.messages import RoleConfig

logger = logging.getLogger(__name__)

# glibc maps and unmaps each large tensor afresh unless told otherwise; measured: EfficientNet 31 -> 117 images a second.
ALLOCATOR: Mapping[str, str] = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
# inference_rpc forks, so its BLAS must have no threads; it would start itself anew if this were not there when it begins
_ONE_THREAD: Mapping[str, str] = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_RPC_FIELDS = ("rpc_host", "rpc_port", "rpc_processes")


class RoleProcess(NamedTuple):
    """One process of a role. `ignored`: configuration that it does not look at, so that a change restarts nothing.

    `environment` comes on top of that of all.
    """

    name: str
    script: str
    is_rpc: bool
    ignored: tuple[str, ...]
    environment: Mapping[str, str] = {}


_TABLE: dict[str, tuple[RoleProcess, ...]] = {
    "train": (
        RoleProcess("train-rpc", "start_train", True, ("epoch", "rpc_processes", "concurrency")),
        RoleProcess("train-worker", "start_train", False, ("epoch", *_RPC_FIELDS)),
        RoleProcess("data-worker", "start_data", False, ("epoch", *_RPC_FIELDS)),
    ),
    "inference": (
        RoleProcess("inference-rpc", "start_inference", True, ("epoch", "concurrency", "master_host", "is_master"), _ONE_THREAD),
        RoleProcess("inference-worker", "start_inference", False, ("epoch", *_RPC_FIELDS, "master_host", "is_master")),
    ),
}


def processes_of(config: RoleConfig) -> tuple[RoleProcess, ...]:
    """Return the processes of a node: train_rpc is exactly one in the cluster, so it is on the train master alone."""
    return tuple(p for p in _TABLE[config.role] if not (p.name == "train-rpc" and not config.is_master))


def has_rpc(config: RoleConfig) -> bool:
    """Return whether this node opens its role's RPC."""
    return any(process.is_rpc for process in processes_of(config))


def fingerprint(process: RoleProcess, config: RoleConfig) -> str:
    """Return a hash of what the process looks at: a change of it is a restart."""
    fields = msgspec.to_builtins(config)
    for name in process.ignored:
        fields.pop(name)
    return hashlib.sha256(msgspec.json.encode(fields, order="sorted")).hexdigest()


def spec_of(
    process: RoleProcess, config: RoleConfig, folder: Path, package: str, environment: Mapping[str, str], checkout: Path
) -> ProcessSpec:
    """Return what the supervisor shall run; the configuration file is `config_file(folder, process)`.

    RPC stops first (layer 1), so that nobody hands work to workers that end.
    """
    argv = [sys.executable, "-m", f"{package}.{process.script}", str(config_file(folder, process))]
    return ProcessSpec(
        name=process.name,
        argv=(*argv, "--rpc") if process.is_rpc else tuple(argv),
        log_file=_log_file(folder, process),
        env={**environment, **ALLOCATOR, **process.environment},
        cwd=checkout,
        version=fingerprint(process, config),
        stop_layer=1 if process.is_rpc else 0,
    )


def config_file(folder: Path, process: RoleProcess) -> Path:
    """Return where the configuration of a process lies."""
    return folder / "roles" / f"{process.name}.json"


def sweep_leftovers(folder: Path) -> None:
    """Kill what an earlier manager of this state folder left behind, before anything is decided about ports."""
    for processes in _TABLE.values():
        for process in processes:
            left = kill_tree(0, mark_of(_log_file(folder, process)))
            if left:
                logger.warning("%s: killed %d process(es) that an earlier manager left behind", process.name, left)


def _log_file(folder: Path, process: RoleProcess) -> Path:
    return folder / "logs" / f"{process.name}.log"
