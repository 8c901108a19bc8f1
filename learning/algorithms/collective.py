"""What a training needs of other processes in order to share its steps with them, and which samples of a batch are whose.

Owns the protocol and the split of a global batch. Must never talk to another process: the train role brings the `Collective`.
Called by the algorithms whose steps can be shared, and by the train role.

The global batch and all chance in it depend on (seed, step) alone. Rank r takes every size-th sample of it from r on; each rank
divides its summed loss by the size of the *global* batch, and the gradients of all ranks are added. So one process and three
processes take the same step, but for the order of additions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Collective(Protocol):
    """The ranks that share a training; `rank` counts from 0 below `size`."""

    rank: int
    size: int

    def sum_(self, tensors: Sequence[Any], n_samples: int) -> None:
        """Replace each tensor, in place, by its sum over all ranks; all ranks call it once a step with equal shapes.

        `n_samples` is how many samples this rank computed on in the step, for the record. Raises LabelloopError when a rank is
        gone: the step has not happened then.
        """


def part_of(rank: int, size: int) -> slice:
    """Return which positions of a global batch are rank `rank`'s of `size`: the parts are disjoint and their union is the batch."""
    return slice(rank, None, size)
