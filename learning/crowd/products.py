"""Products of table rows over the labels of each item: the E step of full confusion matrices, without a logarithm or exponential.

A row of a table is multiplied in where a sparse product would add its logarithm: gathering five rows costs less than one
exponential. Items come by falling number of labels, so that the r-th label of many items is one gather. Owns that order.
Must never normalise. Called by dawid_skene.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from learning.crowd.labels import CrowdLabels

_BLOCK_ROWS = 4096  # a block of posteriors stays in the cache between the E and the M step
_SAFE_FACTORS = 20  # of at least 1e-13 each: 1e-260 is still a normal double

Array = NDArray[np.float64]


class ItemBlock(NamedTuple):
    """Some items: `rows` in falling order, `rounds[r]` codes of the first items' r-th label, `turned` (worker, label) x items."""

    rows: slice
    rounds: tuple[NDArray[np.int64], ...]
    turned: sparse.csc_array


def falling_order(crowd: CrowdLabels) -> NDArray[np.int64]:
    """Return the items by falling number of labels: (n_items,)."""
    degree = crowd.labels_per_item
    if not len(degree) or degree.max() == degree.min():
        return np.arange(crowd.n_items)
    return np.argsort(-degree, kind="stable")


def item_blocks(crowd: CrowdLabels, order: NDArray[np.int64]) -> list[ItemBlock]:
    """Return all items in blocks that fit the cache (larger ones where the tables are large: counts are added once a block)."""
    size = max(_BLOCK_ROWS, crowd.n_workers * crowd.n_classes)
    return [_block(crowd, order, begin, min(begin + size, crowd.n_items)) for begin in range(0, crowd.n_items, size)]


def _block(crowd: CrowdLabels, order: NDArray[np.int64], begin: int, end: int) -> ItemBlock:
    starts, degree = crowd.item_ptr[order[begin:end]].astype(np.int64), crowd.labels_per_item[order[begin:end]]
    n_longer = len(degree) - np.searchsorted(degree[::-1], np.arange(degree[0]), side="right")  # items with more than r labels
    rounds = tuple(crowd.codes[starts[:n] + r].astype(np.int64) for r, n in enumerate(n_longer.tolist()))
    ptr = np.concatenate([[0], np.cumsum(degree)]).astype(np.int32)
    places = np.repeat(starts - ptr[:-1], degree) + np.arange(ptr[-1])
    shape = (crowd.n_workers * crowd.n_classes, end - begin)
    turned = sparse.csc_array((np.ones(ptr[-1]), crowd.codes[places], ptr), shape=shape)
    return ItemBlock(slice(begin, end), rounds, turned)


def multiply_rows(block: ItemBlock, table: Array, out: Array) -> float:
    """Write to `out` (n, n_classes) the product of the table rows of each item's labels, up to a factor a row.

    table (n_workers * given, n_classes), in [1e-13, 1]. Return the sum of the logarithms of the factors taken out.
    """
    taken, spare = 0.0, np.empty_like(out)
    if not block.rounds or len(block.rounds[0]) < len(out):
        out[:] = 1.0
    for r, codes in enumerate(block.rounds):
        n = len(codes)
        if r == 0:
            np.take(table, codes, axis=0, out=out[:n], mode="clip")
            continue
        np.take(table, codes, axis=0, out=spare[:n], mode="clip")
        np.multiply(out[:n], spare[:n], out=out[:n])
        if (r + 1) % _SAFE_FACTORS == 0:
            largest = out[:n].max(axis=1, keepdims=True)
            out[:n] /= largest
            taken += float(np.log(largest).sum())
    return taken
