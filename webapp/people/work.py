"""How the people of a project work together: the settings of overlap, blind passes, gold, assignment and review.

Owns the struct that is kept as JSON in `projects.work` and its checks. Must never hold a query. Called by `webapp.db.projects`,
which reads it with the project, and by the rest of `webapp.people`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from labelloop.errors import InvalidInputError

MOST_OVERLAP = 20
SLOTS = 840  # places that a fixed share is made of: even shares for 2 to 8 people
Review = Literal["disputes", "corrections", "share", "all"]
Consensus = Literal["majority", "dawid-skene", "one-coin"]
Assignment = Literal["queue", "shares"]


class Work(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`overlap` people give their opinion on each item. Of the items, `blind_share` go to one more person than they would (or to
    the second of several) without a draft. `consensus` names how opinions become a label; below `least_agreement` a reviewer
    decides. `gold_share` of what a person gets are items with a known answer; who is right on less than `least_gold` of at least
    `gold_judged_from` such items gets no more. `review` says which labels a reviewer looks at: those that people differ on, also
    those that correct a draft, a `review_share`, or all. `slots`, where `assignment` is 'shares': whose item it is, by position.
    """

    overlap: int = 1
    blind_share: float = 0.0
    consensus: Consensus = "majority"
    least_agreement: float = 0.5
    gold_share: float = 0.0
    least_gold: float = 0.0
    gold_judged_from: int = 5
    review: Review = "disputes"
    review_share: float = 0.1
    assignment: Assignment = "queue"
    slots: tuple[int, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Return whether each item goes to one person and its label is the answer: the shortest path."""
        return self == _PLAIN or (
            self.overlap == 1
            and not self.blind_share
            and not self.gold_share
            and self.review == "disputes"
            and self.assignment == "queue"
        )

    @property
    def is_blind(self) -> bool:
        """Return whether somebody must not see what others said: lists and exports are closed to annotators then."""
        return self.overlap > 1 or self.blind_share > 0 or self.gold_share > 0


_PLAIN = Work()
_SHARES = ("blind_share", "least_agreement", "gold_share", "least_gold", "review_share")


def read_work(values: Mapping[str, Any]) -> Work:
    """Return settings checked. Raises InvalidInputError naming the one at fault."""
    try:
        work = msgspec.convert(dict(values), Work, strict=False)
    except msgspec.ValidationError as exc:
        known = ", ".join(field.name for field in msgspec.structs.fields(Work))
        raise InvalidInputError(f"people at work: {exc}; it knows {known}") from exc
    if not 1 <= work.overlap <= MOST_OVERLAP:
        raise InvalidInputError(f"overlap {work.overlap}: use 1 to {MOST_OVERLAP} people an item")
    for name in _SHARES:
        if not 0 <= getattr(work, name) <= 1:
            raise InvalidInputError(f"{name} {getattr(work, name)!r}: use a share from 0 to 1")
    if work.gold_share > 0.5:
        raise InvalidInputError(f"gold_share {work.gold_share!r}: use up to 0.5, people are here to label")
    if not 1 <= work.gold_judged_from <= 1000:
        raise InvalidInputError(f"gold_judged_from {work.gold_judged_from}: use 1 to 1000 items")
    return work


def is_chosen(item_id: str, share: float, why: str) -> bool:
    """Return whether an item is among a `share` of all: by its name, so that it is so for everybody and for ever."""
    if share <= 0 or share >= 1:
        return share >= 1
    digest = hashlib.blake2b(f"{why}\0{item_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 < share
