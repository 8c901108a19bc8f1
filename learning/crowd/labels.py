"""Labels of several annotators on the same items, checked once and laid out for sparse products.

Owns `CrowdLabels` and its order. Must never hold an opinion on who is right. Called by every file of this package.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from labelloop.errors import InvalidInputError

_MOST = 2**31 - 1  # of 32-bit row and column numbers


@dataclass(frozen=True, eq=False)
class CrowdLabels:
    """`items`, `workers`, `classes`: (n_labels,) int32 in order of items, those of one item in the order given.

    `item_ptr` (n_items + 1,) says where the labels of each item begin. Made by `crowd_labels`.
    """

    items: NDArray[np.int32]
    workers: NDArray[np.int32]
    classes: NDArray[np.int32]
    n_items: int
    n_workers: int
    n_classes: int
    item_ptr: NDArray[np.int32]

    @property
    def n_labels(self) -> int:
        """How many labels were given."""
        return len(self.items)

    @cached_property
    def codes(self) -> NDArray[np.int32]:
        """worker * n_classes + class of each label: (n_labels,)."""
        return self.workers * np.int32(self.n_classes) + self.classes

    @cached_property
    def labels_per_worker(self) -> NDArray[np.int64]:
        """How many labels each worker gave: (n_workers,)."""
        return np.bincount(self.workers, minlength=self.n_workers)

    @cached_property
    def labels_per_code(self) -> NDArray[np.int64]:
        """How often each worker gave each class: (n_workers, n_classes)."""
        counts = np.bincount(self.codes, minlength=self.n_workers * self.n_classes)
        return counts.reshape(self.n_workers, self.n_classes)

    @cached_property
    def labels_per_item(self) -> NDArray[np.int32]:
        """How many labels each item has: (n_items,)."""
        return np.diff(self.item_ptr)

    @cached_property
    def labelled(self) -> NDArray[np.bool_]:
        """Whether anybody labelled the item: (n_items,)."""
        return self.labels_per_item > 0

    @cached_property
    def by_item(self) -> sparse.csr_array:
        """Items x (worker, label), ones: times a table (worker, label) -> class it sums the labels of each item."""
        shape = (self.n_items, self.n_workers * self.n_classes)
        return sparse.csr_array((np.ones(self.n_labels), self.codes, self.item_ptr), shape=shape)


def crowd_labels(
    items: ArrayLike, workers: ArrayLike, classes: ArrayLike, *, n_items: int = 0, n_workers: int = 0, n_classes: int = 0
) -> CrowdLabels:
    """Return labels checked and in order: label i says that `workers[i]` gave `items[i]` the class `classes[i]`.

    Three (n_labels,) arrays of integers from 0. `n_items`, `n_workers`, `n_classes` 0 = the highest index seen, plus one; give
    them where items, workers or classes without a label exist.

    | bad input | answer |
    |---|---|
    | arrays of unequal length, not one-dimensional, not whole numbers, NaN | InvalidInputError naming the array |
    | a negative index, or one at or above the given count | InvalidInputError naming index and count |
    | more than 2**31 - 1 (worker, class) pairs, items or labels | InvalidInputError |
    | no label at all | accepted: `aggregate` answers uniform posteriors and label -1 |
    | the same worker on the same item again | each label counts, as in Dawid and Skene's own data; drop old revisions first |
    """
    x, counts = [], []
    for name, values, count in (("items", items, n_items), ("workers", workers, n_workers), ("classes", classes, n_classes)):
        array, count = _checked(name, values, count)
        x.append(array)
        counts.append(count)
    if len({len(array) for array in x}) > 1:
        raise InvalidInputError(f"items, workers and classes have {', '.join(str(len(a)) for a in x)} entries: one each per label")
    if max(counts[1] * counts[2], len(x[0]), counts[0]) > _MOST:
        raise InvalidInputError(f"{counts[1]} workers x {counts[2]} classes, or items or labels, exceed {_MOST}: split the project")
    order = _counting_order(x[0], counts[0])
    return CrowdLabels(
        items=x[0][order].astype(np.int32),
        workers=x[1][order].astype(np.int32),
        classes=x[2][order].astype(np.int32),
        n_items=counts[0],
        n_workers=counts[1],
        n_classes=max(counts[2], 1),
        item_ptr=np.concatenate([[0], np.cumsum(np.bincount(x[0], minlength=counts[0]))]).astype(np.int32),
    )


def _checked(name: str, values: ArrayLike, count: int) -> tuple[NDArray[np.int64], int]:
    array: NDArray[Any] = np.asarray(values)
    if array.ndim != 1:
        raise InvalidInputError(f"{name} must be one-dimensional, got shape {array.shape}")
    if array.dtype.kind not in "iu":
        if array.dtype.kind != "f" and array.size:
            raise InvalidInputError(f"{name} must be whole numbers from 0, got {array.dtype}: map names to indices first")
        whole = np.isfinite(array) & (array == np.floor(array)) if array.size else np.ones(0, dtype=bool)
        if not whole.all():
            raise InvalidInputError(f"{name} must be whole numbers from 0, got {array[~whole][0]} at {int((~whole).argmax())}")
    if count < 0:
        raise InvalidInputError(f"n_{name} must be 0 (count them) or more, got {count}")
    if not array.size:
        return array.astype(np.int64), count
    lowest, highest = int(array.min()), int(array.max())
    if lowest < 0 or (count and highest >= count):
        wrong = lowest if lowest < 0 else highest
        raise InvalidInputError(f"{name} holds {wrong}, outside 0 to {(count or highest + 1) - 1}: correct it or raise n_{name}")
    return array.astype(np.int64, copy=False), count or highest + 1


def _counting_order(keys: NDArray[np.int64], n_keys: int) -> NDArray[np.int32]:
    """Return what a stable argsort would, in O(n + n_keys): a sparse matrix brought into rows is a counting sort."""
    n = len(keys)
    places = np.arange(n, dtype=np.int32)
    rows = sparse.coo_array((np.ones(n, dtype=np.int8), (keys.astype(np.int32), places)), shape=(n_keys, n)).tocsr()
    return np.asarray(rows.indices)
