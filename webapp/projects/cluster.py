"""What a person asks of the cluster through the app: predict, train, cancel, promote, roll back.

Owns the translation between the API's words and the cluster's messages. Labels never go this way: the pilot takes them. Called by
the API.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from labelloop import messages as m
from labelloop.errors import ConflictError, InvalidInputError, NotReadyError
from webapp.cluster_door import ClusterDoor
from webapp.db import events, items, live, operations, outbox
from webapp.db.engine import Database
from webapp.db.projects import Project
from webapp.db.users import User
from webapp.pilot.regions import draft_of
from webapp.projects.service import NOT_LEARNED
from webapp.projects.status import find_trouble
from webapp.rooms import Rooms
from webapp.transfer import rows


def _reach(cluster: ClusterDoor | None, project: Project) -> ClusterDoor:
    if not project.is_learned:
        raise ConflictError(NOT_LEARNED)
    if cluster is None:
        raise NotReadyError("the app was started without a cluster: start `labelloop web` with --registry")
    return cluster


def state_of(database: Database) -> dict[str, Any]:
    """Return what the pilot says of the cluster."""
    now = time.time()
    with database.read() as tx:
        pilot = live.read_pilot(tx)
    return {
        "trouble": find_trouble(pilot, now),
        "reason": pilot.sentence if pilot else "",
        "pilot_age_s": round(now - pilot.at, 3) if pilot else None,
    }


def list_versions(database: Database, project: Project) -> list[dict[str, Any]]:
    """Return the project's versions, newest first, each with its accuracy on the held-out part."""
    with database.read() as tx:
        views = live.read_versions(tx, project.id)
    return [{**msgspec.structs.asdict(view), "accuracy": live.accuracy_of(view)} for view in views]


def predict(cluster: ClusterDoor | None, project: Project, given: Sequence[Mapping[str, Any]], version: str) -> dict[str, Any]:
    """Return labels and probabilities of items that need not be in the project. Raises InvalidInputError naming an item."""
    wanted = tuple(_item(project, one) for one in given)
    if len({item.item_id for item in wanted}) != len(wanted):
        raise InvalidInputError("two items have one id: give each its own")
    found = _reach(cluster, project).inference().predict(m.PredictRequest(task=project.slug, items=wanted, version=version))
    proba = np.frombuffer(found.proba.data, found.proba.dtype).reshape(found.proba.shape)
    failed = {error.item_id: error.reason for error in found.failed}
    lines = [_prediction(project, item.item_id, row, found.labels, failed) for item, row in zip(wanted, proba, strict=True)]
    if project.kind_rules.shape:
        lines = [_with_marks(project, line, *one) for line, *one in zip(lines, found.regions, proba, strict=True)]
    return {"version": found.version, "predictions": lines}


def _item(project: Project, given: Mapping[str, Any]) -> m.Item:
    given = {key: value for key, value in given.items() if value is not None}
    new = rows.item_from_object(project, given)
    return m.Item(item_id=new.item_id, link=items.link_of(project.category, new.link, new.content))


def _prediction(
    project: Project, item_id: str, row: np.ndarray, labels: Sequence[str], failed: Mapping[str, str]
) -> dict[str, Any]:
    if item_id in failed:
        return {"id": item_id, "labels": [], "confidence": 0.0, "proba": {}, "error": failed[item_id]}
    values = {label: round(float(p), 6) for label, p in zip(labels, row, strict=True)}
    if project.is_multilabel:
        chosen = [label for label, p in values.items() if p >= 0.5]
        confidence = float(np.abs(row - 0.5).min() + 0.5) if len(row) else 0.0
    else:
        chosen, confidence = [labels[int(row.argmax())]], float(row.max())
    return {"id": item_id, "labels": chosen, "confidence": round(confidence, 6), "proba": values, "error": ""}


def _with_marks(project: Project, line: dict[str, Any], regions: Sequence[m.Region], row: np.ndarray) -> dict[str, Any]:
    if line["error"]:
        return line
    draft = draft_of(project, regions, row, "")
    found = {"labels": draft.value.labels, "confidence": round(draft.confidence, 6), "marks": draft.value.marks}
    return line | found


def train(rooms: Rooms, project: Project, user: User, given: Mapping[str, Any]) -> dict[str, Any]:
    """Start a training now."""
    request = m.TrainRequest(task=project.slug, reason=f"asked for by {user.name}", **given)
    answer = _reach(rooms.cluster, project).train().train(request)
    _note(rooms.database, project, user, "train", f"{user.name} started training {answer.run}")
    return msgspec.structs.asdict(answer)


def cancel(rooms: Rooms, project: Project, user: User, run: int) -> dict[str, Any]:
    """Cancel a training."""
    request = m.CancelRequest(task=project.slug, run=run, reason=f"cancelled by {user.name}")
    answer = _reach(rooms.cluster, project).train().cancel(request)
    _note(rooms.database, project, user, "train", f"{user.name} cancelled training {run}")
    return msgspec.structs.asdict(answer)


def promote(rooms: Rooms, project: Project, user: User, version: str) -> dict[str, Any]:
    """Serve a version from now on."""
    request = m.PromoteRequest(task=project.slug, version=version, reason=f"promoted by {user.name}")
    answer = _reach(rooms.cluster, project).train().promote(request)
    _note(rooms.database, project, user, "version", f"{user.name} promoted {version}")
    return msgspec.structs.asdict(answer)


def rollback(rooms: Rooms, project: Project, user: User) -> dict[str, Any]:
    """Serve the version before this one again."""
    answer = _reach(rooms.cluster, project).train().rollback(m.TaskRequest(task=project.slug))
    _note(rooms.database, project, user, "version", f"{user.name} rolled back to {answer.version}")
    return msgspec.structs.asdict(answer)


def resend(database: Database, project: Project) -> dict[str, Any]:
    """Send refused labels again."""
    with database.write() as tx:
        n = outbox.retry_failed(tx, project.id)
        operations.add_operation(tx, "bulk", f"sent {n} refused labels again", project.slug)
    return {"resent": n, "reason": f"{n} labels go to the cluster again"}


def _note(database: Database, project: Project, user: User, kind: str, text: str) -> None:
    with database.write() as tx:
        events.add_event(tx, project.id, kind, text, user.id, time.time())
