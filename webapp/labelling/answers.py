"""What an answer to a lease means: saved, repeated, too late or refused.

Owns the rules for labels, leases and idempotency keys. Must never touch the queue or a request. Called by
`webapp.labelling.service` inside its write transaction.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from labelloop.errors import ConflictError, NotFoundError
from webapp.db import revisions, tallies
from webapp.db.engine import Tx
from webapp.db.items import LABELLED
from webapp.db.projects import Project
from webapp.db.revisions import Annotation, Held
from webapp.kinds import checks
from webapp.kinds.limits import check_within
from webapp.kinds.values import Value, decode_more, encode_more, is_same


class Answer(msgspec.Struct, frozen=True):
    """What an annotator says of one item. `lease` '' = a correction or a script's label, without a lease. `value` is all that is
    said where that is more than labels."""

    item_id: str
    labels: tuple[str, ...]
    lease: str = ""
    seconds: float | None = None
    key: str = ""
    value: Value | None = None


class Saved(msgspec.Struct, frozen=True):
    """An answer that is in the database. `is_repeat`: it was there before this call."""

    item_id: str
    revision: int
    labels: tuple[str, ...]
    annotation_id: int
    is_corrected: bool
    is_repeat: bool
    value: str | None = None  # what was said beside the labels, as JSON


def check_labels(project: Project, labels: Sequence[str]) -> tuple[str, ...]:
    """Return the labels in the project's order, earlier names as they are now. Raises InvalidInputError naming the one at fault."""
    labels = project.current(labels) if len(set(labels)) == len(labels) else labels
    return checks.check_labels(project.labels, labels, project.kind_rules.is_single, project.slug)


def check_answer(project: Project, answer: Answer) -> Value:
    """Return what an answer says, in the form in which it is kept. Raises InvalidInputError naming what is at fault."""
    said = project.value_now(answer.value or Value(answer.labels))
    return check_within(project.limits_now, checks.check_value(project.kind_rules, project.labels, said, name=project.slug))


def save_answer(tx: Tx, project: Project, user_id: int, answer: Answer, now: float) -> Saved:
    """Write one answer, or return the earlier one that this call repeats.

    Raises InvalidInputError (a label that is not in the project, a mark out of its place), NotFoundError (no such item),
    ConflictError (the lease was answered with something else, or is in other hands).
    """
    value, with_chars = check_answer(project, answer), project.kind_rules.shape == "span"
    held = None
    if answer.lease:  # nearly always it is still there, and one look is enough
        held = revisions.hold_leased(tx, project.id, answer.item_id, answer.lease, answer.key, with_chars)
    is_first = held is not None
    held = held or revisions.hold_item(tx, project.id, answer.item_id, with_chars)
    if held is None:
        raise NotFoundError(f"project {project.slug!r} has no item {answer.item_id!r}: import it first")
    checks.check_ends(value, held.n_chars)
    earlier = None if is_first else _earlier(tx, project, answer, held)
    if earlier is not None:
        _check_repeat(earlier, held, value, user_id)
        return _saved(held.item_id, earlier, is_repeat=True)
    _check_lease(held, answer.lease, user_id, now)
    held = _with_draft_as_now(project, held)
    new = _next_revision(tx, project.id, held, answer, value, user_id, now)
    return _saved(held.item_id, revisions.add_annotation(tx, project.id, held, new, project.is_learned), is_repeat=False)


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
    withdrawn = _next_revision(tx, project.id, held, Answer(item_id=item_id, labels=()), Value(), user_id, now)
    new = msgspec.structs.replace(withdrawn, is_deleted=True)
    return _saved(item_id, revisions.add_annotation(tx, project.id, held, new, project.is_learned), is_repeat=False)


def _with_draft_as_now(project: Project, held: Held) -> Held:
    """Return the lease with its draft as its labels are called now: one of another name is no correction."""
    if held.draft is None or not project.label_set.left:
        return held
    shown = project.current(msgspec.json.decode(held.draft))
    more = project.current_more(held.draft_value)
    return msgspec.structs.replace(held, draft=msgspec.json.encode(shown).decode(), draft_value=more)


def _earlier(tx: Tx, project: Project, answer: Answer, held: Held) -> Annotation | None:
    """Return what was answered before under this key or lease; a lease that is out has no answer yet."""
    by_key = revisions.find_by_key(tx, project.id, answer.key) if answer.key else None
    is_out = not answer.lease or answer.lease == held.lease_id
    return by_key or (None if is_out else revisions.find_by_lease(tx, answer.lease))


def _check_repeat(earlier: Annotation, held: Held, value: Value, user_id: int) -> None:
    said = (earlier.item, earlier.labels, earlier.value, earlier.user_id)
    if said == (held.number, value.labels, encode_more(value), user_id) and not earlier.is_deleted:
        return
    raise ConflictError(
        f"this lease or key was answered before with {_shown(earlier)}: nothing was changed; "
        "to correct a label, send it with neither the lease nor the key"
    )


def _shown(earlier: Annotation) -> str:
    more = f" and {earlier.value[:80]}" if earlier.value else ""
    return f"{list(earlier.labels)!r}{more}"


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


def _next_revision(tx: Tx, project_id: int, held: Held, answer: Answer, value: Value, user_id: int, now: float) -> Annotation:
    draft = tuple(msgspec.json.decode(held.draft)) if answer.lease and held.draft is not None else None
    return Annotation(
        id=0,
        item=held.number,
        revision=held.revision + 1,
        labels=value.labels,
        is_deleted=False,
        user_id=user_id,
        draft=draft,
        draft_version=held.draft_version if draft is not None else None,
        is_corrected=draft is not None and _differs(draft, held.draft_value, value),
        seconds=answer.seconds,
        lease_id=answer.lease or None,
        key=answer.key or None,
        window_no=tallies.total(tx, project_id).drafted // tallies.WINDOW_LABELS if draft is not None else 0,
        created_at=now,
        value=encode_more(value),
        draft_value=held.draft_value if draft is not None else None,
    )


def _differs(draft: tuple[str, ...], draft_value: str | None, value: Value) -> bool:
    """Return whether a person said something else than the draft."""
    if draft_value is None and value.is_plain:
        return set(draft) != set(value.labels)
    return not is_same(decode_more(draft, draft_value), value)


def _saved(item_id: str, annotation: Annotation, is_repeat: bool) -> Saved:
    one = annotation
    return Saved(item_id, one.revision, one.labels, one.id, one.is_corrected, is_repeat, one.value)
