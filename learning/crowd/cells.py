"""Posteriors of models in which a label speaks for its own class alone, in work that grows with the labels, not with the classes.

A *cell* is one (item, class) pair that somebody chose. A class that nobody chose for an item keeps its prior, times one factor an
item; only cells need an exponential.
Owns that E step. Must never build n_items x n_classes before the end. Called by one_coin, mace and glad.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from learning.crowd.labels import CrowdLabels
from learning.crowd.result import Array


class CellPosteriors(NamedTuple):
    """`chosen` (n_cells,): posterior of each chosen cell. `rest` (n_labelled,): the factor on the prior of any other class."""

    chosen: Array
    rest: Array
    log_likelihood: float


class CellView:
    """The cells of one crowd in order of (item, class), with what each E step needs again; items are the labelled ones.

    `matrix` cells x (worker, label); `items`, `classes`, `n_labels` (n_cells,); `of_label` (n_labels,) the cell of each label.
    """

    def __init__(self, crowd: CrowdLabels) -> None:
        k = crowd.n_classes
        keys = crowd.items.astype(np.int64) * k + crowd.classes
        order = np.argsort(keys, kind="stable")  # quick: the labels come in order of items
        keys = keys[order]
        is_first = np.ones(len(keys), dtype=bool)
        np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
        ptr = np.append(np.flatnonzero(is_first), len(keys)).astype(np.int32)
        self.items, self.classes = np.divmod(keys[ptr[:-1]], k)
        self.n_labels: NDArray[np.int32] = np.diff(ptr)
        self.of_label = np.empty(len(keys), dtype=np.int64)
        self.of_label[order] = np.cumsum(is_first) - 1
        shape = (len(self.items), crowd.n_workers * k)
        self.matrix = sparse.csr_array((np.ones(len(keys)), crowd.codes[order], ptr), shape=shape)
        self.labelled: NDArray[np.int64] = np.flatnonzero(crowd.labelled)
        self.rank: NDArray[np.int64] = (np.cumsum(crowd.labelled) - 1)[self.items]
        self.first: NDArray[np.int64] = np.flatnonzero(np.diff(self.items, prepend=-1) > 0)
        self.n_chosen: NDArray[np.int64] = np.diff(np.append(self.first, len(self.items)))
        self.n_items, self.n_classes = crowd.n_items, k

    def posteriors(self, scores: Array, prior: Array) -> CellPosteriors:
        """Return the E step: posterior of cell (j, c) is prior[c] exp(scores) / Z_j, of another class prior[c] / Z_j.

        scores (n_cells,): the log odds that the labels of the cell add to its class, nats. prior (n_classes,) sums to 1.
        """
        seen = prior[self.classes]
        unseen = (1 - np.add.reduceat(seen, self.first)).clip(0)
        unseen[self.n_chosen == self.n_classes] = 0.0
        shift = np.maximum(np.maximum.reduceat(scores, self.first), 0.0)
        weights = np.exp(scores - shift[self.rank]) * seen
        base = np.exp(-shift)
        sums = np.add.reduceat(weights, self.first) + unseen * base
        return CellPosteriors(weights / sums[self.rank], base / sums, float((np.log(sums) + shift).sum()))

    def class_sums(self, found: CellPosteriors, prior: Array) -> Array:
        """Return the posteriors summed over labelled items: (n_classes,)."""
        chosen = np.bincount(self.classes, found.chosen, minlength=self.n_classes)
        covered = np.bincount(self.classes, found.rest[self.rank], minlength=self.n_classes)
        return chosen + prior * (found.rest.sum() - covered).clip(0)

    def dense(self, found: CellPosteriors, prior: Array) -> Array:
        """Return all posteriors: (n_items, n_classes); an item without a label has the prior."""
        out = np.tile(prior, (self.n_items, 1))
        out[self.labelled] *= found.rest[:, None]
        out[self.items, self.classes] = found.chosen
        return out
