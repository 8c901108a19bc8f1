"""The checks that all query strategies share: what a pool may hold.

Owns the refusals by name. Must never import a strategy. Called by `learning.query.select`.

| given | answer |
| --- | --- |
| rows of proba, committee or parts that do not sum to 1, NaN, values outside [0, 1] | refused, the row named |
| proba, features, committee, costs or parts of different numbers of items | refused |
| labels out of range, or more or fewer than labelled_features | refused |
| a cost of 0, below 0, or NaN | refused, the item named |
| a pool of no items (all are labelled) | an empty selection that says so |
| a pool smaller than `n` | all of it, and the reason says so |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.query.pool import Pool

_SUM_TOLERANCE = 1e-2  # float16 probabilities of many classes still pass; a row of zeros (a failed item) does not
_BLOCK_ROWS = 16384  # a block of few columns stays in the cache


def make_pool(
    proba: NDArray[np.float32] | None,
    features: NDArray[np.float32] | None,
    labelled_features: NDArray[np.float32] | None,
    is_multilabel: bool,
    seed: int,
    **known: Any,
) -> Pool:
    """Return the checked pool; `known` are the other fields of `Pool`. Raises InvalidInputError naming what does not fit."""
    n_items = _count({"proba": proba, "features": features, **known})
    if proba is not None:
        _check_proba("proba", proba, is_multilabel)
    for name, part in (("features", features), ("labelled_features", labelled_features)):
        if part is not None and part.ndim != 2:
            raise InvalidInputError(f"{name} must be (n, d), got shape {part.shape}")
    if features is not None and labelled_features is not None and features.shape[1] != labelled_features.shape[1]:
        raise InvalidInputError(
            f"features have {features.shape[1]} columns and labelled_features {labelled_features.shape[1]}: use one encoder"
        )
    pool = Pool(n_items, proba, features, labelled_features, is_multilabel, seed, **known)
    _check_others(pool)
    return pool


def _count(given: Mapping[str, Any]) -> int:
    sizes = {name: len(given[name]) for name in ("proba", "features", "costs") if given.get(name) is not None}
    if given.get("committee") is not None:
        if given["committee"].ndim != 3:
            raise InvalidInputError(f"committee must be (n_members, n, n_labels), got shape {given['committee'].shape}")
        sizes["committee"] = given["committee"].shape[1]
    if given.get("part_starts") is not None:
        sizes["part_starts"] = len(given["part_starts"]) - 1
    if not set(sizes) - {"costs"}:
        raise InvalidInputError("a pool needs proba or features: pass at least one (or a committee, or parts)")
    if len(set(sizes.values())) > 1:
        told = " and ".join(f"{name} {size}" for name, size in sizes.items())
        raise InvalidInputError(f"rows differ, {told}: they must describe the same items")
    return next(iter(sizes.values()))


def _check_others(pool: Pool) -> None:
    if pool.committee is not None:
        for member in pool.committee:
            _check_proba("committee", member, pool.is_multilabel)
    if (pool.parts is None) != (pool.part_starts is None):
        raise InvalidInputError("parts and part_starts go together: pass both or neither")
    if pool.parts is not None and pool.part_starts is not None:
        _check_parts(pool.parts, pool.part_starts, pool.is_multilabel)
    if pool.labels is not None:
        _check_labels(pool, pool.labels)
    if pool.annotator_labels is not None and (pool.labels is None or pool.annotator_labels.shape[:-1] != pool.labels.shape[:1]):
        raise InvalidInputError(f"annotator_labels must be (labelled items, annotators), got shape {pool.annotator_labels.shape}")
    if pool.costs is not None and not (is_paid := (np.isfinite(pool.costs) & (pool.costs > 0))).all():
        row = int((~is_paid).argmax())
        raise InvalidInputError(f"the cost of item {row} is {pool.costs[row]}: costs are finite and above 0")


def _check_parts(parts: NDArray[np.float32], starts: NDArray[np.int64], is_multilabel: bool) -> None:
    _check_proba("parts", parts, is_multilabel)
    if starts.ndim != 1 or not len(starts) or starts[0] != 0 or starts[-1] != len(parts) or (np.diff(starts) < 0).any():
        raise InvalidInputError(f"part_starts must rise from 0 to the {len(parts)} rows of parts, one more than there are items")


def _check_labels(pool: Pool, labels: NDArray[np.int64]) -> None:
    wanted = 2 if pool.is_multilabel else 1
    if labels.ndim != wanted or labels.dtype.kind not in "iub":
        raise InvalidInputError(f"labels must be {wanted}-d integers, got {labels.dtype} of shape {labels.shape}")
    if pool.labelled_features is not None and len(labels) != len(pool.labelled_features):
        raise InvalidInputError(f"there are {len(labels)} labels for {len(pool.labelled_features)} labelled_features")
    if not labels.size:
        return
    most = 2 if pool.is_multilabel else (n_classes(pool) or 1 << 31)
    if labels.min() < 0 or labels.max() >= most:
        raise InvalidInputError(f"labels lie in {labels.min()} to {labels.max()}: they must be 0 to {most - 1}")


def n_classes(pool: Pool) -> int:
    """Return the number of classes that the pool's probabilities show; 0 without any."""
    shown = [part.shape[-1] for part in (pool.proba, pool.committee, pool.parts) if part is not None]
    return shown[0] if shown else 0


def _check_proba(name: str, proba: NDArray[np.float32], is_multilabel: bool) -> None:
    if proba.ndim != 2 or proba.shape[1] == 0:
        raise InvalidInputError(f"{name} must be (n, n_labels), got shape {proba.shape}")
    ones = np.ones(proba.shape[1], dtype=proba.dtype)
    for begin in range(0, len(proba), _BLOCK_ROWS):
        block = proba[begin : begin + _BLOCK_ROWS]
        lowest, highest = block.min(), block.max()
        if not (lowest >= -1e-6 and highest <= 1 + 1e-3):  # also false for NaN
            raise InvalidInputError(f"{name} must lie in [0, 1] without NaN, got {lowest} to {highest}")
        if is_multilabel:
            continue
        sums = block @ ones
        if not 1 - _SUM_TOLERANCE <= sums.min() <= sums.max() <= 1 + _SUM_TOLERANCE:
            at = int(np.abs(sums - 1.0).argmax())
            raise InvalidInputError(f"row {begin + at} of {name} sums to {sums[at]:.4g}, not 1: leave failed items out of the pool")
