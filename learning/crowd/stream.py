"""One label arrives: the posterior of its item moves at once, the parameters when asked.

Owns `CrowdStream`. Must never look at another item when a label arrives. Called by whoever keeps a project's labels.
Not safe for two threads at once: the caller holds its own lock.

Between two refreshes the parameters stand still, so an arriving label adds one row of scores to its item and nothing else: all
posteriors stay what a full E step over all labels from the same parameters gives (to 1e-9). `refresh` then climbs on from them.
That is incremental EM: R. M. Neal, G. E. Hinton, "A View of the EM Algorithm that Justifies Incremental, Sparse, and Other
Variants", Learning in Graphical Models, 1998.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.crowd import METHODS, Aggregation, CrowdLabels, aggregate, crowd_labels

Array = NDArray[np.float64]
_GROWTH = 1.5


class CrowdStream:
    """A crowd's posteriors kept up to date label by label.

    A new item or worker may arrive at any time: an item starts from the class prior, a worker as an average one until the next
    `refresh`. Classes are fixed. Memory: the scores, n_items x n_classes, and three integers a label.

    | bad input | answer |
    |---|---|
    | a class outside 0 to n_classes - 1, a negative item or worker, no whole number | InvalidInputError, nothing changed |
    | an item nobody labelled, in `posterior` | the class prior (uniform for votes) |
    | an item beyond all seen, in `posterior` | the same |
    """

    def __init__(self, method: str, labels: CrowdLabels, *, options: Mapping[str, Any] | None = None) -> None:
        """Aggregate `labels` by `method` (see `aggregate`) and go on from there. Raises what `aggregate` raises."""
        self._method, self._options = method, dict(options or {})
        self._arrivals: list[tuple[int, int, int]] = []
        self._adopt(labels, aggregate(method, labels, options=self._options))

    @property
    def n_new(self) -> int:
        """Labels since the parameters were last fitted; a tenth of all is a good moment to refresh."""
        return len(self._arrivals)

    @property
    def posteriors(self) -> Array:
        """Posteriors of all items: (n_items, n_classes), rows sum to 1."""
        return self._model.normalise(self._scores[: self._n_items])

    def posterior(self, item: int) -> Array:
        """Return the posterior of one item: (n_classes,)."""
        scores = self._scores[item] if 0 <= item < self._n_items else self._model.base
        return np.asarray(self._model.normalise(scores[None])[0])

    def add(self, item: int, worker: int, class_: int) -> Array:
        """Take one label in and return the new posterior of its item: (n_classes,). O(n_classes)."""
        for name, value in (("item", item), ("worker", worker), ("class", class_)):
            if not isinstance(value, int | np.integer) or value < 0:
                raise InvalidInputError(f"{name} must be a whole number from 0, got {value!r}")
        if class_ >= self._labels.n_classes:
            raise InvalidInputError(f"class {class_} is outside 0 to {self._labels.n_classes - 1}: start anew to add a class")
        self._grow(int(item) + 1, int(worker) + 1)
        row = self._model.contributions(np.array([item]), np.array([worker]), np.array([class_]))
        self._scores[item] += row[0]
        self._arrivals.append((int(item), int(worker), int(class_)))
        return self.posterior(int(item))

    def labels(self) -> CrowdLabels:
        """Return all labels, old and new."""
        if not self._arrivals:
            return self._labels
        old, new = self._labels, np.array(self._arrivals, dtype=np.int64)
        return crowd_labels(
            np.append(old.items, new[:, 0]),
            np.append(old.workers, new[:, 1]),
            np.append(old.classes, new[:, 2]),
            n_items=self._n_items,
            n_workers=self._n_workers,
            n_classes=old.n_classes,
        )

    def refresh(self) -> Aggregation:
        """Fit the parameters to all labels, climbing on from where they stand, and return the whole answer.

        A vote has nothing to climb: its weights are counted anew.
        """
        labels = self.labels()
        method = METHODS[self._method]
        can_start = isinstance(self._model, method.parameters) and bool(method.options.__struct_fields__)
        start = self._model.grown(self._n_items, self._n_workers) if can_start else None
        found = aggregate(self._method, labels, options=self._options, start=start)
        self._adopt(labels, found)
        return found

    def _adopt(self, labels: CrowdLabels, found: Aggregation) -> None:
        self._labels, self._model = labels, found.parameters
        self._n_items, self._n_workers = labels.n_items, labels.n_workers
        self._arrivals.clear()
        self._scores = full_scores(found.parameters, labels)

    def _grow(self, n_items: int, n_workers: int) -> None:
        if n_items > len(self._scores):
            more = max(n_items, int(_GROWTH * len(self._scores))) - len(self._scores)
            self._scores = np.concatenate([self._scores, np.tile(self._model.base, (more, 1))])
        self._n_items, self._n_workers = max(self._n_items, n_items), max(self._n_workers, n_workers)
        self._model = self._model.grown(len(self._scores), self._n_workers)


def full_scores(model: Any, labels: CrowdLabels) -> Array:
    """Return the scores of all items under fixed parameters: (n_items, n_classes), one pass over the labels in blocks."""
    scores = np.tile(model.base, (labels.n_items, 1))
    block = max(1, 2_000_000 // labels.n_classes)
    for begin in range(0, labels.n_labels, block):
        rows = slice(begin, begin + block)
        items = labels.items[rows]
        added = model.contributions(items, labels.workers[rows], labels.classes[rows])
        first = np.flatnonzero(np.diff(items, prepend=-1) > 0)
        scores[items[first]] += np.add.reduceat(added, first, axis=0)
    return scores
