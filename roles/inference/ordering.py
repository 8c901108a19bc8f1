"""A pool, what a strategy wants to know of it, and the order that comes out.

Owns what each strategy is given: costs, labels and features of labelled items, a committee, regions, and the sample by which a pool
too big for memory or for the strategy is judged. Must never build anything that grows with the square of the pool, nor read a file:
`Candidates` and `Known` do that when asked. Called by `ranking`.

| wanted | where it comes from | when it cannot be had |
| --- | --- | --- |
| features | the job's shards, or the workers | `strategy ... needs features` |
| labels, labelled_features | the label log: newest hard labels, at most 4,096 | `... needs labelled features with their labels` |
| labelled_features alone | the log, and excluded items of the pool itself | the strategy does without |
| committee | 8 ridge heads on bootstrap samples of those labels | `... needs labels of two classes`, or of fewer features |
| parts | the regions that the model found, each (p, 1 - p) | `... needs the probabilities of each item's regions or tokens` |
| annotator_labels | nowhere: the log keeps one label an item | `strategy ... needs annotator_labels` |

'auto' needs none of this: without features it orders at random, without labels every cluster counts as unlabelled, and where
regions are known it asks for uncertain ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from labelloop.messages import Array, RankReply, RankRequest, Region
from learning.query import Selection, find, needs, select, uses
from learning.query.bagging import bagged_committee
from learning.query.cold_start import wants_features
from roles.inference.labelled import MOST_LABELLED, Labelled

MOST_FEATURE_BYTES = 256 * 2**20
MOST_COMMITTEE_BYTES = 256 * 2**20
MOST_COMMITTEE_FEATURES = 2048  # the heads invert a matrix of this side
N_MEMBERS = 8

Features = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Candidates:
    """Good items of one version. `features(rows)` reads the features of some of them, in that order; `dim` 0 = they have none.

    `regions`: what the model found in each item, None where the task has none.
    """

    version: str
    ids: NDArray[np.object_]
    proba: NDArray[np.float32] | None
    dim: int
    features: Callable[[Rows], Features]
    regions: Sequence[Sequence[Region]] | None = None


@dataclass(frozen=True)
class Known:
    """What is known of labelled items: `labels()` all hard ones, (l,) or (l, k); `labelled(most)` a sample with features."""

    labels: Callable[[], NDArray[np.int64]]
    labelled: Callable[[int], Labelled]


NOTHING = Known(
    lambda: np.empty(0, dtype=np.int64), lambda most: Labelled((), np.empty((0, 0), np.float32), np.empty(0, dtype=np.int64))
)


def order(request: RankRequest, pool: Candidates, is_multilabel: bool, known: Known = NOTHING) -> RankReply:
    """Return the order of `pool` without `request.exclude`, by `request.strategy`.

    Raises InvalidInputError naming an unknown strategy or parameter, or what the strategy lacks.
    """
    if request.n < 0:
        raise InvalidInputError(f"n must be 0 (all) or more, got {request.n}")
    rows, selection = _Order(request, pool, is_multilabel, known).run()
    scores = np.ascontiguousarray(selection.scores, dtype=np.float32)
    return RankReply(
        strategy=selection.strategy,
        version=pool.version,
        item_ids=tuple(pool.ids[rows[selection.indices]]),
        scores=Array(dtype="float32", shape=scores.shape, data=scores.tobytes()),
        reason=selection.reason,
    )


class _Order:
    """One order: gathers what the strategy wants, of a sample where all is too much."""

    def __init__(self, request: RankRequest, pool: Candidates, is_multilabel: bool, known: Known) -> None:
        self._request, self._pool, self._is_multilabel, self._known = request, pool, is_multilabel, known
        self._wanted = {*needs(request.strategy, request.parameters), *uses(request.strategy, request.parameters)}
        excluded = frozenset(request.exclude)
        is_open = np.fromiter((item_id not in excluded for item_id in pool.ids), dtype=np.bool_, count=len(pool.ids))
        self._rows, self._closed = np.flatnonzero(is_open), np.flatnonzero(~is_open)
        self._proba = None if pool.proba is None else pool.proba[self._rows]
        self._has_features = pool.dim > 0 and (bool(self._wanted & {"features", "committee"}) or self._is_cold())
        self._rng = np.random.default_rng(request.seed)

    def _is_cold(self) -> bool:
        """Return whether 'auto' has no probabilities worth asking: features decide then. Of regions a model is trusted at once."""
        n_labelled = len(self._closed) if self._pool.regions is None else 0
        return self._request.strategy == "auto" and wants_features(self._proba, n_labelled, self._is_multilabel)

    def run(self) -> tuple[Rows, Selection]:
        """Return (rows of the pool, selection into them). A pool too big is judged on a seeded sample, the rest is at random."""
        n, most = len(self._rows), self._most()
        if n <= most:
            return self._rows, self._select(self._rows, self._proba, self._request.n)
        sample = np.sort(self._rng.choice(n, most, replace=False))
        selection = self._select(self._rows[sample], None if self._proba is None else self._proba[sample], 0)
        highest = np.float32(min(1.0, max(float(selection.scores.max()), 0.0)))
        scores = self._rng.random(n, dtype=np.float32) * highest
        scores[sample[selection.indices]] = selection.scores
        order_all = np.argsort(-scores, kind="stable")[: self._request.n or None]
        reason = f"{selection.reason}; judged on {most} of {n} items"
        return self._rows, Selection(order_all, scores[order_all], selection.strategy, reason)

    def _most(self) -> int:
        """Return the most items that memory and the strategy allow to be judged at once."""
        most = find(self._request.strategy).pool_limit or max(len(self._rows), 1)
        if self._has_features:
            most = min(most, max(1024, MOST_FEATURE_BYTES // (4 * max(self._pool.dim, 64))))
        if "committee" in self._wanted and self._proba is not None:
            most = min(most, max(1024, MOST_COMMITTEE_BYTES // (4 * N_MEMBERS * self._proba.shape[1])))
        return most

    def _select(self, rows: Rows, proba: NDArray[np.float32] | None, n: int) -> Selection:
        """Order some rows of the pool."""
        strategy, request = self._request.strategy, self._request
        features = self._pool.features(rows) if self._has_features and len(rows) else None
        given = self._labels(features) if features is not None else self._labels_alone()
        if "committee" in self._wanted:
            given = {"committee": self._committee(features, given)}
        if self._pool.regions is not None and (strategy == "auto" or "parts" in self._wanted):
            given |= _parts([self._pool.regions[row] for row in rows], proba)
        if proba is None and features is None and not given.keys() & {"committee", "part_starts"}:
            strategy = "random" if strategy == "auto" else strategy
            if not len(rows) or "features" not in self._wanted:
                features = np.zeros((len(rows), 1), dtype=np.float32)  # says how many items there are, no more
        return select(
            strategy,
            proba=proba,
            features=features,
            costs=self._costs(rows),
            parameters=request.parameters,
            n=n,
            seed=request.seed,
            exploration=request.exploration,
            is_multilabel=self._is_multilabel,
            **given,
        )

    def _costs(self, rows: Rows) -> NDArray[np.float32] | None:
        if not self._request.costs:
            return None
        if bad := next((item_id for item_id, cost in self._request.costs.items() if not 0 < cost < np.inf), None):
            raise InvalidInputError(f"the cost of item {bad!r} is {self._request.costs[bad]}: costs are finite and above 0")
        return np.array([self._request.costs.get(item_id, 1.0) for item_id in self._pool.ids[rows]], dtype=np.float32)

    def _labels_alone(self) -> dict[str, Any]:
        if "labels" not in self._wanted:
            return {}
        labels = self._fitting(self._known.labels())[1]
        return {"labels": labels} if len(labels) else {}

    def _labels(self, features: Features) -> dict[str, Any]:
        """Return what the strategy wants to know of labelled items."""
        most = max(64, MOST_FEATURE_BYTES // (16 * max(features.shape[1], 64)))
        most = min(most, MOST_LABELLED, find(self._request.strategy).pool_limit or MOST_LABELLED)
        if self._wanted & {"labels", "committee"}:
            found = self._known.labelled(most)
            kept, labels = self._fitting(found.labels)
            return {"labelled_features": found.features[kept], "labels": labels} if len(labels) else {}
        if self._request.strategy != "auto" and "labelled_features" not in self._wanted:
            return {}
        return self._near(self._known.labelled(most), most)

    def _near(self, found: Labelled, most: int) -> dict[str, Any]:
        """Return the features of labelled items and of the pool's own excluded ones, whose labels may be on their way."""
        known = frozenset(found.ids)
        others = np.array([row for row in self._closed if self._pool.ids[row] not in known], dtype=np.int64)
        if len(others) > most:
            others = np.sort(self._rng.choice(others, most, replace=False))
        parts = [part for part in (found.features, self._pool.features(others) if len(others) else None) if part is not None]
        parts = [part for part in parts if len(part)]
        return {"labelled_features": np.concatenate(parts)} if parts else {}

    def _fitting(self, labels: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return (which rows, their labels) that the version's probabilities can name; a label may be newer than the version."""
        if self._proba is None or not len(labels):
            return np.arange(len(labels)), labels
        k = self._proba.shape[1]
        if labels.ndim == 2:
            return np.arange(len(labels)), labels[:, :k]
        kept = np.flatnonzero(labels < k)
        return kept, labels[kept]

    def _committee(self, features: Features | None, given: dict[str, Any]) -> NDArray[np.float32]:
        """Return the probabilities of quick models on bootstrap samples of the labelled items."""
        name, labels = self._request.strategy, given.get("labels")
        if features is None:
            raise InvalidInputError(f"strategy {name!r} needs features for its committee: embed the pool first, or use 'margin'")
        if labels is None or (labels == labels[0]).all():
            raise InvalidInputError(f"strategy {name!r} needs labels of two classes for its committee: label first, by 'auto'")
        if features.shape[1] > MOST_COMMITTEE_FEATURES:
            raise InvalidInputError(
                f"strategy {name!r} takes up to {MOST_COMMITTEE_FEATURES} features, these are {features.shape[1]}: use 'margin'"
            )
        n_labels = (
            self._proba.shape[1] if self._proba is not None else int(labels.shape[1] if labels.ndim == 2 else labels.max() + 1)
        )
        return bagged_committee(given["labelled_features"], labels, features, n_labels, N_MEMBERS, self._request.seed)


def _parts(regions: Sequence[Sequence[Region]], proba: NDArray[np.float32] | None) -> dict[str, Any]:
    """Return what was found in each item as (p, 1 - p) of each region: (regions, 2), and where each item's begin.

    `proba` (n, k), the surest region of each label, tells also of those that were not sure enough to be among the regions: a
    model that hesitates to draw anything is unsure too.
    """
    shown = [[region.confidence for region in found] for found in regions]
    if proba is not None:
        rows = zip(shown, proba.tolist(), strict=True)
        shown = [[*sure, *(p for p in row if p > 0 and p not in sure)] for sure, row in rows]
    sure = np.array([p for found in shown for p in found], dtype=np.float32)
    starts = np.concatenate([[0], np.cumsum([len(found) for found in shown])]).astype(np.int64)
    return {"parts": np.stack([sure, 1 - sure], axis=1), "part_starts": starts}
