"""What a docker sees of the machine: its own disk over the folders that hold state, a shared one, nothing of its neighbours.

Owns the mounts of one docker. Must never be called outside a mount namespace of its own, nor import anything but the standard
library: process 1 calls it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

OWN_FOLDERS = (
    "/home",
    "/root",
    "/opt",
    "/tmp",
    "/etc/rabbitmq",
    "/var/lib/rabbitmq",
    "/var/log/rabbitmq",
    "/var/lib/labelloop",
)
OWN_FILES = ("/etc/hosts", "/etc/hostname")


def lay_out(disk: Path, hostname: str, shared: Mapping[str, Path], shared_root: str, keep: tuple[Path, ...]) -> None:
    """Mount the docker's disk over the machine's folders; what is missing on the disk is made as on a fresh machine.

    `shared` (name → folder) appears below `shared_root`; the folders of `keep` stay at their own path though one of the
    docker's own folders would hide them.
    """
    prepare_disk(disk, hostname)
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for folder in (Path("/run/sshd"), Path("/run/lock")):
        folder.mkdir(mode=0o755)
    for name, source in shared.items():
        _bind(source, Path(shared_root) / name)
    kept = [(path, Path(shared_root) / f"kept-{number}") for number, path in enumerate(keep)]
    for path, aside in kept:
        _bind(path, aside)
    own = [(Path(target), disk / target.lstrip("/")) for target in OWN_FOLDERS]
    aside_disk = Path(shared_root) / "own"
    _bind(disk, aside_disk)
    for target, _ in own:
        _bind(aside_disk / str(target).lstrip("/"), target)
    for name in OWN_FILES:
        _mount("--bind", str(aside_disk / name.lstrip("/")), name)
    for path, aside in kept:
        _bind(aside, path)
    _mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/dev/shm")
    _mount("-t", "sysfs", "sysfs", "/sys")


def prepare_disk(disk: Path, hostname: str) -> None:
    """Make what is missing on the disk: empty folders with the machine's owners, a hosts file, the broker's stock settings."""
    for target in OWN_FOLDERS:
        folder = disk / target.lstrip("/")
        if folder.exists():
            continue
        folder.mkdir(parents=True)
        if target == "/etc/rabbitmq" and Path(target).is_dir():
            shutil.copytree(target, folder, dirs_exist_ok=True)
        if Path(target).is_dir():
            seen = Path(target).stat()
            os.chown(folder, seen.st_uid, seen.st_gid)
            folder.chmod(seen.st_mode & 0o7777)
    for name, text in (("hosts", f"127.0.0.1 localhost\n127.0.1.1 {hostname}\n"), ("hostname", f"{hostname}\n")):
        path = disk / "etc" / name
        if not path.exists():
            path.write_text(text)


def _bind(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    _mount("--rbind", str(source), str(target))


def _mount(*words: str) -> None:
    subprocess.run(["/bin/mount", *words], check=True)
