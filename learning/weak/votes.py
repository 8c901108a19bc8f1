"""What rules said of items: the matrix of votes, its checks, and its distinct rows.

Owns the value of abstention and the sparse form that the label models work on. Must never import a model or a rule. Called by every
file of this package that sees votes.

| bad input | answer |
|---|---|
| not (n, m), no rule, values that are no whole numbers | InvalidInputError naming shape or dtype |
| a label below -1 or not below n_labels | InvalidInputError naming item, rule and value |
| no items at all | an empty answer; a model cannot be fitted: InvalidInputError |
| a rule that never fires | allowed: it weighs nothing, and the table of `summary` says so |
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from labelloop.errors import InvalidInputError

ABSTAIN = -1
MAX_LABELS = 32_767  # votes are int16
_TRIED_ROWS = 2_000
_ALL_DIFFER = 0.98  # share of distinct ones among the tried


class VotePatterns(NamedTuple):
    """The rows of a matrix of votes, equal ones as one: items that all rules treat alike are computed once.

    `indicator` (u, m * k) float64 sparse: 1 at column `j * k + v` where rule j says v. `counts` (u,) float64 items of each row.
    `row_of_item` (n,) into the rows.
    """

    indicator: Any  # scipy.sparse.csr_matrix
    counts: NDArray[np.float64]
    row_of_item: NDArray[np.int64]
    n_rules: int
    n_labels: int

    @property
    def is_covered(self) -> NDArray[np.bool_]:
        """(u,) True where at least one rule votes."""
        return np.diff(self.indicator.indptr) > 0

    @property
    def votes_of_row(self) -> NDArray[np.int64]:
        """(u,) how many rules vote."""
        return np.diff(self.indicator.indptr).astype(np.int64)


def check_votes(votes: NDArray[Any], n_labels: int) -> NDArray[np.int16]:
    """Return votes (n, m) as int16, -1 = the rule abstains. Raises InvalidInputError: see the module's table."""
    votes = np.asarray(votes)
    if not 1 <= n_labels <= MAX_LABELS:
        raise InvalidInputError(f"n_labels must be from 1 to {MAX_LABELS}, got {n_labels}")
    if votes.ndim != 2 or votes.shape[1] == 0:
        raise InvalidInputError(f"votes must be (items, rules) with at least one rule, got shape {votes.shape}")
    if votes.dtype.kind not in "iu":
        raise InvalidInputError(f"votes must be whole numbers with {ABSTAIN} for abstention, got dtype {votes.dtype}")
    if votes.size and (votes.min() < ABSTAIN or votes.max() >= n_labels):
        item, rule = (int(place) for place in np.argwhere((votes < ABSTAIN) | (votes >= n_labels))[0])
        raise InvalidInputError(
            f"rule {rule} says {votes[item, rule]} of item {item}: labels are 0 to {n_labels - 1}, {ABSTAIN} is abstention"
        )
    return votes.astype(np.int16, copy=False)


def check_balance(balance: Any, n_labels: int) -> NDArray[np.float64]:
    """Return a known class balance (n_labels,) as float64. Raises InvalidInputError naming what is wrong with it."""
    found = np.asarray(balance, dtype=np.float64)
    if found.shape != (n_labels,):
        raise InvalidInputError(f"a class balance has one share for each of {n_labels} labels, got shape {found.shape}")
    if not (np.isfinite(found).all() and found.min() > 0):
        raise InvalidInputError(f"each share of a class balance must be above 0, got {found.tolist()}: leave unused labels out")
    if abs(found.sum() - 1) > 1e-3:
        raise InvalidInputError(f"the shares of a class balance sum to 1, got {found.sum():.4g}")
    share: NDArray[np.float64] = found / found.sum()
    return share


def check_truth(truth: Any, n_items: int, n_labels: int) -> NDArray[np.int64]:
    """Return known labels (n,) int64, -1 = unknown. Raises InvalidInputError naming shape or value."""
    found = np.asarray(truth)
    if found.shape != (n_items,) or found.dtype.kind not in "iu":
        raise InvalidInputError(f"known labels are one whole number an item ({n_items}), got shape {found.shape}, {found.dtype}")
    if n_items and (found.min() < -1 or found.max() >= n_labels):
        raise InvalidInputError(f"known labels are 0 to {n_labels - 1} or -1, got {found.min()} to {found.max()}")
    return found.astype(np.int64)


def find_patterns(votes: NDArray[np.int16], n_labels: int) -> VotePatterns:
    """Return the distinct rows of checked votes (n, m), in O(n m) and one sort of n numbers.

    Where a spread of many rows says that nearly all differ, each is its own: looking for equal ones would cost more than it saves.
    """
    step = len(votes) // _TRIED_ROWS
    if step > 1 and len(_distinct_rows(votes[::step])[0]) > _ALL_DIFFER * len(votes[::step]):
        return VotePatterns(indicator_of(votes, n_labels), np.ones(len(votes)), np.arange(len(votes)), votes.shape[1], n_labels)
    first, row_of_item = _distinct_rows(votes)
    rows = votes[first]
    counts = np.bincount(row_of_item, minlength=len(rows)).astype(np.float64)
    return VotePatterns(indicator_of(rows, n_labels), counts, row_of_item, votes.shape[1], n_labels)


def indicator_of(votes: NDArray[np.int16], n_labels: int) -> Any:
    """Return the sparse (n, m * n_labels) float64 matrix with a 1 for each vote."""
    n, m = votes.shape
    flat = np.ascontiguousarray(votes).reshape(-1)
    places = np.flatnonzero(flat >= 0)
    column = ((places % m) * n_labels + flat[places]).astype(np.int32)
    ends = np.searchsorted(places, np.arange(n + 1) * m).astype(np.int32)
    values = np.ones(len(column), dtype=np.float64)
    return sparse.csr_matrix((values, column, ends), shape=(n, m * n_labels))


def _distinct_rows(votes: NDArray[np.int16]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (an item of each distinct row, the row of each item). A random hash finds them, a comparison proves it."""
    keys = np.zeros(len(votes), dtype=np.uint64)
    for column, weight in zip(votes.T, _hash_weights(votes.shape[1]), strict=True):
        keys += (column.astype(np.uint64) + np.uint64(1)) * weight  # -1 wraps around, as it may
    _, first, row_of_item = np.unique(keys, return_index=True, return_inverse=True)
    if np.array_equal(votes[first][row_of_item], votes):
        return first, row_of_item.reshape(-1)
    _, first, row_of_item = np.unique(votes, axis=0, return_index=True, return_inverse=True)
    return first, row_of_item.reshape(-1)


def _hash_weights(n_rules: int) -> NDArray[np.uint64]:
    return np.random.default_rng(0x5EED).integers(0, 2**63, n_rules, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
