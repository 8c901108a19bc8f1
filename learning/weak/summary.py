"""The table of rules: what each covers, where it overlaps and fights with others, and how often it is right where that is known.

Terms as in A. Ratner et al., "Snorkel: Rapid Training Data Creation with Weak Supervision", VLDB 2018. Must never fit a model.
Called by the roles that label by rules, by pages and by the bench.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.weak.votes import check_truth, check_votes


class RuleReport(msgspec.Struct, frozen=True, kw_only=True):
    """One rule among the others; shares are of all items, in [0, 1].

    `labels` it really says. `coverage`: it votes. `overlap`: it votes and so does another. `conflict`: it votes and another says
    something else. `accuracy`: right among its votes on items whose label is known, None where it has no such vote; `n_known` is
    their number. `note` says in a sentence what is wrong with the rule, or is empty.
    """

    name: str
    labels: tuple[int, ...]
    n_votes: int
    coverage: float
    overlap: float
    conflict: float
    accuracy: float | None
    n_known: int
    note: str


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """All rules and what they do together: shares of items with a vote, with two or more, and with votes that differ."""

    rules: tuple[RuleReport, ...]
    n_items: int
    coverage: float
    overlap: float
    conflict: float


def summarise(names: tuple[str, ...], votes: NDArray[Any], n_labels: int, truth: Any = None) -> Summary:
    """Return the table of votes (n, m) by the rules called `names`; truth: (n,) known labels, -1 = unknown.

    No items give shares of 0. A rule that never fires is a row with a note. Raises InvalidInputError as `check_votes`, and when
    names and votes differ in number.
    """
    votes = check_votes(votes, n_labels)
    if len(names) != votes.shape[1]:
        raise InvalidInputError(f"{len(names)} names for the votes of {votes.shape[1]} rules: give each rule one")
    known = np.full(len(votes), -1, dtype=np.int64) if truth is None else check_truth(truth, len(votes), n_labels)
    n_voting, is_split = _together(votes)
    rules = tuple(_report(name, votes[:, j], n_voting, is_split, known) for j, name in enumerate(names))
    return Summary(
        rules=rules,
        n_items=len(votes),
        coverage=_share(n_voting > 0),
        overlap=_share(n_voting > 1),
        conflict=_share(is_split),
    )


def _together(votes: NDArray[np.int16]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return how many rules vote for each item, and whether their votes differ."""
    n_voting = (votes >= 0).sum(axis=1)
    highest = votes.max(axis=1)
    lowest = np.where(votes < 0, np.int16(np.iinfo(np.int16).max), votes).min(axis=1)
    return n_voting, (n_voting > 1) & (lowest < highest)


def _report(
    name: str, column: NDArray[np.int16], n_voting: NDArray[np.int64], is_split: NDArray[np.bool_], known: NDArray[np.int64]
) -> RuleReport:
    has_vote = column >= 0
    is_checked = has_vote & (known >= 0)
    n_known = int(is_checked.sum())
    accuracy = float((column[is_checked] == known[is_checked]).mean()) if n_known else None
    return RuleReport(
        name=name,
        labels=tuple(np.unique(column[has_vote]).tolist()),
        n_votes=int(has_vote.sum()),
        coverage=_share(has_vote),
        overlap=_share(has_vote & (n_voting > 1)),
        conflict=_share(has_vote & is_split),
        accuracy=accuracy,
        n_known=n_known,
        note=_note(has_vote, accuracy, n_known),
    )


def _note(has_vote: NDArray[np.bool_], accuracy: float | None, n_known: int) -> str:
    if not has_vote.any():
        return "never fires on these items: widen it or take it out"
    if accuracy is not None and n_known >= 10 and accuracy < 0.5:
        return f"wrong on {1 - accuracy:.0%} of {n_known} known items: turn it around or take it out"
    return ""


def _share(mask: NDArray[np.bool_]) -> float:
    return float(mask.mean()) if len(mask) else 0.0
