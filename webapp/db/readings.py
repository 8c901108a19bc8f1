"""The last readings of cluster and disk, and what runs there are: written by the pilot, read by every page.

Owns the tables `readings` and `runs`. One reading serves all pages and all processes, so that a page never asks a worker. Called by
`webapp.pilot.survey`, `webapp.pilot.watch` and `webapp.admin`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec
import sqlalchemy as sa

from labelloop.decoding import decode_json
from labelloop.messages import RunView
from webapp.db.engine import Tx
from webapp.db.tables import projects, readings, runs, versions

S = TypeVar("S", bound=msgspec.Struct)
_LIVE = ("queued", "running")


class ProjectRun(msgspec.Struct, frozen=True):
    """One training of one project; `seen_at` is when its state was last heard of."""

    project: str
    title: str
    run: RunView
    seen_at: float


def save_reading(tx: Tx, name: str, value: msgspec.Struct | None, problem: str, now: float) -> None:
    """Replace a reading; None keeps the value there was, with why there is none newer."""
    values: dict[str, object] = {"problem": problem}
    if value is not None:
        values |= {"at": now, "value": msgspec.json.encode(value).decode()}
    if not tx.execute(readings.update().where(readings.c.name == name).values(**values)).rowcount:
        tx.execute(readings.insert().values(**{"at": now, "value": "", **values}, name=name))


def read_reading(tx: Tx, name: str, kind: type[S]) -> tuple[float, S | None, str]:
    """Return when a reading was taken, what it says (None = there never was one) and why there is none newer."""
    row = tx.execute(sa.select(readings.c.at, readings.c.value, readings.c.problem).where(readings.c.name == name)).first()
    if row is None:
        return 0.0, None, ""
    return row[0], decode_json(kind, row[1]) if row[1] else None, row[2]


def save_runs(tx: Tx, project_id: int, views: Sequence[RunView], now: float) -> tuple[RunView, ...]:
    """Take over the runs that the cluster tells of; return those that have ended since the last time, oldest first.

    Runs of before this table was there are taken over without a word: a project with versions and without any run.
    """
    stored = tx.execute(sa.select(runs.c.run, runs.c.state).where(runs.c.project_id == project_id))
    known: dict[int, str] = {row[0]: row[1] for row in stored}
    is_old = not known and tx.execute(sa.select(versions.c.version).where(versions.c.project_id == project_id).limit(1)).first()
    ended = []
    for view in sorted(views, key=lambda one: one.run):
        if known.get(view.run) == view.state and view.state not in _LIVE:
            continue
        values = {"state": view.state, "view": msgspec.json.encode(view).decode(), "seen_at": now}
        if view.run in known:
            tx.execute(runs.update().where(runs.c.project_id == project_id, runs.c.run == view.run).values(**values))
        else:
            tx.execute(runs.insert().values(project_id=project_id, run=view.run, **values))
        if view.state not in _LIVE and not is_old:
            ended.append(view)
    return tuple(ended)


def save_live_run(tx: Tx, project_id: int, view: RunView, now: float) -> None:
    """Note how far a running training is; one that has ended is `save_runs`' business."""
    if view.state in _LIVE:
        save_runs(tx, project_id, (view,), now)


def list_runs(tx: Tx, is_live: bool, n: int) -> tuple[ProjectRun, ...]:
    """Return the runs of all projects that are going on, or the newest `n` that have ended."""
    query = (
        sa.select(projects.c.slug, projects.c.title, runs.c.view, runs.c.seen_at)
        .join(projects, projects.c.id == runs.c.project_id)
        .where(runs.c.state.in_(_LIVE) if is_live else runs.c.state.not_in(_LIVE))
        .order_by(runs.c.seen_at.desc(), runs.c.run.desc())
        .limit(n)
    )
    return tuple(ProjectRun(row[0], row[1], decode_json(RunView, row[2]), row[3]) for row in tx.execute(query))
