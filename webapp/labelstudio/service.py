"""Label Studio's four calls as functions: set up, predict, take in what annotators there said, train.

Owns the rules between both sides: a task is an item `label-studio-<project>-<task>` of ours, its newest annotation is the item's
label. Must never fetch anything itself: a link goes to the cluster, whose guard judges it. Called by the API.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from labelloop.errors import ConflictError, InvalidInputError
from webapp.db import items, label_studio, leases, live, revisions
from webapp.db.label_studio import Link
from webapp.db.projects import Project
from webapp.db.users import User
from webapp.kinds.values import Mark, Value
from webapp.labelling.answers import Answer
from webapp.labelstudio import config, results
from webapp.labelstudio.config import Control
from webapp.projects import cluster
from webapp.rooms import Rooms
from webapp.transfer import rows

TAKEN = ("ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED")
_SCHEMES = ("http://", "https://", "data:")


class Said(msgspec.Struct, frozen=True):
    """What became of a webhook: how many labels were saved or withdrawn, and why the others were not."""

    saved: int = 0
    withdrawn: int = 0
    ignored: tuple[str, ...] = ()


def serving_version(rooms: Rooms, project: Project) -> str:
    """Return the version that serves the project, '' while none does."""
    with rooms.database.read() as tx:
        return next((one.version for one in live.read_versions(tx, project.id) if one.is_serving), "")


def set_up(rooms: Rooms, project: Project, schema: str) -> str:
    """Check that a labeling configuration fits the project; return the serving version. Raises InvalidInputError."""
    config.check_labels(config.find_control(schema, project.category, project.kind), project.labels, project.slug)
    return serving_version(rooms, project)


def predict(rooms: Rooms, project: Project, schema: str, tasks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a prediction for each task, in their order; one that cannot be predicted has an empty result and the reason.

    Raises InvalidInputError (the configuration does not fit), NotReadyError and the like when no model serves.
    """
    control = config.find_control(schema, project.category, project.kind)
    wanted: list[dict[str, Any]] = []
    failed: dict[int, str] = {}
    for number, task in enumerate(tasks):
        try:
            wanted.append({"id": str(number), **_content(project, control, task)})
        except InvalidInputError as exc:
            failed[number] = str(exc)
    found: dict[str, Any] = {"version": "", "predictions": []}
    if wanted:
        found = cluster.predict(rooms.cluster, project, wanted, "")
    answers: dict[int, dict[str, Any]] = {number: {"result": [], "score": 0.0, "error": why} for number, why in failed.items()}
    for line in found["predictions"]:
        number = int(line["id"])
        text = _text(control, tasks[number])
        answers[number] = {"result": results.result_of(control, _value(line), text), "score": line["confidence"]}
        if line["error"]:
            answers[number] |= {"result": [], "error": line["error"]}
    return [{**answers[number], "model_version": found["version"]} for number in range(len(tasks))]


def _value(line: Mapping[str, Any]) -> Value:
    marks = msgspec.convert(line.get("marks", ()), tuple[Mark, ...])
    return Value(labels=tuple(line["labels"]), marks=marks)


def take_in(rooms: Rooms, project: Project, user: User, hook: Mapping[str, Any]) -> Said:
    """Save what a webhook tells. What the project does not hold (another control, an unreadable task) is ignored by name."""
    action = str(hook.get("action", ""))
    if action == "ANNOTATIONS_DELETED":
        return _delete(rooms, project, user, _list(hook.get("annotations")))
    if action == "START_TRAINING":
        cluster.train(rooms, project, user, {"algorithm": "", "encoder": "", "parameters": {}})
        return Said()
    if action not in TAKEN:
        return Said(ignored=(f"action {action[:80]!r} says nothing of labels",))
    control = config.find_control(str(_dict(hook, "project").get("label_config", "")), project.category, project.kind)
    done: list[Said] = []
    for annotation, task in _pairs(hook):
        try:
            done.append(_take_one(rooms, project, user, control, annotation, task))
        except (InvalidInputError, ConflictError) as exc:
            done.append(Said(ignored=(f"annotation {annotation.get('id')!r}: {exc}",)))
    why = tuple(reason.encode(errors="replace").decode() for one in done for reason in one.ignored)
    return Said(sum(one.saved for one in done), sum(one.withdrawn for one in done), why)


