"""What the pilot last heard from the cluster: progress, versions, its own heartbeat. Pages read this and never ask a worker.

Owns the tables `live`, `versions` and `pilot_state`. Written by the pilot only.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from labelloop.decoding import decode_json
from labelloop.messages import ProgressReply, VersionView
from webapp.db.engine import Tx
from webapp.db.tables import live, pilot_state, versions


class Live(msgspec.Struct, frozen=True):
    """The last progress of a project; `problem` is why there is none newer, '' = all is well."""

    at: float
    progress: ProgressReply | None
    problem: str


class PilotState(msgspec.Struct, frozen=True):
    """The pilot's heartbeat: when, what it says of the cluster, and whether it reaches it."""

    at: float
    sentence: str
    is_connected: bool


def save_live(tx: Tx, project_id: int, progress: ProgressReply | None, problem: str, now: float) -> None:
    """Replace the last progress of a project; None keeps the progress there was."""
    values: dict[str, object] = {"at": now, "problem": problem}
    if progress is not None:
        values["progress"] = msgspec.json.encode(progress).decode()
    changed = tx.execute(live.update().where(live.c.project_id == project_id).values(**values))
    if not changed.rowcount:
        tx.execute(live.insert().values(**{"progress": "", **values}, project_id=project_id))


def read_live(tx: Tx, project_id: int) -> Live | None:
    """Return the last progress of a project, None when the pilot never heard of it."""
    row = tx.execute(sa.select(live.c.at, live.c.progress, live.c.problem).where(live.c.project_id == project_id)).first()
    if row is None:
        return None
    return Live(row[0], decode_json(ProgressReply, row[1]) if row[1] else None, row[2])


def save_versions(tx: Tx, project_id: int, views: Sequence[VersionView]) -> None:
    """Replace the versions of a project."""
    tx.execute(versions.delete().where(versions.c.project_id == project_id))
    rows = [
        {
            "project_id": project_id,
            "version": view.version,
            "labels": view.labels,
            "accuracy": accuracy_of(view),
            "is_serving": view.is_serving,
            "view": msgspec.json.encode(view).decode(),
        }
        for view in views
    ]
    if rows:
        tx.execute(versions.insert(), rows)


def accuracy_of(view: VersionView) -> float | None:
    """Return how right a version is on the held-out part, in [0, 1]: its accuracy; of boxes and spans the F1 of its drafts."""
    return view.metrics.get("accuracy", view.metrics.get("f1"))


def read_versions(tx: Tx, project_id: int) -> tuple[VersionView, ...]:
    """Return the versions of a project, newest first."""
    query = sa.select(versions.c.view).where(versions.c.project_id == project_id).order_by(versions.c.version.desc())
    return tuple(decode_json(VersionView, text) for text in tx.execute(query).scalars())


def curve(tx: Tx, project_id: int) -> list[tuple[int, float]]:
    """Return (labels, accuracy on the held-out part) of every version that has one, by labels."""
    query = sa.select(versions.c.labels, versions.c.accuracy).where(versions.c.project_id == project_id)
    rows = tx.execute(query.where(versions.c.accuracy.is_not(None)).order_by(versions.c.labels, versions.c.version))
    return [(row[0], row[1]) for row in rows]


def save_pilot(tx: Tx, sentence: str, is_connected: bool, now: float) -> None:
    """Write the pilot's heartbeat."""
    values = {"at": now, "sentence": sentence, "is_connected": is_connected}
    if not tx.execute(pilot_state.update().where(pilot_state.c.id == 1).values(**values)).rowcount:
        tx.execute(pilot_state.insert().values(id=1, **values))


def read_pilot(tx: Tx) -> PilotState | None:
    """Return the pilot's last heartbeat, None when there never was one."""
    row = tx.execute(sa.select(pilot_state.c.at, pilot_state.c.sentence, pilot_state.c.is_connected)).first()
    return PilotState(*row) if row else None
