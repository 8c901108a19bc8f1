"""How much room everything takes: media, uploads, exports, backups, the database; and what the nodes' disks have left.

Owns the shares at which a warning is due. Measuring walks the folders, so the pilot does it now and then and pages read the result.
Called by `webapp.pilot.survey` (measure) and the API (read).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from labelloop.settings import Settings
from webapp.admin.archive import backup_dir
from webapp.admin.troubles import Reading, Trouble
from webapp.db import readings
from webapp.db.engine import Database
from webapp.db.sizes import database_bytes
from webapp.rooms import media_dir

WARN_SHARE = 0.85
LEAST_NODE_BYTES = 5 * 2**30


class Room(msgspec.Struct, frozen=True):
    """One folder, and the disk below it; sizes in bytes."""

    name: str
    path: str
    size_bytes: int
    disk_free_bytes: int
    disk_total_bytes: int


class Measured(msgspec.Struct, frozen=True):
    """The rooms of this machine, the database's own size wherever it is, the uploads of each project."""

    rooms: tuple[Room, ...]
    database_bytes: int
    media: dict[str, int] = {}


class NodeDisk(msgspec.Struct, frozen=True):
    """What is left where a node keeps the datastore."""

    node: str
    free_bytes: int


class DiskPage(msgspec.Struct, frozen=True):
    """All of the disk page; `at` None = it has not been measured yet."""

    at: float | None
    rooms: tuple[Room, ...]
    database_bytes: int
    nodes: tuple[NodeDisk, ...]
    troubles: tuple[Trouble, ...]


def folder_bytes(folder: Path) -> int:
    """Return what the files below a folder hold; what vanishes meanwhile counts nothing."""
    return sum(_sizes(folder))


def _sizes(folder: Path) -> Iterator[int]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _sizes(Path(entry.path))
                else:
                    yield _size(entry)
    except OSError:
        return


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0


def measure(settings: Settings, database: Database) -> Measured:
    """Walk the folders."""
    state = Path(settings.state_dir).absolute()
    folders = {"media": media_dir(settings), "uploads": state / "uploads", "exports": state / "exports"}
    folders |= {"backups": backup_dir(settings)}
    rooms = tuple(_room(name, folder) for name, folder in folders.items() if folder.is_dir())
    with database.read() as tx:
        return Measured((*rooms, _room("state", state)), database_bytes(tx), _media_by_project(media_dir(settings)))


def _media_by_project(media: Path) -> dict[str, int]:
    return {folder.name: folder_bytes(folder) for folder in media.iterdir() if folder.is_dir()} if media.is_dir() else {}


def _room(name: str, folder: Path) -> Room:
    disk = shutil.disk_usage(folder)
    return Room(name, str(folder), folder_bytes(folder), disk.free, disk.total)


def read_disk(database: Database) -> DiskPage:
    """Return what was last measured, with the warnings that follow from it."""
    with database.read() as tx:
        at, measured, _ = readings.read_reading(tx, "disk", Measured)
        _, reading, _ = readings.read_reading(tx, "cluster", Reading)
    views = reading.nodes.nodes if reading else ()
    nodes = tuple(NodeDisk(v.status.hostname, v.status.disk_free_bytes) for v in views if v.is_alive)
    rooms = measured.rooms if measured else ()
    troubles = tuple(find_full(rooms, nodes))
    return DiskPage(at if measured else None, rooms, measured.database_bytes if measured else 0, nodes, troubles)


def find_full(rooms: tuple[Room, ...], nodes: tuple[NodeDisk, ...]) -> Iterator[Trouble]:
    """Yield a warning for each disk that is nearly full; folders of one disk share one."""
    seen: set[tuple[int, int]] = set()
    for room in rooms:
        disk = (room.disk_total_bytes, room.disk_free_bytes)
        share = 1 - room.disk_free_bytes / max(room.disk_total_bytes, 1)
        if share > WARN_SHARE and disk not in seen:
            seen.add(disk)
            sentence = f"the disk of {room.path} is {100 * share:.0f} % full"
            yield Trouble(sentence, "delete old backups and exports, or move web.media_dir to a larger disk")
    for node in nodes:
        if 0 < node.free_bytes < LEAST_NODE_BYTES:
            sentence = f"node {node.node} has {node.free_bytes / 2**30:.1f} GiB left for the datastore"
            yield Trouble(sentence, "delete old snapshots of ended projects, or give the datastore more room", node.node)
