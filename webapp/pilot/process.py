"""The pilot's process: its threads, the workers it starts, and how it ends.

Owns which loop runs where: relay and watch have a thread each, embedding, ordering and rules one thread a project at a time out of
a small pool, so that a big project never holds up another's labels. Called by `labelloop pilot`.
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
from webapp.admin import backup
from webapp.cluster_door import ClusterDoor
from webapp.db import export_jobs, imports, live, projects, rule_sets
from webapp.db.engine import Database, Tx
from webapp.db.projects import Project
from webapp.joining import JoiningCluster
from webapp.people.bulk import BulkRunner
from webapp.people.settling import Settler
from webapp.pilot.embed import Embedder
from webapp.pilot.ordering import Orderer
from webapp.pilot.relay import Relay
from webapp.pilot.rules import RuleRunner
from webapp.pilot.survey import CLUSTER_S, DISK_S, read_cluster, read_disk
from webapp.pilot.upkeep import Upkeep
from webapp.pilot.watch import Watch
from webapp.rooms import Rooms, secret_key
from webapp.transfer.importer import STALE_S
from webapp.webhooks.sender import Sender

logger = logging.getLogger(__name__)
SCORE_POLL_S = 0.1
IMPORT_POLL_S = 0.3
UPKEEP_POLL_S = 1.0
BACKUP_POLL_S = 1.0
WEBHOOK_POLL_S = 0.5
BULK_POLL_S = 0.5
SETTLE_POLL_S = 1.0
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
        rooms, cluster = self._rooms, self._rooms.cluster
        if cluster is not None:
            loops.append(("survey", lambda: read_cluster(rooms.database, cluster), CLUSTER_S))
        sender = Sender(rooms.database, secret_key(rooms.settings), rooms.settings.web.allowed_webhook_networks)
        loops += [("disk", lambda: read_disk(rooms), DISK_S), ("webhooks", sender.cycle, WEBHOOK_POLL_S)]
        loops.append(("backups", lambda: backup.make_next(rooms.database, rooms.settings), BACKUP_POLL_S))
        children = [
            WorkChild("import", imports.has_waiting, rooms.database, self._settings_file),
            WorkChild("export", export_jobs.has_waiting, rooms.database, self._settings_file),
        ]
        loops += [(f"{child.name}s", child.cycle, IMPORT_POLL_S) for child in children]
        keep_s = rooms.settings.web.keep_deleted_s
        loops.append(("upkeep", Upkeep(rooms.database, rooms.media, keep_s, ended).cycle, UPKEEP_POLL_S))
        loops.append(("bulk", BulkRunner(rooms.database, ended).cycle, BULK_POLL_S))
        loops.append(("consensus", Settler(rooms.database).cycle, SETTLE_POLL_S))
        threads = [threading.Thread(target=repeat, args=(*loop, ended), name=loop[0]) for loop in loops]
        for thread in threads:
            thread.start()
        ended.wait()
        for thread in threads:
            thread.join()
        if scoring is not None:
            scoring.close()
        sender.close()
        for child in children:
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
    """Relay, watch, embedding, ordering and rules over one cluster. `_busy` (under `_lock`) are the projects a thread works on."""

    def __init__(self, rooms: Rooms, cluster: ClusterDoor, ended: threading.Event) -> None:
        self._database = rooms.database
        self._cluster = cluster
        pilot = rooms.settings.pilot
        self.relay = Relay(rooms.database, cluster, pilot)
        self.watch = Watch(rooms.database, cluster, self.relay, pilot)
        self._embedder = Embedder(rooms.database, cluster, self.watch.latest, ended)
        self._orderer = Orderer(rooms.database, rooms.queue, cluster, self._embedder, self.watch.latest, pilot, ended)
        self._rules = RuleRunner(rooms.database, cluster, ended)
        self._pools = {kind: ThreadPoolExecutor(SCORING_THREADS, kind) for kind in ("open", "embed", "order", "rules")}
        self._lock = threading.Lock()
        self._busy: set[tuple[str, int]] = set()
        self._not_before_s: dict[tuple[str, int], float] = {}
        self._problems: dict[tuple[str, int], str] = {}

    def cycle(self) -> None:
        """Open changed tasks, then give every idle project a thread for its next step."""
        with self._database.read() as tx:
            known, ruling = projects.list_projects(tx), rule_sets.projects_with_jobs(tx)
        for project in known:
            if not project.is_learned:
                continue
            if project.opened_revision != project.spec_revision:
                self._start("open", project, self.relay.open_task)
            if project.id in ruling and project.opened_revision == project.spec_revision:
                self._start("rules", project, self._rules.cycle)
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


class WorkChild:
    """The worker of imports or exports, started when one waits: a process of its own, because it keeps a core busy."""

    def __init__(self, name: str, has_waiting: Callable[[Tx, float], bool], database: Database, settings_file: Path | None) -> None:
        self.name = name
        self._has_waiting = has_waiting
        self._database = database
        self._argv = [sys.executable, "-m", "webapp", f"{name}-worker"]
        if settings_file is not None:
            self._argv += ["--settings", str(settings_file)]
        self._process: subprocess.Popen[bytes] | None = None

    def cycle(self) -> None:
        """Start the worker when work waits and none runs."""
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            self._process = None
            if code:
                raise SettingsError(f"the {self.name} worker ended with status {code}; what it left goes on when it starts again")
        with self._database.read() as tx:
            is_needed = self._has_waiting(tx, time.time() - STALE_S)
        if is_needed:
            self._process = subprocess.Popen(self._argv)

    def stop(self) -> None:
        """End the worker; its work goes on at the next start."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
