"""Labels that come of opinions and reviews: written as the next revision of an item, with their outbox row.

Owns how such a label becomes an annotation. Must never decide what the label is. Called by the rest of `webapp.people` inside write
transactions.
"""

from __future__ import annotations

from labelloop.errors import NotFoundError
from webapp.db import items, revisions, tallies
from webapp.db.engine import Tx
from webapp.db.projects import Project
from webapp.db.revisions import PERSON, Annotation, Held
from webapp.kinds.checks import check_ends
from webapp.kinds.values import Value, decode_more, encode_more, is_same
from webapp.labelling.answers import Answer, check_answer


def said_of(tx: Tx, project: Project, answer: Answer) -> Value:
    """Return what an answer or a correction says, checked. Raises InvalidInputError naming what is at fault."""
    said = check_answer(project, answer)
    if project.kind_rules.shape == "span":
        item = items.find_item(tx, project.id, answer.item_id)
        check_ends(said, len(item.content) if item is not None and item.content is not None else None)
    return said


def hold(tx: Tx, project: Project, number: int) -> Held:
    """Lock an item by its number. Raises NotFoundError when it is gone."""
    name = items.name_of(tx, number)
    held = revisions.hold_item(tx, project.id, name) if name is not None else None
    if held is None:
        raise NotFoundError(f"project {project.slug!r} has no such item any more")
    return held


def write_label(
    tx: Tx,
    project: Project,
    held: Held,
    said: Value,
    user_id: int,
    now: float,
    *,
    source: str = PERSON,
    draft: tuple[str, ...] | None = None,
    draft_version: str | None = None,
    draft_value: str | None = None,
    seconds: float | None = None,
) -> Annotation:
    """Write the next revision of a locked item's label."""
    is_drafted = draft is not None and draft_version is not None
    new = Annotation(
        id=0,
        item=held.number,
        revision=held.revision + 1,
        labels=said.labels,
        is_deleted=False,
        user_id=user_id,
        draft=draft if is_drafted else None,
        draft_version=draft_version if is_drafted else None,
        is_corrected=is_drafted and not is_same(decode_more(draft or (), draft_value), said),
        seconds=seconds,
        lease_id=None,
        key=None,
        window_no=tallies.total(tx, project.id).drafted // tallies.WINDOW_LABELS if is_drafted else 0,
        created_at=now,
        source=source,
        value=encode_more(said),
        draft_value=draft_value if is_drafted else None,
    )
    return revisions.add_annotation(tx, project.id, held, new, project.is_learned)


def withdraw(tx: Tx, project: Project, held: Held, user_id: int, now: float, source: str = PERSON) -> Annotation:
    """Take an item's label back with a new revision."""
    empty = Annotation(0, held.number, held.revision + 1, (), True, user_id, None, None, False, None, None, None, 0, now, source)
    return revisions.add_annotation(tx, project.id, held, empty, project.is_learned)


def current_of(tx: Tx, project: Project, number: int) -> tuple[Annotation, Value] | None:
    """Return the label that the item with this number has, with its value; None = none."""
    annotation_id = items.annotation_of(tx, number)
    found = revisions.find_annotation(tx, annotation_id) if annotation_id is not None else None
    return (found, project.value_now(found.said)) if found is not None and not found.is_deleted else None


def current(tx: Tx, project: Project, held: Held) -> tuple[Annotation, Value] | None:
    """Return the label that an item has, with its value; None = none."""
    found = revisions.find_annotation(tx, held.annotation_id) if held.annotation_id is not None else None
    return (found, project.value_now(found.said)) if found is not None and not found.is_deleted else None
