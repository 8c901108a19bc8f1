"""region_uncertainty, span_uncertainty: an item is as uncertain as its regions or tokens.

C.-A. Brust, C. Kaeding, J. Denzler, "Active Learning for Deep Object Detection", VISAPP 2019: sum, mean or maximum over the boxes
of a picture. B. Settles, M. Craven, "An Analysis of Active Learning Strategies for Sequence Labeling Tasks", EMNLP 2008: total and
mean token entropy, least confident sequence. Y. Shen, H. Yun, Z. C. Lipton, Y. Kronrod, A. Anandkumar, "Deep Active Learning for
Named Entity Recognition", ICLR 2018: normalised by length. Owns the gathering of parts into items. Called through
`learning.query.select`.

| given | answer |
| --- | --- |
| an item without regions or tokens | the parameter `empty`, 0 unless told: nothing found says nothing |
| part_starts that do not rise from 0 to the rows of parts | refused |
| no parts | refused by name |
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from learning.query.measures import Measure, uncertainty
from learning.query.pool import Pool, parts_of
from learning.query.strategy import Parameters

_TINY = np.float32(1e-30)
Empty = Annotated[float, msgspec.Meta(ge=0, description="Score of an item in which nothing was found.")]


class RegionParameters(Parameters, frozen=True, kw_only=True):
    """How the uncertainty of a picture's boxes is gathered."""

    measure: Measure = "margin"
    gather: Annotated[Literal["sum", "mean", "max"], msgspec.Meta(description="Over the regions of one item.")] = "sum"
    empty: Empty = 0.0


class SpanParameters(Parameters, frozen=True, kw_only=True):
    """How the uncertainty of a text's tokens is gathered; `sequence` and `normalized` ignore `measure`."""

    measure: Measure = "entropy"
    gather: Annotated[
        Literal["sum", "mean", "max", "sequence", "normalized"], msgspec.Meta(description="Over the tokens of one item.")
    ] = "normalized"
    empty: Empty = 0.0


def region_scores(pool: Pool, n: int, parameters: RegionParameters) -> NDArray[np.float32]:
    """Return the gathered uncertainty of each item's regions: (n_items,), 0 or more; at most 1 for mean and max."""
    parts, starts = parts_of(pool, "region_uncertainty")
    values = uncertainty(parameters.measure, parts, pool.is_multilabel)
    return gather(values, starts, parameters.gather, parameters.empty)


def span_scores(pool: Pool, n: int, parameters: SpanParameters) -> NDArray[np.float32]:
    """Return the gathered uncertainty of each item's tokens: (n_items,), 0 or more.

    `sequence`: minus the logarithm of the probability of the likeliest labels, tokens taken as independent, which orders as 1 minus
    that probability does and does not saturate in long texts; `normalized`: the same per token.
    """
    parts, starts = parts_of(pool, "span_uncertainty")
    if parameters.gather not in ("sequence", "normalized"):
        values = uncertainty(parameters.measure, parts, pool.is_multilabel)
        return gather(values, starts, parameters.gather, parameters.empty)
    likeliest = np.maximum(parts, 1 - parts) if pool.is_multilabel else parts.max(axis=1, keepdims=True)
    values = np.maximum(-np.log(np.maximum(likeliest, _TINY)).sum(axis=1, dtype=np.float32), 0)
    return gather(values, starts, "sum" if parameters.gather == "sequence" else "mean", parameters.empty)


def gather(values: NDArray[np.float32], starts: NDArray[np.int64], how: str, empty: float) -> NDArray[np.float32]:
    """Return the sum, mean or max of values[starts[i] : starts[i + 1]] for each item: (len(starts) - 1,) float32."""
    sizes = np.diff(starts)
    out = np.full(len(sizes), empty, dtype=np.float32)
    is_full = sizes > 0
    if not is_full.any():
        return out
    fold = np.maximum if how == "max" else np.add
    out[is_full] = fold.reduceat(values, starts[:-1][is_full])
    if how == "mean":
        out[is_full] /= sizes[is_full]
    return out
