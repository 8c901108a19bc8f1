"""What a node sees of itself and around it when `doctor` asks: disks, ports of others, the mount, GPU, certificate, hosts file.

Owns the looking. Must never change anything but a scratch folder of the datastore, and never wait for ever: a mount that hangs is
said to hang. Called by the manager, and by `labelloop doctor --local` where the manager is down.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from cryptography import x509

from cluster.hostsfile import read_block
from datastore_layout.habits import check_habits
from datastore_layout.race import RaceResult, run_race
from datastore_layout.root import open_root
from labelloop.errors import InvalidInputError, LabelloopError
from labelloop.messages import DiskView, ProbeReply, ProbeRequest
from labelloop.wire import parse_address

MOST_ADDRESSES = 512
PORT_TIMEOUT_S = 2.0
MOUNT_TIMEOUT_S = 5.0
HABITS_TIMEOUT_S = 30.0
RACE_TIMEOUT_S = 120.0
BROKER_FOLDER = Path("/var/lib/rabbitmq")
_MOST_TRIES = 32

T = TypeVar("T")


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """Where on this machine the node is; `broker` is where its broker keeps messages."""

    name: str
    cluster_id: str
    state: Path
    datastore: Path
    hosts_file: Path
    certificate_file: Path
    broker: Path = BROKER_FOLDER
    devices: Path = Path("/dev")


def look_around(request: ProbeRequest, where: Surroundings) -> ProbeReply:
    """Return what this node sees. Raises InvalidInputError on a malformed address or race."""
    ports = try_ports(request.addresses)
    datastore = _within(MOUNT_TIMEOUT_S, lambda: _why_no_datastore(where), f"{where.datastore} does not answer")
    habits: tuple[str, ...] = ()
    race = RaceResult()
    if request.is_datastore_tried and not datastore:
        hung = (f"{where.datastore} does not answer within {HABITS_TIMEOUT_S:.0f} s",)
        habits = _within(HABITS_TIMEOUT_S, lambda: check_habits(open_root(where.datastore, where.cluster_id)), hung)
    if request.race:
        race = RaceResult(trouble=datastore) if datastore else _race(request, where)
    hosts = read_block(where.hosts_file)
    return ProbeReply(
        hostname=where.name,
        clock_s=time.time(),
        disks=read_disks(where, not datastore),
        ports=ports,
        datastore=datastore,
        datastore_path=str(where.datastore),
        file_system=file_system_of(where.datastore),
        habits=habits,
        race_trouble=race.trouble,
        claimed=race.claimed,
        created=race.created,
        gpu=why_no_gpu(where.devices, count_gpus),
        certificate_end_s=certificate_end_s(where.certificate_file),
        hosts_file=str(where.hosts_file),
        hosts=hosts,
        resolved=resolve(where.hosts_file, [name for _, name in hosts]),
    )


# ---------------------------------------------------------------- ports


def try_ports(addresses: Sequence[str], timeout_s: float = PORT_TIMEOUT_S) -> dict[str, str]:
    """Return '' or why not for each 'host:port', by one TCP connection from here, all at once."""
    if len(addresses) > MOST_ADDRESSES:
        raise InvalidInputError(f"{len(addresses)} addresses in one probe: at most {MOST_ADDRESSES}")
    targets = [parse_address(address) for address in addresses]
    with ThreadPoolExecutor(max_workers=max(1, min(_MOST_TRIES, len(targets)))) as pool:
        reasons = pool.map(lambda target: why_shut(target[0], target[1], timeout_s), targets)
        return dict(zip(addresses, reasons, strict=True))


def why_shut(host: str, port: int, timeout_s: float = PORT_TIMEOUT_S) -> str:
    """Return '' when something accepts TCP connections at host:port, or why none came about."""
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except ConnectionRefusedError:
        return "refused: nothing listens there"
    except TimeoutError:
        return f"no answer within {timeout_s:.0f} s: a firewall drops it, or the machine is off or frozen"
    except OSError as exc:
        return f"{exc.strerror or exc}"
    return ""


# ---------------------------------------------------------------- disks and the mount


def read_disks(where: Surroundings, is_datastore_there: bool) -> tuple[DiskView, ...]:
    """Return the file systems that this node writes to; one that does not answer is left out."""
    folders = [("state", where.state), ("broker", where.broker)]
    if is_datastore_there:
        folders.append(("datastore", where.datastore))
    found = [_within(MOUNT_TIMEOUT_S, functools.partial(_disk, what, path), None) for what, path in folders]
    return tuple(disk for disk in found if disk is not None)


def _disk(what: str, path: Path) -> DiskView | None:
    try:
        stat = os.statvfs(path)
    except OSError:
        return None
    return DiskView(
        what=what,
        path=str(path),
        free_bytes=stat.f_bavail * stat.f_frsize,
        size_bytes=stat.f_blocks * stat.f_frsize,
        free_names=stat.f_favail if stat.f_files else -1,
    )


def file_system_of(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """Return 'TYPE on MOUNT POINT' of the file system that `path` lies on."""
    best = ("", "/")
    for line in mounts.read_text().splitlines():
        _, point, kind = line.split(" ")[:3]
        point = point.replace("\\040", " ")
        if path.is_relative_to(point) and len(point) >= len(best[1]):
            best = (kind, point)
    return f"{best[0]} on {best[1]}"


def _why_no_datastore(where: Surroundings) -> str:
    try:
        open_root(where.datastore, where.cluster_id)
    except LabelloopError as exc:
        return f"{exc.code}: {exc}"
    return ""


def _race(request: ProbeRequest, where: Surroundings) -> RaceResult:
    def run() -> RaceResult:
        root = open_root(where.datastore, where.cluster_id)
        return run_race(root, request.race, where.name, request.contestants, request.rounds)

    return _within(RACE_TIMEOUT_S, run, RaceResult(trouble=f"the race was not over after {RACE_TIMEOUT_S:.0f} s"))


def _within(limit_s: float, look: Callable[[], T], otherwise: T) -> T:
    """Return what `look` says, or `otherwise` after `limit_s`: a call into a dead mount cannot be interrupted, only left alone."""
    answers: list[T] = []
    troubles: list[LabelloopError | OSError] = []

    def run() -> None:
        try:
            answers.append(look())
        except (LabelloopError, OSError) as exc:
            troubles.append(exc)

    thread = threading.Thread(target=run, name="probe-mount", daemon=True)
    thread.start()
    thread.join(limit_s)
    if troubles:
        raise troubles[0]
    return answers[0] if answers else otherwise


# ---------------------------------------------------------------- GPU, certificate, names


def why_no_gpu(devices: Path, count: Callable[[], int]) -> str:
    """Return '' when `count` sees as many GPUs as there are device files, or what is wrong."""
    files = [path for path in devices.glob("nvidia[0-9]*") if path.name.removeprefix("nvidia").isdigit()]
    if not files:
        return ""
    try:
        seen = count()
    except LabelloopError as exc:
        return f"{len(files)} NVIDIA device file(s) in {devices}, but {exc}"
    return "" if seen >= len(files) else f"{len(files)} NVIDIA device files in {devices}, but the driver shows {seen} GPU(s)"


def count_gpus() -> int:
    """Return how many GPUs NVML shows. Raises InvalidInputError saying why it does not answer."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError as exc:
        raise InvalidInputError(f"the package nvidia-ml-py is missing ({exc})") from exc
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as exc:
        raise InvalidInputError(f"NVML says {exc}") from exc
    try:
        return int(nvml.nvmlDeviceGetCount())
    except nvml.NVMLError as exc:
        raise InvalidInputError(f"NVML says {exc}") from exc
    finally:
        nvml.nvmlShutdown()


def certificate_end_s(path: Path) -> float:
    """Return when a certificate ends (Unix time), 0 when it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        return float(x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp())
    return 0.0


def resolve(hosts_file: Path, names: Sequence[str]) -> dict[str, str]:
    """Return name → the first address that the hosts file gives it, as the system's resolver reads it; '' = none."""
    found: dict[str, str] = {}
    for line in hosts_file.read_text().splitlines() if hosts_file.exists() else ():
        words = line.partition("#")[0].split()
        for name in words[1:]:
            found.setdefault(name, words[0])
    return {name: found.get(name, "") for name in names}
