"""Copies what the registry cannot lose into another folder after each change, and brings it back.

Owns the copy: the CA's key and certificate, the join tokens' hashes, the issued certificates, the wanted state; every file 0600 in
folders of 0700. Must never copy over a cluster that is there already. Called by the registry's daemon and by
`labelloop registry --restore`.
"""

from __future__ import annotations

import logging
from pathlib import Path

from cluster.wanted import FILE as WANTED
from labelloop.errors import ConflictError, NotFoundError, SettingsError
from labelloop.tls import write_file

logger = logging.getLogger(__name__)

_CERTIFICATES = Path("authority")
_WANTED = Path(WANTED)


def _files(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return what there is to keep below `folder`: relative path → what changes with its content."""
    paths = [path for path in (folder / _CERTIFICATES).rglob("*") if not path.name.startswith(".")]
    found = {}
    for path in (*paths, folder / _WANTED):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file():
            found[path.relative_to(folder)] = (stat.st_mtime_ns, stat.st_size)
    return found


class Backup:
    """Follows `folder` into `target`. Used by one thread."""

    def __init__(self, folder: Path, target: Path) -> None:
        if target.resolve().is_relative_to(folder.resolve()):
            raise SettingsError(f"the backup folder {target} lies in {folder} itself: name one on another disk or machine")
        self._folder = folder
        self._target = target
        self._copied: dict[Path, tuple[int, int]] = {}

    def follow(self) -> int:
        """Copy what has changed since the last call, remove what is gone; return how many files that were. Raises OSError."""
        now = _files(self._folder)
        changed = [path for path, seen in now.items() if self._copied.get(path) != seen]
        for path in changed:
            _make_folders(self._target, path)
            try:
                data = (self._folder / path).read_bytes()
            except FileNotFoundError:
                continue  # revoked or expired meanwhile: the next call removes it
            write_file(self._target / path, data, 0o600)
        gone = [path for path in _files(self._target) if path not in now] if self._target.exists() else []
        for path in gone:
            (self._target / path).unlink(missing_ok=True)
        self._copied = now
        return len(changed) + len(gone)


def restore(source: Path, folder: Path) -> None:
    """Fill an empty registry folder from a backup. Raises NotFoundError (no backup there), ConflictError (a cluster is here)."""
    files = _files(source)
    if _CERTIFICATES / "ca.key" not in files or _CERTIFICATES / "ca.pem" not in files:
        raise NotFoundError(f"{source} is no backup of a registry: it has no authority/ca.key and ca.pem")
    if (folder / _CERTIFICATES / "ca.key").exists():
        raise ConflictError(f"{folder} holds a cluster already: move it away, then restore")
    last = _CERTIFICATES / "ca.key"
    for path in (*(p for p in files if p != last), last):
        _make_folders(folder, path)
        write_file(folder / path, (source / path).read_bytes(), 0o644 if path.name == "ca.pem" else 0o600)
    logger.info("restored %d files of %s", len(files), source)


def _make_folders(root: Path, path: Path) -> None:
    """Make the folders of `root/path`, each closed to others."""
    for folder in (root, *(root / parent for parent in reversed(path.parents) if parent != Path())):
        folder.mkdir(parents=folder == root, exist_ok=True, mode=0o700)
