"""Reviewing: the next labels to judge, and what accept, correct, return and reopen mean.

Owns the rules of a review: nobody judges a label of their own, a stale lease changes nothing, every step is kept. Must never know a
request. Called by the review endpoints.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from labelloop.errors import ConflictError, InvalidInputError, NotFoundError
from webapp.db import items, opinions, projects, reviews, users
from webapp.db.engine import Database, Tx
from webapp.db.items import LABELLED
from webapp.db.leases import Leased
from webapp.db.projects import Project
from webapp.db.reviews import ACCEPTED, BACK, CORRECTED, REASONS, WAITING, Review, Step
from webapp.db.revisions import PERSON, REVIEW
from webapp.kinds.values import Value
from webapp.labelling.answers import Answer
from webapp.people import labels

ACTIONS = ("accept", "correct", "return", "reopen")
MOST_COMMENT = 2000


class Heard(msgspec.Struct, frozen=True):
    """What one person said of a disputed item."""

    by: str
    said: Value


class Question(msgspec.Struct, frozen=True):
    """A label to be judged: `said` by `author` ('' = by several, `heard`), under `item`'s lease, with what reviewers did before."""

    item: Leased
    reason: str
    author: str
    said: Value
    agreement: float | None
    heard: tuple[Heard, ...]
    steps: tuple[Step, ...]


def take(
    database: Database, project: Project, user_id: int, n: int, reason: str, holding: Sequence[str], lease_s: float
) -> tuple[Question, ...]:
    """Lease up to `n` labels to a reviewer, of one `reason` ('' = any). Raises InvalidInputError for an unknown one."""
    if reason and reason not in REASONS:
        raise InvalidInputError(f"reason {reason!r}: use one of {', '.join(REASONS)}")
    with database.write() as tx:
        found = reviews.take(tx, project, user_id, n, time.time(), lease_s, reason, holding)
        return tuple(_questions(tx, project, found))


def open_item(database: Database, project: Project, user_id: int, item_id: str, lease_s: float) -> tuple[Question, ...]:
    """Put one item's label before a reviewer who wants to see it. Raises NotFoundError, ConflictError (another one has it)."""
    now = time.time()
    with database.write() as tx:
        item = items.find_item(tx, project.id, item_id)
        found = labels.current_of(tx, project, item.number) if item is not None else None
        review = reviews.hold_review(tx, project, item.number) if item is not None else None
        if item is None or (found is None and (review is None or review.state != WAITING)):
            raise NotFoundError(f"item {item_id!r} has no label that could be reviewed")
        if (
            review is not None
            and review.state == WAITING
            and review.holder_id not in (None, user_id)
            and (review.expires_at or 0) > now
        ):
            raise ConflictError(f"the label of item {item_id!r} is with another reviewer: take the next one")
        if found is not None and (review is None or review.state != WAITING):
            author = found[0].user_id if found[0].source == PERSON else None
            reviews.ask(tx, project.id, item.number, "asked", author, found[1], None, now)
        return tuple(_questions(tx, project, reviews.take_one(tx, project, user_id, item.number, now + lease_s)))


def _questions(tx: Tx, project: Project, found: Sequence[tuple[Leased, Review]]) -> list[Question]:
    steps = reviews.steps_of(tx, project, [one.number for one, _ in found])
    names: dict[int, str] = {}
    out = []
    for one, review in found:
        heard = opinions.opinions_of(tx, project, one.number) if review.author_id is None else []
        known = [opinion.user_id for opinion in heard] + ([review.author_id] if review.author_id else [])
        names |= users.names_of(tx, [user for user in known if user not in names])
        said = tuple(Heard(names[opinion.user_id], opinion.said) for opinion in heard)
        author = names[review.author_id] if review.author_id else ""
        out.append(Question(one, review.reason, author, review.said, review.agreement, said, tuple(steps.get(one.number, ()))))
    return out


def judge(
    database: Database,
    project: Project,
    user_id: int,
    item_id: str,
    lease: str,
    action: str,
    given: Value,
    comment: str,
    lease_s: float,
) -> str:
    """Accept, correct or return a label, or reopen one's own decision; return the state of the question now.

    Raises NotFoundError, InvalidInputError (action, labels, no comment), ConflictError (a stale lease, nobody to return it to).
    """
    if action not in ACTIONS:
        raise InvalidInputError(f"action {action!r}: use one of {', '.join(ACTIONS)}")
    if len(comment) > MOST_COMMENT:
        raise InvalidInputError(f"the comment has {len(comment)} characters: use up to {MOST_COMMENT}")
    now = time.time()
    with database.write() as tx:
        item = items.find_item(tx, project.id, item_id)
        review = reviews.hold_review(tx, project, item.number) if item is not None else None
        if review is None:
            raise NotFoundError(f"no label of item {item_id!r} waits for a review: take the next one")
        if action == "reopen":
            return _reopen(tx, project, user_id, item_id, review, now + lease_s)
        _check_lease(review, user_id, item_id, lease, now)
        said = review.said
        if action == "accept":
            _accept(tx, project, user_id, review, now)
        elif action == "correct":
            said = labels.said_of(tx, project, Answer(item_id, given.labels, value=given))
            _correct(tx, project, user_id, review, said, now)
        else:
            _return(tx, project, review, comment, now)
        reviews.add_step(tx, project.id, review, user_id, action, said, comment.strip(), now)
        return {"accept": ACCEPTED, "correct": CORRECTED}.get(action, BACK)


