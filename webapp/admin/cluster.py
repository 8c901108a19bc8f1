"""The cluster as an admin sees it: nodes, queues, what is missing, and the runs of all projects.

Owns the shape of what the pages show. Must never ask a worker for the overview: it reads what the pilot last wrote. Only the tail
of one run's log is fetched, from the train master, for the person who opened it. Called by the API.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from labelloop import messages as m
from labelloop.errors import NotReadyError
from webapp.admin.troubles import Reading, Trouble, find_troubles
from webapp.cluster_door import ClusterDoor
from webapp.db import live, readings
from webapp.db.engine import Database
from webapp.db.readings import ProjectRun
from webapp.projects.status import find_trouble

PAST_RUNS = 100
LOG_LINES = 200


class Queue(msgspec.Struct, frozen=True):
    """One queue: its messages, who fetches from it (None = not known), the node whose broker tells of it."""

    name: str
    messages: int
    consumers: int | None
    node: str


class Overview(msgspec.Struct, frozen=True):
    """All of the cluster page. `age_s` is that of the reading, None = there never was one; a node's `age_s` counts on from it."""

    age_s: float | None
    epoch: int
    state: str
    last_reason: str
    troubles: tuple[Trouble, ...]
    nodes: tuple[m.NodeView, ...]
    masters: dict[str, str]
    queues: tuple[Queue, ...]
    actions: tuple[m.Action, ...]


def overview(database: Database) -> Overview:
    """Return what was last heard of the cluster."""
    now = time.time()
    with database.read() as tx:
        at, reading, problem = readings.read_reading(tx, "cluster", Reading)
        pilot = find_trouble(live.read_pilot(tx), now)
    age_s = max(now - at, 0.0)
    troubles = find_troubles(reading, problem, age_s)
    if pilot and not troubles:  # one cause, one sentence
        troubles = (Trouble(pilot, "start `labelloop pilot` with --registry"),)
    if reading is None:
        return Overview(None, 0, "", "", troubles, (), {}, (), ())
    nodes = tuple(msgspec.structs.replace(node, age_s=round(node.age_s + age_s, 1)) for node in reading.nodes.nodes)
    return Overview(
        age_s=round(age_s, 1),
        epoch=reading.nodes.epoch,
        state=reading.nodes.state,
        last_reason=reading.nodes.last_reason,
        troubles=troubles,
        nodes=nodes,
        masters={role: name for role in ("train", "inference") if (name := _master(nodes, role))},
        queues=_queues(nodes),
        actions=tuple(reversed(reading.actions)),
    )


def _master(nodes: tuple[m.NodeView, ...], role: str) -> str:
    return next((n.status.hostname for n in nodes if n.is_alive and n.status.is_master and n.status.role == role), "")


def _queues(nodes: tuple[m.NodeView, ...]) -> tuple[Queue, ...]:
    """Return each queue once: the members of a broker cluster tell of the same ones."""
    found: dict[tuple[str, str], Queue] = {}
    for node in nodes:
        broker = node.status.broker
        if not node.is_alive:
            continue
        for name, n in broker.queues.items():
            where = broker.cluster or node.status.hostname
            found.setdefault((where, name), Queue(name, n, broker.consumers.get(name), node.status.hostname))
    return tuple(sorted(found.values(), key=lambda one: one.name))


class Runs(msgspec.Struct, frozen=True):
    """Trainings of all projects, going on and past."""

    live: tuple[ProjectRun, ...]
    past: tuple[ProjectRun, ...]


def list_runs(database: Database) -> Runs:
    """Return what trains now, and the newest runs that have ended with why."""
    with database.read() as tx:
        return Runs(readings.list_runs(tx, True, PAST_RUNS), readings.list_runs(tx, False, PAST_RUNS))


def eta_s(run: m.RunView) -> float | None:
    """Return the seconds that a run has still to go at its pace so far, None = not known yet."""
    if run.state != "running" or not run.step or run.steps <= run.step or not run.seconds:
        return None
    return round(run.seconds / run.step * (run.steps - run.step), 1)


def run_log(cluster: ClusterDoor | None, slug: str, run: int, lines: int = LOG_LINES) -> dict[str, Any]:
    """Return the end of a run's log, from the train master. Raises NotReadyError, NotFoundError."""
    if cluster is None:
        raise NotReadyError("the app was started without a cluster: start `labelloop web` with --registry")
    return msgspec.structs.asdict(cluster.train().run_log(m.RunLogRequest(task=slug, run=run, lines=lines)))
