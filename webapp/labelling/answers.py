"""What an answer to a lease means: saved, repeated, too late or refused.

Owns the rules for labels, leases and idempotency keys. Must never touch the queue or a request. Called by
`webapp.labelling.service` inside its write transaction.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from labelloop.errors import ConflictError, InvalidInputError, NotFoundError
from webapp.db import revisions, tallies
from webapp.db.engine import Tx
from webapp.db.items import LABELLED
from webapp.db.projects import Project
from webapp.db.revisions import Annotation, Held


class Answer(msgspec.Struct, frozen=True):
    """What an annotator says of one item. `lease` '' = a correction or a script's label, without a lease."""

    item_id: str
    labels: tuple[str, ...]
    lease: str = ""
    seconds: float | None = None
    key: str = ""


class Saved(msgspec.Struct, frozen=True):
    """An answer that is in the database. `is_repeat`: it was there before this call."""

    item_id: str
    revision: int
    labels: tuple[str, ...]
    annotation_id: int
    is_corrected: bool
    is_repeat: bool


def check_labels(project: Project, labels: Sequence[str]) -> tuple[str, ...]:
    """Return the labels in the project's order. Raises InvalidInputError naming the one at fault."""
    for label in labels:
        if label not in project.labels:
            known = ", ".join(project.labels[:20])
            raise InvalidInputError(f"label {label!r} is not in project {project.slug!r}: use one of {known}")
    if len(set(labels)) != len(labels):
        raise InvalidInputError(f"labels {list(labels)!r} name one label twice: name each once")
    if not project.is_multilabel and len(labels) != 1:
        raise InvalidInputError(f"{len(labels)} labels for an item of project {project.slug!r}, which takes exactly one: send one")
    return tuple(label for label in project.labels if label in labels)


def save_answer(tx: Tx, project: Project, user_id: int, answer: Answer, now: float) -> Saved:
    """Write one answer, or return the earlier one that this call repeats.

    Raises InvalidInputError (a label that is not in the project), NotFoundError (no such item), ConflictError (the lease was
    answered with something else, or is in other hands).
    """
    labels = check_labels(project, answer.labels)
    held = revisions.hold_item(tx, project.id, answer.item_id)
    if held is None:
        raise NotFoundError(f"project {project.slug!r} has no item {answer.item_id!r}: import it first")
    earlier = _earlier(tx, project, answer, held)
    if earlier is not None:
        _check_repeat(earlier, held, labels, user_id)
        return _saved(held.item_id, earlier, is_repeat=True)
    _check_lease(held, answer.lease, user_id, now)
    new = _next_revision(tx, project.id, held, answer, labels, user_id, now)
    return _saved(held.item_id, revisions.add_annotation(tx, project.id, held, new), is_repeat=False)


def save_undo(tx: Tx, project: Project, user_id: int, item_id: str, is_owner: bool, now: float) -> Saved:
    """Withdraw an item's label with a new revision. Raises NotFoundError, ConflictError (nothing to undo, or not one's own)."""
    held = revisions.hold_item(tx, project.id, item_id)
    if held is None:
        raise NotFoundError(f"project {project.slug!r} has no item {item_id!r}")
    if held.state != LABELLED or held.annotation_id is None:
        raise ConflictError(f"item {item_id!r} has no label: there is nothing to undo")
    current = revisions.find_annotation(tx, held.annotation_id)
    if current is not None and current.user_id != user_id and not is_owner:
        raise ConflictError(f"item {item_id!r} was labelled by somebody else: only the project's owner may withdraw that")
    withdrawn = _next_revision(tx, project.id, held, Answer(item_id=item_id, labels=()), (), user_id, now)
    new = msgspec.structs.replace(withdrawn, is_deleted=True)
    return _saved(item_id, revisions.add_annotation(tx, project.id, held, new), is_repeat=False)


def _earlier(tx: Tx, project: Project, answer: Answer, held: Held) -> Annotation | None:
    """Return what was answered before under this key or lease; a lease that is out has no answer yet."""
    by_key = revisions.find_by_key(tx, project.id, answer.key) if answer.key else None
    is_out = not answer.lease or answer.lease == held.lease_id
    return by_key or (None if is_out else revisions.find_by_lease(tx, answer.lease))


def _check_repeat(earlier: Annotation, held: Held, labels: tuple[str, ...], user_id: int) -> None:
    if (earlier.item, earlier.labels, earlier.user_id) == (held.number, labels, user_id) and not earlier.is_deleted:
        return
    raise ConflictError(
        f"this lease or key was answered before with {list(earlier.labels)!r}: nothing was changed; "
        "to correct a label, send it with neither the lease nor the key"
    )


def _check_lease(held: Held, lease: str, user_id: int, now: float) -> None:
    is_live = held.lease_expires_at is not None and held.lease_expires_at > now
    if not lease:
        if is_live and held.lease_user != user_id:
            raise ConflictError(f"item {held.item_id!r} is in another annotator's hands: try again in some minutes")
        return
    if lease != held.lease_id or held.lease_user != user_id:
        raise ConflictError(
            f"the lease on item {held.item_id!r} ended and the item went on to somebody else: nothing was saved; take the next item"
        )


def _next_revision(
    tx: Tx, project_id: int, held: Held, answer: Answer, labels: tuple[str, ...], user_id: int, now: float
) -> Annotation:
    draft = tuple(msgspec.json.decode(held.draft)) if answer.lease and held.draft is not None else None
    return Annotation(
        id=0,
        item=held.number,
        revision=held.revision + 1,
        labels=labels,
        is_deleted=False,
        user_id=user_id,
        draft=draft,
        draft_version=held.draft_version if draft is not None else None,
        is_corrected=draft is not None and set(draft) != set(labels),
        seconds=answer.seconds,
        lease_id=answer.lease or None,
        key=answer.key or None,
        window_no=tallies.total(tx, project_id).drafted // tallies.WINDOW_LABELS if draft is not None else 0,
        created_at=now,
    )


def _saved(item_id: str, annotation: Annotation, is_repeat: bool) -> Saved:
    return Saved(item_id, annotation.revision, annotation.labels, annotation.id, annotation.is_corrected, is_repeat)
