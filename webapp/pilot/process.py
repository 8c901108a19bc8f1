"""The pilot's process: its threads, the import worker it starts, and how it ends.

Owns which loop runs where: relay and watch have a thread each, embedding and ordering one thread a project at a time out of a small
pool, so that a big project never holds up another's labels. Called by `labelloop pilot`.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from labelloop.errors import CancelledError, LabelloopError, SettingsError
from labelloop.logs import log_context
from webapp.cluster_door import ClusterDoor
from webapp.db import imports, live, projects
from webapp.db.engine import Database
from webapp.db.projects import Project
from webapp.joining import JoiningCluster
from webapp.pilot.embed import Embedder
from webapp.pilot.ordering import Orderer
from webapp.pilot.relay import Relay
from webapp.pilot.watch import Watch
from webapp.rooms import Rooms
from webapp.transfer.importer import STALE_S

logger = logging.getLogger(__name__)
SCORE_POLL_S = 0.1
IMPORT_POLL_S = 0.3
ALONE_BEAT_S = 2.0
SCORING_THREADS = 4
PROBLEM_PAUSE_S = 1.0
_END_S = 10.0


class Pilot:
    """One pilot. `run` returns when `ended` is set."""

    def __init__(self, rooms: Rooms, settings_file: Path | None = None) -> None:
        self._rooms = rooms
        self._settings_file = settings_file

    def run(self, ended: threading.Event) -> None:
        """Turn the loop until `ended`."""
        loops: list[tuple[str, Callable[[], object], float]] = []
        scoring: Scoring | None = None
        if self._rooms.cluster is None:
            logger.warning("no registry was named: labels wait in the outbox, imports run")
            loops.append(("alone", self._beat_alone, ALONE_BEAT_S))
        else:
            scoring = Scoring(self._rooms, self._rooms.cluster, ended)
            pilot = self._rooms.settings.pilot
            loops += [("relay", scoring.relay.cycle, pilot.poll_s), ("watch", scoring.watch.cycle, pilot.progress_s / 2)]
            loops += [("score", scoring.cycle, SCORE_POLL_S), ("renewal", scoring.renew, 60.0)]
        child = ImportChild(self._rooms.database, self._settings_file)
        loops.append(("imports", child.cycle, IMPORT_POLL_S))
        threads = [threading.Thread(target=repeat, args=(*loop, ended), name=loop[0]) for loop in loops]
        for thread in threads:
            thread.start()
        ended.wait()
        for thread in threads:
            thread.join()
        if scoring is not None:
            scoring.close()
        child.stop()

    def _beat_alone(self) -> None:
        with self._rooms.database.write() as tx:
            live.save_pilot(tx, "the pilot was started without --registry, so labels wait here", False, time.time())


def repeat(name: str, cycle: Callable[[], object], pause_s: float, ended: threading.Event) -> None:
    """Call `cycle` every `pause_s` until `ended`; what it raises is logged and the next cycle starts anew."""
    problem = ""
    while not ended.is_set():
        try:
            cycle()
            problem = ""
        except LabelloopError as exc:
            if str(exc) != problem:
                logger.warning("%s: %s", name, exc)
            problem = str(exc)
            ended.wait(PROBLEM_PAUSE_S)
        except Exception:  # the daemon loop: a defect must not end the pilot
            logger.exception("%s: a defect; the next cycle starts anew", name)
            ended.wait(PROBLEM_PAUSE_S)
        ended.wait(pause_s)


class Scoring:
    """Relay, watch, embedding and ordering over one cluster. `_busy` (under `_lock`) are the projects a thread works on."""

    def __init__(self, rooms: Rooms, cluster: ClusterDoor, ended: threading.Event) -> None:
        self._database = rooms.database
        self._cluster = cluster
        pilot = rooms.settings.pilot
        self.relay = Relay(rooms.database, cluster, pilot)
        self.watch = Watch(rooms.database, cluster, self.relay, pilot)
        self._embedder = Embedder(rooms.database, cluster, self.watch.latest, ended)
        self._orderer = Orderer(rooms.database, rooms.queue, cluster, self._embedder, self.watch.latest, pilot, ended)
        self._pools = {kind: ThreadPoolExecutor(SCORING_THREADS, kind) for kind in ("open", "embed", "order")}
        self._lock = threading.Lock()
        self._busy: set[tuple[str, int]] = set()
        self._not_before_s: dict[tuple[str, int], float] = {}
        self._problems: dict[tuple[str, int], str] = {}

    def cycle(self) -> None:
        """Open changed tasks, then give every idle project a thread for its next step."""
        with self._database.read() as tx:
            known = projects.list_projects(tx)
        for project in known:
            if project.opened_revision != project.spec_revision:
                self._start("open", project, self.relay.open_task)
            if project.opened_revision and project.id in self.watch.latest:
                self._start("embed", project, self._embedder.cycle)
                self._start("order", project, self._orderer.cycle)

    def renew(self) -> None:
        """Keep the certificate fresh."""
        if isinstance(self._cluster, JoiningCluster):
            self._cluster.renew_if_due()

    def close(self) -> None:
        """Wait for the running steps; they look at `ended`."""
        for pool in self._pools.values():
            pool.shutdown(wait=True)

    def _start(self, kind: str, project: Project, step: Callable[[Project], object]) -> None:
        key = (kind, project.id)
        with self._lock:
            if key in self._busy or time.monotonic() < self._not_before_s.get(key, float("-inf")):
                return
            self._busy.add(key)
        self._pools[kind].submit(self._run, key, project, step)

    def _run(self, key: tuple[str, int], project: Project, step: Callable[[Project], object]) -> None:
        try:
            with log_context(task=project.slug):
                step(project)
            self._problems.pop(key, None)
        except CancelledError as exc:
            logger.info("%s of %s stops: %s", key[0], project.slug, exc)
        except LabelloopError as exc:
            if self._problems.get(key) != str(exc):
                logger.warning("%s of %s goes on later: %s", key[0], project.slug, exc)
            self._problems[key] = str(exc)
            self._not_before_s[key] = time.monotonic() + PROBLEM_PAUSE_S
        except Exception:  # the daemon loop: a defect must not end the pilot
            logger.exception("%s of %s: a defect; it is tried again", key[0], project.slug)
            self._not_before_s[key] = time.monotonic() + PROBLEM_PAUSE_S
        finally:
            with self._lock:
                self._busy.discard(key)


class ImportChild:
    """The import worker, started when an import waits: a process of its own, because it keeps a core busy."""

    def __init__(self, database: Database, settings_file: Path | None) -> None:
        self._database = database
        self._argv = [sys.executable, "-m", "webapp", "import-worker"]
        if settings_file is not None:
            self._argv += ["--settings", str(settings_file)]
        self._process: subprocess.Popen[bytes] | None = None

    def cycle(self) -> None:
        """Start the worker when an import waits and none runs."""
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            self._process = None
            if code:
                raise SettingsError(f"the import worker ended with status {code}; what it left goes on when it starts again")
        with self._database.read() as tx:
            is_needed = imports.has_waiting(tx, time.time() - STALE_S)
        if is_needed:
            self._process = subprocess.Popen(self._argv)

    def stop(self) -> None:
        """End the worker; its import goes on at the next start."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
