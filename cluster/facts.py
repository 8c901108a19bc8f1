"""What this machine is: cores, memory, load, GPUs, versions.

Owns the reading of /proc, cgroups and NVML. Must never import torch or tensorflow (versions come from package metadata) and
never fail because a fact is missing: an unknown one is 0 or empty. Called by the manager, once for what stays and once a
heartbeat for what moves.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import logging
import os
import platform
from pathlib import Path
from typing import Any

import msgspec

logger = logging.getLogger(__name__)

_PACKAGES = ("labelloop", "torch", "onnxruntime", "scikit-learn", "celery", "tensorflow-cpu", "tensorflow", "rpyc")
_CGROUP = Path("/sys/fs/cgroup")
_MEMORY_OF_ONE_PROCESS = 512 * 2**20


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """This machine; sizes in bytes, `load` the 1-minute average."""

    cores: int
    memory_bytes: int
    memory_free_bytes: int
    load: float
    gpus: tuple[str, ...]
    versions: dict[str, str]


def read_facts() -> Facts:
    """Return the facts of this moment."""
    total, free = _memory()
    return Facts(
        cores=_cores(),
        memory_bytes=total,
        memory_free_bytes=free,
        load=os.getloadavg()[0],
        gpus=_gpus(),
        versions=_versions(),
    )


def inference_processes(n_good: int, facts: Facts, cap: int) -> tuple[int, str]:
    """Return N of inference_rpc and why: the number of good machines, capped by `cap`, or by cores and memory when it is 0."""
    if cap:
        limit, why = cap, f"cluster.inference_processes is {cap}"
    else:
        by_memory = max(1, facts.memory_bytes // _MEMORY_OF_ONE_PROCESS) if facts.memory_bytes else facts.cores
        limit = max(1, min(facts.cores, by_memory))
        why = f"{facts.cores} cores, {facts.memory_bytes // 2**20} MiB"
    n = max(1, min(n_good, limit))
    return n, (f"{n_good} good machines, capped at {limit}: {why}" if n < n_good else f"{n_good} good machines")


def worker_concurrency(facts: Facts, setting: int) -> int:
    """Return how many Celery children a worker has: the setting, or one for each GPU, or one."""
    return setting or len(facts.gpus) or 1


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _cores() -> int:
    cores = len(os.sched_getaffinity(0))
    quota, _, period = _read(_CGROUP / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period):
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def _memory() -> tuple[int, int]:
    """Return (total, available), both held down by the container's limit where there is one."""
    found = {}
    for line in _read(Path("/proc/meminfo")).splitlines():
        name, _, value = line.partition(":")
        number = value.split()[0] if value.split() else ""
        if number.isdigit():
            found[name] = int(number) * 1024
    total, free = found.get("MemTotal", 0), found.get("MemAvailable", 0)
    limit, used = _read(_CGROUP / "memory.max"), _read(_CGROUP / "memory.current")
    if limit.isdigit() and used.isdigit():
        total, free = min(total, int(limit)), min(free, max(0, int(limit) - int(used)))
    return total, free


@functools.cache
def _gpus() -> tuple[str, ...]:
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return ()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as exc:
        logger.info("no GPU: %s", exc)
        return ()
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return tuple(f"{_text(nvml.nvmlDeviceGetName(h))} {nvml.nvmlDeviceGetMemoryInfo(h).total // 2**20} MiB" for h in handles)
    except nvml.NVMLError as exc:
        logger.warning("cannot read the GPUs: %s", exc)
        return ()
    finally:
        nvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


@functools.cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
