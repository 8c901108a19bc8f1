"""How long a model takes to answer, and the largest candidate that is quick enough.

Owns the measurement and one pure decision. Must never train. Called by `distilled` and the bench.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError

Predict = Callable[[NDArray[Any]], Any]
Measure = Callable[[Predict, NDArray[Any]], float]
_WARM_UP, _REPEATS = 3, 15


def measure_ms(predict: Predict, x: NDArray[Any], repeats: int = _REPEATS) -> float:
    """Return the median milliseconds of `repeats` calls `predict(x)` on this machine, after a few that do not count."""
    for _ in range(min(_WARM_UP, repeats)):
        predict(x)
    times_s = []
    for _ in range(repeats):
        since_s = time.perf_counter()
        predict(x)
        times_s.append(time.perf_counter() - since_s)
    return statistics.median(times_s) * 1000


def batch_of(x: NDArray[Any], n: int) -> NDArray[Any]:
    """Return n rows of x, from the first on, again and again where there are fewer."""
    return x[np.arange(n) % len(x)]


def largest_within(took_ms: Mapping[int, float], budget_ms: float, batch: int) -> tuple[int, str]:
    """Return the largest candidate whose answer to a batch takes at most `budget_ms`, 0 = any, and why it is that one.

    Raises InvalidInputError when none does, naming what the quickest takes.
    """
    largest = max(took_ms)
    if not budget_ms:
        return largest, f"student of width {largest}, the largest: no latency was asked for"
    fitting = [width for width, ms in took_ms.items() if ms <= budget_ms]
    rows = "one item" if batch == 1 else f"{batch} items"
    if not fitting:
        quickest = min(took_ms, key=lambda width: (took_ms[width], width))
        raise InvalidInputError(
            f"no student answers {rows} within latency_ms {budget_ms:g}: the quickest, of width {quickest}, takes "
            f"{took_ms[quickest]:.3g} ms; raise latency_ms, or give smaller widths or side"
        )
    width = max(fitting)
    more = min((other for other in took_ms if other > width), default=None)
    beyond = "the largest there is" if more is None else f"width {more} takes {took_ms[more]:.3g} ms"
    return width, f"student of width {width} answers {rows} in {took_ms[width]:.3g} ms, asked were {budget_ms:g}; {beyond}"
