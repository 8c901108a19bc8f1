"""The desk where items get several opinions: who gets what next, what an answer means, when an item is decided.

Owns the order in which one person's work comes: what they hold, what was returned to them, what others have begun, then new items,
with items of known answer among them. Must never touch the queue or a request. Called by `webapp.labelling.service` inside its
write transaction, for projects that are shared; all other projects never come here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import msgspec

from labelloop.errors import ConflictError, NotFoundError
from webapp.db import gold, items, leases, opinions, reviews, revisions, tallies
from webapp.db.engine import Tx
from webapp.db.items import BEGUN, LABELLED, OPEN, RULED
from webapp.db.leases import Leased
from webapp.db.opinions import AGAIN, AUDIT, BLIND, DECIDED, DISPUTED, GIVEN, GOLD, OVERLAP, Opinion, Round
from webapp.db.projects import Project
from webapp.db.revisions import CONSENSUS
from webapp.kinds.values import Value, decode_more, encode_more, is_same
from webapp.labelling.answers import Answer, Saved
from webapp.people import consensus, labels, shares
from webapp.people.work import SLOTS, is_chosen

_random = random.SystemRandom()
TakeFree = Callable[[int], list[Leased]]


class Taken(msgspec.Struct, frozen=True):
    """Items for one person; `reason` says why there are none; `after` is where to look on the next time."""

    items: list[Leased]
    after: int
    reason: str = ""


# ---------------------------------------------------------------- what comes next


def take(
    tx: Tx,
    project: Project,
    user_id: int,
    n: int,
    now: float,
    lease_s: float,
    holding: Sequence[str] | None,
    after: int,
    take_free: TakeFree,
) -> Taken:
    """Lease up to `n` items to one person. `take_free` leases new items the usual way; `after` is the round behind which others'
    begun items are looked for."""
    got = opinions.take_own(tx, project, user_id, n, now, lease_s, holding) if holding is not None else []
    got += opinions.take_returned(tx, project, user_id, n - len(got), now, lease_s)
    if len(got) >= n:
        return Taken(got, after)
    stopped = why_stopped(tx, project, user_id)
    if stopped:
        return Taken(got, after, stopped)
    opinions.release_expired(tx, project.id, now)
    known = gold.take(tx, project, user_id, _gold_among(project, n - len(got)), now, lease_s)
    mine = (shares.places_of(project.work, user_id), SLOTS) if _has_shares(project) else None
    more, after = opinions.take_wanted(tx, project, user_id, n - len(got) - len(known), now, lease_s, after, mine)
    missing = n - len(got) - len(known) - len(more)
    fresh = begin(tx, project, user_id, take_free(missing), now) if missing > 0 else []
    if not fresh and missing > 0:
        found, _ = opinions.take_wanted(tx, project, user_id, missing, now, lease_s, 0, mine)
        fresh = found or _take_skipped(tx, project, user_id, missing, now, lease_s, mine)
    return Taken(got + _mixed(more + fresh, known), after)


def _has_shares(project: Project) -> bool:
    """Return whether all the opinions on an item are those of certain people; a second pass of one label goes to anybody."""
    return project.work.assignment == "shares" and project.work.overlap > 1


def _gold_among(project: Project, n: int) -> int:
    share = project.work.gold_share
    return sum(_random.random() < share for _ in range(n)) if share else 0


def _mixed(ordinary: list[Leased], known: list[Leased]) -> list[Leased]:
    """Put items of known answer at random places, so that neither the place nor the order tells them from others."""
    for one in known:
        ordinary.insert(_random.randint(0, len(ordinary)), one)
    return ordinary


def _take_skipped(
    tx: Tx, project: Project, user_id: int, n: int, now: float, lease_s: float, mine: tuple[list[int], int] | None
) -> list[Leased]:
    if not opinions.forget_skips(tx, project.id, user_id):
        return []
    return opinions.take_wanted(tx, project, user_id, n, now, lease_s, 0, mine)[0]


def why_stopped(tx: Tx, project: Project, user_id: int) -> str:
    """Return why a person gets no more items, '' = they do."""
    work = project.work
    if not work.least_gold:
        return ""
    right, n = gold.score(tx, project.id, user_id)
    if n < work.gold_judged_from or right >= work.least_gold * n:
        return ""
    return (
        f"you get no more items here: {right} of {n} answers that can be checked were right, the project asks for "
        f"{work.least_gold:.0%}: talk to one of its owners"
    )


def begin(tx: Tx, project: Project, user_id: int, fresh: list[Leased], now: float) -> list[Leased]:
    """Turn new items into rounds of several people where the project wants that; otherwise they stay as leased."""
    wanted = project.work.overlap
    if wanted == 1 or not fresh:
        return fresh
    numbers = [one.number for one in fresh]
    was_ruled = sum(state == RULED for state in items.states_of(tx, numbers).values())
    if was_ruled:
        tallies.add_ruled(tx, project.id, -was_ruled)
    leases.drop_leases(tx, numbers)
    items.set_state(tx, numbers, BEGUN)
    rows = [
        {"item": one.number, "purpose": _purpose(project, one.item_id), "wanted": wanted, "taken": 1, "given": 0} for one in fresh
    ]
    opinions.add_rounds(tx, project.id, rows, now)
    return opinions.hand_out(tx, project, user_id, fresh, OVERLAP, now)


def _purpose(project: Project, item_id: str) -> str:
    """Return whether the people after the first see the draft."""
    return BLIND if is_chosen(item_id, project.work.blind_share, "blind") else OVERLAP


# ---------------------------------------------------------------- what was answered


def save(tx: Tx, project: Project, user_id: int, answer: Answer, now: float) -> Saved | None:
    """Write one opinion, or return the earlier one that this call repeats; None = the answer is no opinion.

    Raises InvalidInputError, NotFoundError, ConflictError (answered with something else before, or by somebody else).
    """
    own = _find(tx, project, user_id, answer)
    if own is None:
        return _save_unasked(tx, project, user_id, answer, now)
    said = labels.said_of(tx, project, answer)
    if own.user_id != user_id:
        raise ConflictError(f"the lease on item {answer.item_id!r} is somebody else's: nothing was saved; take the next item")
    if items.name_of(tx, own.item) != answer.item_id:
        raise ConflictError(f"this lease or key is of another item than {answer.item_id!r}: nothing was saved; take the next item")
    if own.state == GIVEN:
        if answer.lease or answer.key == own.key:
            return _repeat(answer.item_id, own, said)
        return _change(tx, project, own, answer, said, now)
    if own.expires_at is None:
        raise ConflictError(f"you skipped item {answer.item_id!r}: nothing was saved; take the next item")
    return _give(tx, project, own, answer, said, now)


def _find(tx: Tx, project: Project, user_id: int, answer: Answer) -> Opinion | None:
    by_key = opinions.find_by_key(tx, project, answer.key) if answer.key else None
    if by_key is not None:
        return by_key
    if answer.lease:
        return opinions.find_by_lease(tx, project, answer.lease)
    if project.work.overlap == 1:
        return None
    item = items.find_item(tx, project.id, answer.item_id)
    return opinions.find_own(tx, project, item.number, user_id) if item is not None else None


def _repeat(item_id: str, own: Opinion, said: Value) -> Saved:
    if not is_same(own.said, said):
        raise ConflictError(
            f"this lease or key was answered before with {list(own.labels)!r}: nothing was changed; "
            "to correct a label, send it with neither the lease nor the key"
        )
    return Saved(item_id, 1, own.labels, 0, _is_corrected(own, said), True, own.value)


def _is_corrected(own: Opinion, said: Value) -> bool:
    return own.draft is not None and not is_same(decode_more(own.draft, own.draft_value), said)


def _give(tx: Tx, project: Project, own: Opinion, answer: Answer, said: Value, now: float) -> Saved:
    """Write the opinion of a lease and what follows from it. All opinions look alike to their author: gold is not told apart."""
    is_right = _is_right(tx, project, own, said)
    purpose = _purpose_again(tx, project, own) if own.purpose == AGAIN else own.purpose
    opinions.save_said(tx, own, said, answer.seconds, answer.key, is_right, now, purpose)
    given = msgspec.structs.replace(own, labels=said.labels, state=GIVEN, seconds=answer.seconds, purpose=purpose)
    if purpose == AGAIN:
        _correct_own(tx, project, given, said, now)
    elif purpose != GOLD:
        _count_in(tx, project, given, 1, now)
    return Saved(answer.item_id, 1, said.labels, 0, _is_corrected(own, said), False, encode_more(said))


def _is_right(tx: Tx, project: Project, own: Opinion, said: Value) -> bool | None:
    if own.purpose == GOLD:
        truth = gold.truth_of(tx, project, own.item)
    elif own.purpose == AUDIT:
        truth = opinions.said_in_bulk(tx, project, own.item)
    else:
        return None
    return None if truth is None else consensus.same(truth, said)


def _purpose_again(tx: Tx, project: Project, own: Opinion) -> str:
    """Return what the answer to a returned item is: one of several opinions again where all who differed were asked to think."""
    review, found = reviews.hold_review(tx, project, own.item), opinions.hold_round(tx, own.item)
    is_of_several = review is not None and review.state == reviews.BACK and review.author_id is None
    return found.purpose if is_of_several and found is not None else AGAIN


def _correct_own(tx: Tx, project: Project, own: Opinion, said: Value, now: float) -> None:
    """A returned item is answered: its label is the new one, and a reviewer looks again."""
    held = labels.hold(tx, project, own.item)
    labels.write_label(tx, project, held, said, own.user_id, now, seconds=own.seconds)
    reviews.ask(tx, project.id, own.item, "returned", own.user_id, said, None, now)
    forget_errands(tx, project)


def _count_in(tx: Tx, project: Project, own: Opinion, by: int, now: float) -> None:
    found = opinions.hold_round(tx, own.item)
    if found is None:
        return
    given = found.given + by
    opinions.change_round(tx, own.item, given=given)
    if given >= found.wanted:
        close(tx, project, msgspec.structs.replace(found, given=given), own.user_id, now)


def _change(tx: Tx, project: Project, own: Opinion, answer: Answer, said: Value, now: float) -> Saved:
    """Think again of an opinion that stands: the item is decided anew, unless a reviewer has decided."""
    check_undecided(tx, answer.item_id, own)
    opinions.save_said(tx, own, said, answer.seconds or own.seconds, answer.key, _is_right(tx, project, own, said), now)
    if own.purpose not in (GOLD, AGAIN):
        _count_in(tx, project, msgspec.structs.replace(own, labels=said.labels), 0, now)
    return Saved(answer.item_id, 1, said.labels, 0, _is_corrected(own, said), False, encode_more(said))


def check_undecided(tx: Tx, item_id: str, own: Opinion) -> None:
    """Raise ConflictError where a reviewer has decided on the item of an opinion."""
    if own.purpose != GOLD and reviews.is_decided(tx, own.item):
        raise ConflictError(f"a reviewer has decided on item {item_id!r}: tell the reviewer what you think of it now")


def _save_unasked(tx: Tx, project: Project, user_id: int, answer: Answer, now: float) -> Saved | None:
    """An answer without a lease in a project of several opinions is one more opinion; anywhere else it is a label."""
    if answer.lease or project.work.overlap == 1:
        return None
    item = items.find_item(tx, project.id, answer.item_id)
    if item is None:
        raise NotFoundError(f"project {project.slug!r} has no item {answer.item_id!r}: import it first")
    said = labels.said_of(tx, project, answer)
    found = opinions.hold_round(tx, item.number)
    if found is None and item.state not in (OPEN, RULED):
        raise ConflictError(f"item {answer.item_id!r} has its label, and you were not asked for it: a reviewer can correct it")
    if found is None:
        begin_empty(tx, project, item, now)
    elif found.state >= DECIDED or found.taken >= found.wanted:
        raise ConflictError(f"item {answer.item_id!r} has all the opinions it wants: nothing was saved; take the next item")
    opinions.add_said(tx, project.id, item.number, user_id, said, answer.key, now, seconds=answer.seconds)
    opinions.move_taken(tx, item.number, 1)
    own = opinions.find_own(tx, project, item.number, user_id)
    assert own is not None
    _count_in(tx, project, own, 1, now)
    return Saved(answer.item_id, 1, said.labels, 0, False, False, encode_more(said))


def begin_empty(tx: Tx, project: Project, item: items.StoredItem, now: float) -> None:
    """Begin a round that nobody has in hand yet."""
    leases.drop_leases(tx, [item.number])
    if item.state == RULED:
        tallies.add_ruled(tx, project.id, -1)
    items.set_state(tx, [item.number], BEGUN)
    purpose = _purpose(project, item.item_id)
    row = {"item": item.number, "purpose": purpose, "wanted": project.work.overlap, "taken": 0, "given": 0}
    opinions.add_rounds(tx, project.id, [row], now)


# ---------------------------------------------------------------- deciding


def close(tx: Tx, project: Project, found: Round, user_id: int, now: float) -> None:
    """Decide on an item that has all its opinions: a consensus becomes its label, a tie waits for a reviewer."""
    given = opinions.opinions_of(tx, project, found.item)
    if found.purpose == AUDIT:
        _close_audit(tx, project, found, given[-1], now)
    else:
        if project.work.consensus != "majority" and found.purpose == OVERLAP:
            opinions.change_round(tx, found.item, state=opinions.READY)  # learned from everybody's, beside this path
            return
        settle(tx, project, found, given, majority(project, given), now)
    forget_errands(tx, project)


def majority(project: Project, given: Sequence[Opinion]) -> consensus.Verdict:
    """Return what most people say of an item."""
    return consensus.decide(project.kind, project.labels, [one.said for one in given])


def settle(tx: Tx, project: Project, found: Round, given: Sequence[Opinion], verdict: consensus.Verdict, now: float) -> None:
    """Write what a verdict means: a label, or a question for a reviewer."""
    held = labels.hold(tx, project, found.item)
    before = labels.current(tx, project, held) if held.state == LABELLED else None
    last = max(given, key=lambda one: one.at)
    if verdict.is_clear and verdict.agreement >= project.work.least_agreement:
        opinions.change_round(tx, found.item, state=DECIDED, agreement=verdict.agreement)
        reviews.drop_question(tx, found.item, (reviews.WAITING, reviews.BACK))
        if before is None or not consensus.same(before[1], verdict.value):
            first = next((one for one in given if one.draft is not None), None)
            draft, version = (first.draft, first.draft_version) if first else (None, None)
            said, by = verdict.value, last.user_id
            labels.write_label(tx, project, held, said, by, now, source=CONSENSUS, draft=draft, draft_version=version)
        ask_review(tx, project, (held.number, held.item_id), None, verdict.value, drafted=(), now=now)
        return
    opinions.change_round(tx, found.item, state=DISPUTED, agreement=verdict.agreement)
    reviews.ask(tx, project.id, found.item, "dispute", None, verdict.value, verdict.agreement, now)


def _close_audit(tx: Tx, project: Project, found: Round, own: Opinion, now: float) -> None:
    """An audited label that is wrong is corrected by the person who looked; one that was withdrawn meanwhile stays so."""
    opinions.change_round(tx, found.item, state=DECIDED, agreement=1.0 if own.is_right else 0.0)
    held = labels.hold(tx, project, found.item)
    now_is = labels.current(tx, project, held)
    if now_is is not None and not consensus.same(now_is[1], own.said):
        labels.write_label(tx, project, held, own.said, own.user_id, now, seconds=own.seconds)


def after_label(tx: Tx, project: Project, user_id: int, saved: Saved, now: float) -> None:
    """A plain label was saved in a shared project: it may go to a second person, and a reviewer may look at it."""
    if saved.is_repeat:
        return
    annotation = revisions.find_annotation(tx, saved.annotation_id)
    if annotation is None:
        return
    said = project.value_now(annotation.said)
    if is_chosen(saved.item_id, project.work.blind_share, "blind") and opinions.hold_round(tx, annotation.item) is None:
        seen = annotation
        drafted = {"draft_version": seen.draft_version, "draft_value": seen.draft_value} if seen.draft is not None else {}
        drafted |= {"draft": opinions.text_of(seen.draft)} if seen.draft is not None else {}
        row = {"item": annotation.item, "purpose": BLIND, "wanted": 2, "taken": 1, "given": 1}
        opinions.add_rounds(tx, project.id, [row], now)
        if opinions.find_own(tx, project, annotation.item, user_id) is None:
            more = {"seconds": annotation.seconds, "purpose": BLIND, **drafted}
            opinions.add_said(tx, project.id, annotation.item, user_id, said, "", now, **more)
    where = (annotation.item, saved.item_id)
    drafted_as = annotation.draft if annotation.is_corrected else ()
    ask_review(tx, project, where, user_id, said, drafted=drafted_as or (), now=now)


def ask_review(
    tx: Tx,
    project: Project,
    where: tuple[int, str],
    author_id: int | None,
    said: Value,
    *,
    drafted: tuple[str, ...],
    now: float,
) -> None:
    """Put the new label of an item (its number and id) before the reviewers where the project's policy says so."""
    (number, item_id), work = where, project.work
    is_shared = work.review == "share" and is_chosen(item_id, work.review_share, "review")
    if work.review == "all" or is_shared or (work.review == "corrections" and drafted):
        reviews.ask(tx, project.id, number, work.review, author_id, said, None, now)


def forget_errands(tx: Tx, project: Project) -> None:
    """Let the project take its shortest path again once nothing waits for anybody in person."""
    if project.has_errands and not opinions.has_errands(tx, project.id):
        reviews.mark_errands(tx, project.id, False)