def _pairs(hook: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    annotations, tasks = _list(hook.get("annotation")), _list(hook.get("task"))
    if len(tasks) == 1:
        return [(annotation, tasks[0]) for annotation in annotations]
    by_id = {str(task.get("id")): task for task in tasks}
    return [(annotation, by_id.get(str(annotation.get("task")), {})) for annotation in annotations]


def _list(given: Any) -> list[Mapping[str, Any]]:
    some = given if isinstance(given, list) else [given]
    return [one for one in some if isinstance(one, Mapping)]


def _dict(given: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = given.get(key)
    return found if isinstance(found, Mapping) else {}


def _take_one(
    rooms: Rooms, project: Project, user: User, control: Control, annotation: Mapping[str, Any], task: Mapping[str, Any]
) -> Said:
    """Save one annotation as the label of its task's item, or take that label back when it says nothing any more."""
    number, at = _number(annotation.get("id"), "annotation"), _time(annotation.get("updated_at"))
    item_id = f"label-studio-{_number(task.get('project'), 'project')}-{_number(task.get('id'), 'task')}"
    with rooms.database.read() as tx:
        known = label_studio.find_link(tx, project.id, number)
    if known is not None and known.updated_at > at:
        raise ConflictError("a newer state of it came before: nothing was changed")
    value = results.value_of(control, _list(annotation.get("result")), _text(control, task))
    if annotation.get("was_cancelled") or (project.kind == "multiclass" and not value.labels):
        return Said(withdrawn=_withdraw(rooms, project, user, number))
    new = rows.item_from_object(project, {"id": item_id, **_content(project, control, task)})
    _make_free(rooms, project, user, new)
    answer = Answer(item_id, value.labels, key=f"label-studio-{number}-{at:.6f}", seconds=_seconds(annotation), value=value)
    saved = rooms.labelling.answer(project, user.id, answer, 0).saved
    with rooms.database.write() as tx:
        label_studio.keep_link(tx, project.id, number, Link(item_id, saved.annotation_id, at))
    return Said(saved=1)


def _make_free(rooms: Rooms, project: Project, user: User, new: items.NewItem) -> None:
    """Add the item unless it is there, and end a lease on it: its label has come, and Label Studio does not send it twice."""
    with rooms.database.write() as tx:
        items.add_items(tx, project, [new], user.id, datetime.datetime.now(datetime.UTC).timestamp())
        held = revisions.hold_item(tx, project.id, new.item_id)
        if held is not None and held.lease_id is not None and held.lease_user not in (None, user.id):
            leases.drop_lease(tx, project.id, held.lease_user or 0, held.lease_id)


def _delete(rooms: Rooms, project: Project, user: User, annotations: Sequence[Mapping[str, Any]]) -> Said:
    numbers = [_number(annotation.get("id"), "annotation") for annotation in annotations]
    return Said(withdrawn=sum(_withdraw(rooms, project, user, number) for number in numbers))


def _withdraw(rooms: Rooms, project: Project, user: User, number: int) -> bool:
    """Take the label back that their annotation gave, unless something newer is the item's label. True = it was taken back."""
    with rooms.database.write() as tx:
        link = label_studio.find_link(tx, project.id, number)
        label_studio.drop_link(tx, project.id, number)
        if link is None or label_studio.current_annotation(tx, project.id, link.item_id) != link.annotation_id:
            return False
    _, batch = rooms.labelling.undo(project, user.id, link.item_id, is_owner=True)
    for leased in batch.items:  # nobody here asked for the item
        rooms.labelling.give_back(project, user.id, leased.lease_id)
    return True


def _content(project: Project, control: Control, task: Mapping[str, Any]) -> dict[str, Any]:
    value = _dict(task, "data").get(control.field)
    if not isinstance(value, str) or not value:
        raise InvalidInputError(f"task {task.get('id')!r} has no text in its data field {control.field!r}")
    if project.category in ("text-classification", "token-classification"):
        return {"text": value}
    if not value.startswith(_SCHEMES):
        raise InvalidInputError(
            f"link {value[:80]!r} of task {task.get('id')!r} cannot be fetched from here: give tasks http:// or https:// links "
            "(files uploaded into Label Studio, s3:// and file:// are not reached)"
        )
    return {"link": value}


def _text(control: Control, task: Mapping[str, Any]) -> str:
    return str(_dict(task, "data").get(control.field, ""))


def _number(given: Any, what: str) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < 2**62:
        raise InvalidInputError(f"the number {given!r} of the {what} is none")
    return given


def _time(given: Any) -> float:
    try:
        return datetime.datetime.fromisoformat(str(given)).timestamp()
    except (ValueError, OverflowError, OSError) as exc:
        raise InvalidInputError(f"updated_at {str(given)[:80]!r} is no time") from exc


def _seconds(annotation: Mapping[str, Any]) -> float | None:
    given = annotation.get("lead_time")
    return float(min(given, 86400.0)) if isinstance(given, int | float) and 0 <= given < float("inf") else None
