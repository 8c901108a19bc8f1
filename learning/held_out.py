"""Which labelled items are held out for gate and model selector: a stable rule on the item id alone.

Owns the hash. Must never depend on the order of arrival, on a clock or on a seed: every node and every run must hold out the
same items for ever, or a model is judged on what it was trained on. Called by the train role.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError

_PERSON = b"held-out"  # keeps this hash independent of every other hash of item ids


def _digest(item_id: str) -> bytes:
    return hashlib.blake2b(item_id.encode("utf-8", "surrogatepass"), digest_size=8, person=_PERSON).digest()


def _threshold(share: float) -> int:
    if not 0.0 <= share <= 1.0:
        raise InvalidInputError(f"held-out share {share!r} is not in [0, 1]")
    return int(share * 2**64)


def is_held_out(item_id: str, share: float) -> bool:
    """Return whether `item_id` belongs to the held-out part when a `share` in [0, 1] of all items does.

    An item held out at one share is held out at every larger one. Raises InvalidInputError on a share outside [0, 1].
    """
    return int.from_bytes(_digest(item_id), "big") < _threshold(share)


def held_out_mask(item_ids: Iterable[str], share: float) -> NDArray[np.bool_]:
    """Return `is_held_out` of each id: (n,) bool, in order. Raises InvalidInputError on a share outside [0, 1]."""
    threshold = _threshold(share)
    hashes = np.frombuffer(b"".join(map(_digest, item_ids)), dtype=">u8")
    if threshold >= 2**64:
        return np.ones(len(hashes), dtype=np.bool_)
    return hashes < np.uint64(threshold)
