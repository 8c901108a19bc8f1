"""What is taken back: one's own opinion, and all that somebody had in hand who leaves the project.

Owns what becomes of an item's label when an opinion it stood on goes. Must never take back what a reviewer decided. Called by
`webapp.labelling.service` and `webapp.projects.service` inside their write transactions.
"""

from __future__ import annotations

import secrets

from webapp.db import items, leases, opinions, reviews
from webapp.db.engine import Tx
from webapp.db.items import BEGUN, LABELLED
from webapp.db.leases import Leased
from webapp.db.opinions import AGAIN, AUDIT, BLIND, DECIDED, GIVEN, GOLD, Round
from webapp.db.projects import Project
from webapp.db.revisions import CONSENSUS
from webapp.labelling.answers import Saved
from webapp.people import labels
from webapp.people.desk import check_undecided, forget_errands


def undo(tx: Tx, project: Project, user_id: int, item_id: str, now: float, lease_s: float) -> tuple[Saved, list[Leased]] | None:
    """Take one's own opinion back and lease the item again; None = there is none, so that a label may be meant.

    Raises ConflictError where a reviewer has decided on the item.
    """
    item = items.find_item(tx, project.id, item_id)
    own = opinions.find_own(tx, project, item.number, user_id) if item is not None else None
    if item is None or own is None or own.state != GIVEN or own.purpose == AGAIN:
        return None
    found = opinions.hold_round(tx, item.number)
    if found is not None and found.purpose == BLIND and project.work.overlap == 1 and _is_author(tx, project, item, user_id):
        opinions.drop_round(tx, found.item)
        return None  # the first label of a blind pass is an ordinary one: it is withdrawn as such
    check_undecided(tx, item_id, own)
    if own.purpose != GOLD and found is not None:
        _count_out(tx, project, found, item, user_id, now)
    lease = secrets.token_urlsafe(12)
    opinions.reopen(tx, own, lease, now + lease_s)
    again = opinions.take_own(tx, project, user_id, 1, now, lease_s, _others(tx, project, user_id, item_id))
    return Saved(item_id, 2, (), 0, False, False), again


def _others(tx: Tx, project: Project, user_id: int, item_id: str) -> list[str]:
    return [name for name in opinions.names_out(tx, project.id, user_id) if name != item_id]


def _is_author(tx: Tx, project: Project, item: items.StoredItem, user_id: int) -> bool:
    found = labels.current_of(tx, project, item.number)
    return found is not None and found[0].user_id == user_id


def _count_out(tx: Tx, project: Project, found: Round, item: items.StoredItem, user_id: int, now: float) -> None:
    """One opinion fewer: what was decided by it is open again, except the first label of a blind pass, which stands."""
    was_decided = found.state >= DECIDED
    opinions.change_round(tx, item.number, given=found.given - 1, state=opinions.FULL, agreement=None)
    reviews.drop_question(tx, item.number)
    is_second_pass = found.purpose in (BLIND, AUDIT) and project.work.overlap == 1
    if was_decided and item.state == LABELLED and not is_second_pass:
        labels.withdraw(tx, project, labels.hold(tx, project, item.number), user_id, now, CONSENSUS)
        items.set_state(tx, [item.number], BEGUN)


# ---------------------------------------------------------------- people who leave


def leave(tx: Tx, project: Project, user_id: int, now: float) -> None:
    """Somebody leaves the project: what they have in hand goes to others, what was returned to them to the reviewers."""
    opinions.release_expired(tx, project.id, now, user_id)
    leases.drop_all_of(tx, project.id, user_id)
    for number in opinions.items_of_open(tx, project.id, user_id):
        found, review = labels.current_of(tx, project, number), reviews.hold_review(tx, project, number)
        opinions.drop(tx, number, user_id)
        if review is not None and review.author_id is None and review.state == reviews.BACK:
            opinions.move_taken(tx, number, -1)  # somebody else's opinion is asked for in its place
        elif found is not None:
            reviews.ask(tx, project.id, number, "left", None, found[1], None, now)
    reviews.release_of(tx, project.id, user_id)
    opinions.forget_skips(tx, project.id, user_id)
    forget_errands(tx, project)
