"""One thread for small linear algebra: waking a second core costs more than a small product takes.

Owns the decision. Measured on two busy cores: a regression on 300 x 1,280 features takes 20 to 40 ms on one thread and 150 ms to
4 s on two, because BLAS threads spin while they wait. Must never be used around predictions over a pool, which gain from all cores.
The limit is the process's while it lasts. Called by the algorithms that solve on the CPU.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

_SMALL = 5e7  # multiply-adds of one product


@functools.cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextlib.contextmanager
def few_threads(multiply_adds: float) -> Iterator[None]:
    """Hold BLAS and OpenMP to one thread inside when one product of the work takes fewer than 5e7 multiply-adds."""
    if multiply_adds >= _SMALL:
        yield
        return
    with _controller().limit(limits=1):
        yield


@contextlib.contextmanager
def few_torch_threads(multiply_adds: float) -> Iterator[None]:
    """Hold torch to one thread inside when the work takes fewer than 5e7 multiply-adds."""
    import torch

    before = torch.get_num_threads()
    if multiply_adds >= _SMALL or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
