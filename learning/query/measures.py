"""The uncertainty measures by name, for the strategies that weigh one: items, regions, tokens.

Owns the table alone. Must never order anything. Called by density_weighted, class_balanced, regions, spans and kmeans.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from learning.query.entropy import entropy_rows
from learning.query.least_confidence import least_confidence_rows
from learning.query.margin import margin_rows

Measure = Annotated[Literal["margin", "entropy", "least_confidence"], msgspec.Meta(description="What is called uncertain.")]

MEASURES: dict[str, Callable[[NDArray[np.float32], bool], NDArray[np.float32]]] = {
    "margin": margin_rows,
    "entropy": entropy_rows,
    "least_confidence": least_confidence_rows,
}


def uncertainty(measure: str, proba: NDArray[np.float32], is_multilabel: bool) -> NDArray[np.float32]:
    """Return the measure for each row of proba (n, k): (n,) float32 in [0, 1], 1 = least sure."""
    return MEASURES[measure](proba, is_multilabel)
