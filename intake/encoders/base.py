"""What an encoder is: one item in, one row of numbers out, whatever its neighbours.

Owns the contract and the sharing of cores. Must never look at a batch as a whole: `embed` maps each prepared item by itself,
which is why one link gives bit-equal features in training and in inference, alone or among others, on one core or many.
Called by `intake.pipeline`; implementations register by name in `intake.encoders`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from intake.decode import Decoded

Features = npt.NDArray[np.float32]
T = TypeVar("T")
R = TypeVar("R")

_threads: int = 0


def set_threads(n: int) -> None:
    """Use `n` cores in this process; a worker child calls it once before its first task."""
    global _threads
    _threads = max(1, n)


def threads() -> int:
    """Return how many cores encoders use in this process: what `set_threads` said, else all."""
    return _threads or len(os.sched_getaffinity(0))


def map_on_cores(call: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Return `call` of each item, on `threads()` threads; for calls that leave the interpreter lock."""
    n = min(threads(), len(items))
    if n < 2:
        return [call(item) for item in items]
    with ThreadPoolExecutor(n, thread_name_prefix="encode") as pool:
        return list(pool.map(call, items))


class Encoder(ABC):
    """One way to turn items of one category into numbers.

    A change that changes a single bit of the features needs a new `name`, because shards and manifests are found by it.
    `wanted_px` is the side in pixels an image is shrunk to (0 = no image or full size), `is_pixels` that a row is a picture of
    0 to 255, row by row, channels last.
    """

    name: str
    dim: int
    category: ClassVar[str]
    is_pixels: ClassVar[bool] = False
    wanted_px: int = 0

    def prepare(self, decoded: Decoded) -> Any:
        """Return what `embed` needs of one item, small and cheap to make; runs on download threads."""
        return decoded

    @abstractmethod
    def embed(self, prepared: Sequence[Any]) -> Features:
        """Return (n, dim) float32, one finite row for each prepared item."""

    def encode(self, decoded: Sequence[Decoded]) -> Features:
        """Return (n, dim) float32 features of decoded items."""
        return self.embed([self.prepare(item) for item in decoded])

    def coordinates(self, rows: Features) -> Features:
        """Return rows (n, d) in which distances between items mean something, for strategies that measure them: `rows` themselves
        but for encoders whose rows are packed."""
        return rows

    def record(self) -> dict[str, Any]:
        """Return what a manifest keeps about this encoder."""
        return {"encoder": self.name, "dim": self.dim}
