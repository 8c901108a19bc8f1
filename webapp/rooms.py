"""What one process of the app holds: settings, database, queue, labelling desk, cluster, media; and how it is put together.

Owns the lifetime of these objects. Must be built after a fork. Called by `create_app` and by the pilot.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from flask import current_app

from labelloop.settings import Settings
from webapp.cluster_door import ClusterDoor
from webapp.db.engine import Database, open_database
from webapp.labelling.service import Labelling
from webapp.media import MediaStore
from webapp.queue import RankedQueue, url_finder
from webapp.transfer.readers.base import Reach

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rooms:
    """Everything a request may need. `cluster` is None in an app that was started without a registry."""

    settings: Settings
    database: Database
    queue: RankedQueue
    labelling: Labelling
    media: MediaStore
    cluster: ClusterDoor | None
    background: ThreadPoolExecutor

    def close(self) -> None:
        """Finish what runs in the background and close every connection."""
        self.background.shutdown(wait=True)
        self.queue.close()
        self.database.close()
        if self.cluster is not None:
            self.cluster.close()


def open_rooms(settings: Settings, cluster: ClusterDoor | None = None) -> Rooms:
    """Open database, queue and media folder of the settings."""
    database = open_database(settings, pool=settings.web.threads + 4)
    queue = RankedQueue(url_finder(settings))
    background = ThreadPoolExecutor(1, thread_name_prefix="background")
    labelling = Labelling(database, queue, settings.web.lease_s, lambda work: _submit(background, work))
    return Rooms(settings, database, queue, labelling, MediaStore(media_dir(settings)), cluster, background)


def media_dir(settings: Settings) -> Path:
    """Return the folder of uploaded items."""
    return Path(settings.web.media_dir or Path(settings.state_dir) / "media").absolute()


def upload_dir(settings: Settings) -> Path:
    """Return the folder of files that wait for their import; it is no business of the nodes."""
    folder = Path(settings.state_dir).absolute() / "uploads"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def export_dir(settings: Settings) -> Path:
    """Return the folder of exports made in the background."""
    folder = Path(settings.state_dir).absolute() / "exports"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def import_reach(settings: Settings) -> Reach:
    """Return how far an import may reach beyond the upload."""
    web = settings.web
    return Reach(web.allowed_import_folders, web.sources_dir, settings.intake.allowed_hosts)


def rooms() -> Rooms:
    """Return the rooms of the app that answers the current request."""
    return cast(Rooms, current_app.extensions["labelloop"])


def secret_key(settings: Settings) -> bytes:
    """Return the key that signs sessions, made on first use in a file of mode 0600 in the state folder."""
    path = Path(settings.state_dir).absolute() / "web-secret-key"
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    if not path.exists():
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(32).encode())
        with contextlib.suppress(FileExistsError):
            os.link(beside, path)
        beside.unlink()
    return path.read_bytes()


def _submit(background: ThreadPoolExecutor, work: Callable[[], object]) -> None:
    def run() -> None:
        try:
            work()
        except Exception:  # the background thread is a daemon loop: it logs and lives on
            logger.exception("work in the background failed; it is tried again when it is next needed")

    background.submit(run)