def _check_lease(review: Review, user_id: int, item_id: str, lease: str, now: float) -> None:
    if review.state != WAITING:
        raise ConflictError(f"the label of item {item_id!r} was judged meanwhile: nothing was changed; take the next one")
    is_live = review.expires_at is not None and review.expires_at > now
    if lease != review.lease_id or review.holder_id != user_id:
        who = "is with another reviewer" if is_live else "has changed or went on to somebody else"
        raise ConflictError(f"the label of item {item_id!r} {who}: nothing was changed; take the next one")


def _settled(state: str) -> dict[str, object]:
    return {"state": state, "lease_id": None, "holder_id": None, "expires_at": None}


def _accept(tx: Tx, project: Project, user_id: int, review: Review, now: float) -> None:
    """A label that is there stands; what several could not agree on becomes the label as proposed."""
    held = labels.hold(tx, project, review.item)
    if held.state != LABELLED:
        labels.write_label(tx, project, held, review.said, user_id, now, source=REVIEW)
    reviews.change_review(tx, review.item, **_settled(ACCEPTED))
    _decide_round(tx, review.item)


def _correct(tx: Tx, project: Project, user_id: int, review: Review, said: Value, now: float) -> None:
    labels.write_label(tx, project, labels.hold(tx, project, review.item), said, user_id, now, source=REVIEW)
    reviews.change_review(tx, review.item, **_settled(CORRECTED))
    _decide_round(tx, review.item)


def _decide_round(tx: Tx, item: int) -> None:
    if opinions.hold_round(tx, item) is not None:
        opinions.change_round(tx, item, state=opinions.DECIDED)


def _return(tx: Tx, project: Project, review: Review, comment: str, now: float) -> None:
    """Let the label's author think again, or all who gave their opinion where several did."""
    if not comment.strip():
        raise InvalidInputError("a label is returned with a comment: say what is wrong with it")
    if review.author_id is None:
        _return_to_all(tx, project, review.item, now)
    elif _is_gone(tx, project, review.author_id):
        raise ConflictError("who gave this label has left the project: accept it, or correct it")
    else:
        opinions.send_back(tx, project.id, review.item, review.author_id, review.said, now)
    reviews.change_review(tx, review.item, **_settled(BACK))
    reviews.mark_errands(tx, project.id, True)


def _is_gone(tx: Tx, project: Project, user_id: int) -> bool:
    return projects.role_of(tx, project.id, user_id) is None and not users.is_admin(tx, user_id)


def _return_to_all(tx: Tx, project: Project, item: int, now: float) -> None:
    """Each of several people gets the item again with what they had said; it is decided anew once all have answered."""
    found = opinions.hold_round(tx, item)
    heard = [one for one in opinions.opinions_of(tx, project, item) if one.purpose in (opinions.OVERLAP, opinions.BLIND)]
    there = [one for one in heard if not _is_gone(tx, project, one.user_id)]
    if found is None or not there:
        raise ConflictError("nobody who gave an opinion on this item is in the project any more: accept the label, or correct it")
    for one in there:
        opinions.send_back(tx, project.id, item, one.user_id, one.said, now)
    opinions.change_round(tx, item, given=found.given - len(there), state=opinions.FULL, agreement=None)


def _reopen(tx: Tx, project: Project, user_id: int, item_id: str, review: Review, expires_at: float) -> str:
    """Judge again what was accepted or corrected; the label stays as it is until then."""
    if review.state not in (ACCEPTED, CORRECTED):
        raise ConflictError(f"the label of item {item_id!r} is {review.state}: there is no decision to take back")
    found = labels.current_of(tx, project, review.item)
    reviews.lease_again(tx, review.item, user_id, expires_at)
    reviews.add_step(tx, project.id, review, user_id, "reopen", found[1] if found else review.said, "", time.time())
    return WAITING


def read_counts(database: Database, project: Project) -> dict[str, int]:
    """Return how many labels wait for a reviewer, by reason, and how many are back with their authors."""
    with database.read() as tx:
        return reviews.counts(tx, project.id)


def extend(database: Database, project: Project, user_id: int, lease_ids: Sequence[str], expires_at: float) -> None:
    """Hold a reviewer's own leases until then."""
    with database.write() as tx:
        reviews.extend(tx, project.id, user_id, lease_ids, expires_at)
