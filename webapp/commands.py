"""The app's subcommands: `web`, `pilot`, `backup`, `restore`, and the workers of imports and exports that the pilot starts.

Owns their options. Reads the settings: it is one of the composition roots. Called by scripts.cli.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from labelloop.errors import UnreachableError
from labelloop.logs import set_process_context, set_up_logs
from labelloop.settings import Settings, read_settings
from webapp.cluster_door import ClusterDoor
from webapp.joining import JoiningCluster

QUEUE_WAIT_S = 3.0
IMPORT_NICE = 5
DAY_S = 86400.0


def register(subparsers: Any) -> None:
    """Add the subcommands."""
    web = subparsers.add_parser("web", help="run the labelling app")
    _add_options(web)
    web.set_defaults(run=run_web)
    pilot = subparsers.add_parser("pilot", help="run the loop between app and cluster (exactly one)")
    _add_options(pilot)
    pilot.set_defaults(run=run_pilot)
    worker = subparsers.add_parser("import-worker", help=argparse.SUPPRESS)
    worker.add_argument("--settings", type=Path)
    worker.set_defaults(run=run_imports)
    exporting = subparsers.add_parser("export-worker", help=argparse.SUPPRESS)
    exporting.add_argument("--settings", type=Path)
    exporting.set_defaults(run=run_exports)
    password = subparsers.add_parser("set-password", help="give an account of the app a new password")
    password.add_argument("--settings", type=Path)
    password.add_argument("name")
    password.set_defaults(run=run_set_password)
    _add_archives(subparsers)


def _add_archives(subparsers: Any) -> None:
    backup = subparsers.add_parser("backup", help="write the app's database and settings into one file, while it runs")
    backup.add_argument("--settings", type=Path)
    backup.add_argument("--to", type=Path, metavar="FOLDER", help="where to (default <state>/backups)")
    backup.set_defaults(run=run_backup)
    restore = subparsers.add_parser("restore", help="put the database of a backup back, where there is none; the app must not run")
    restore.add_argument("--settings", type=Path)
    restore.add_argument("file", type=Path)
    restore.set_defaults(run=run_restore)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, help="settings file (TOML); LABELLOOP_* of the environment comes after it")
    parser.add_argument("--registry", metavar="HOST:PORT", help="the cluster's registry; without it labels only wait")
    parser.add_argument("--identity", type=Path, metavar="FOLDER", help="folder of key and certificate (default <state>/client)")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="join token of kind client, used while there is no identity"
    )


def _start(args: argparse.Namespace, role: str) -> Settings:
    settings = read_settings(args.settings)
    set_up_logs(settings.log)
    set_process_context(node="web", role=role)
    return settings


def _cluster(args: argparse.Namespace, settings: Settings) -> ClusterDoor | None:
    if not args.registry:
        return None
    folder = args.identity or Path(settings.state_dir) / "client"
    return JoiningCluster(args.registry, settings, folder.absolute(), args.token_file)


def run_web(args: argparse.Namespace) -> int:
    """Serve until a signal."""
    from webapp.db.engine import open_database
    from webapp.serve import WebServer

    settings = _start(args, "web")
    open_database(settings).close()  # the schema is brought up to date before anybody asks
    _await_queue(settings)
    WebServer(settings, lambda: _cluster(args, settings)).run()
    return 0


def _await_queue(settings: Settings) -> None:
    """Give a broker that starts beside the app some seconds to tell its address; the app runs without it too."""
    from webapp.queue import url_finder

    find, until_s = url_finder(settings), time.monotonic() + QUEUE_WAIT_S
    while time.monotonic() < until_s:
        try:
            find()
        except UnreachableError:
            time.sleep(0.05)
        else:
            return


def run_pilot(args: argparse.Namespace) -> int:
    """Relay labels and ask for scores until a signal."""
    from webapp.pilot.process import Pilot
    from webapp.rooms import open_rooms

    settings = _start(args, "pilot")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    rooms = open_rooms(settings, _cluster(args, settings))
    try:
        Pilot(rooms, args.settings).run(ended)
    finally:
        rooms.close()
    return 0


def run_imports(args: argparse.Namespace) -> int:
    """Run every import that waits, then end."""
    from webapp.db.engine import open_database
    from webapp.media import MediaStore
    from webapp.rooms import import_reach, media_dir
    from webapp.transfer.importer import Importer

    settings = _start(args, "import")
    os.nice(IMPORT_NICE)  # people who label come first
    database = open_database(settings, pool=2, cache_mib=32)
    try:
        store, limit = MediaStore(media_dir(settings)), settings.intake.max_item_bytes
        Importer(database, store, limit, import_reach(settings)).run_all()
    finally:
        database.close()
    return 0


def run_exports(args: argparse.Namespace) -> int:
    """Run every export that waits, forget old ones, then end."""
    from webapp.db.engine import open_database
    from webapp.media import MediaStore
    from webapp.rooms import export_dir, media_dir
    from webapp.transfer.exporter import Exporter

    settings = _start(args, "export")
    os.nice(IMPORT_NICE)
    database = open_database(settings, pool=2, cache_mib=32)
    try:
        exporter = Exporter(database, MediaStore(media_dir(settings)), export_dir(settings))
        exporter.run_all()
        exporter.sweep(settings.web.export_keep_days * DAY_S)
    finally:
        database.close()
    return 0


def run_set_password(args: argparse.Namespace) -> int:
    """Ask for a password on the terminal and set it."""
    import getpass

    from labelloop.errors import NotFoundError
    from webapp.accounts import service
    from webapp.db.engine import open_database

    settings = _start(args, "web")
    database = open_database(settings, pool=2)
    try:
        user = next((user for user in service.list_people(database) if user.name == args.name), None)
        if user is None:
            raise NotFoundError(f"no account is called {args.name!r}")
        service.set_password(database, user, getpass.getpass(f"new password of {args.name}: "))
    finally:
        database.close()
    return 0


def run_backup(args: argparse.Namespace) -> int:
    """Make a backup now and print its path."""
    from webapp.admin.archive import backup_dir, make_archive

    settings = _start(args, "web")
    folder = args.to.absolute() if args.to else backup_dir(settings)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    sys.stdout.write(f"{make_archive(settings, folder, lambda _share: None)}\n")
    return 0


def run_restore(args: argparse.Namespace) -> int:
    """Put a backup's database back."""
    from webapp.admin.archive import restore_archive

    sys.stdout.write(restore_archive(args.file, _start(args, "web")) + "\n")
    return 0
