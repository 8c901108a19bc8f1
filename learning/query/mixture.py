"""mixture: a strategy's order with a share of random items woven in, so that no region of the pool stays unseen.

M.-F. Balcan, A. Beygelzimer, J. Langford, "Agnostic active learning", ICML 2006, on why some labels must be asked regardless.
Called through `learning.query.select`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learning.query.pool import falling


def weave(scores: NDArray[np.float32], n: int, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the order of the `n` best items (0 = all) with `share` in (0, 1] of its places given to random items.

    The random places are evenly spread, so each prefix of m items holds m * share of them, rounded down. A random item takes the
    score of the item it stands behind (the highest of all at the top); no other item is lost, it only moves down.
    Returns indices and falling scores, both (min(n or all, n_items),).
    """
    count = len(scores) if n == 0 else min(n, len(scores))
    n_random = int(count * share)
    drawn = np.random.default_rng(seed).choice(len(scores), size=n_random, replace=False)
    is_drawn = np.zeros(len(scores), dtype=np.bool_)
    is_drawn[drawn] = True
    ranked = falling(scores, 0 if n == 0 else min(count + n_random, len(scores)))
    ranked = ranked[~is_drawn[ranked]][: count - n_random]
    places = np.arange(1, count + 1)
    is_random_place = np.floor(places * share) > np.floor((places - 1) * share)
    is_random_place &= np.cumsum(is_random_place) <= n_random
    indices = np.empty(count, dtype=np.int64)
    indices[is_random_place], indices[~is_random_place] = drawn, ranked
    values = scores[indices].astype(np.float32)
    before = np.maximum.accumulate(np.where(is_random_place, -1, np.arange(count)))
    top = scores[ranked[0]] if len(ranked) else np.float32(scores.max())
    return indices, np.where(is_random_place, np.where(before < 0, top, values[before]), values).astype(np.float32)


def deal(orders: list[NDArray[np.int64]], shares: list[float], n: int) -> NDArray[np.int64]:
    """Return `n` distinct items dealt from several orders of the same pool, each order getting its share of every prefix.

    orders: each distinct items, best first. shares: positive, one an order. An item that two orders name is given once.
    """
    weights = np.array(shares, dtype=np.float64) / sum(shares)
    queues = [iter(order.tolist()) for order in orders]
    taken: dict[int, None] = {}
    given = np.zeros(len(orders))
    while len(taken) < n:
        turn = int((weights * (len(taken) + 1) - given).argmax())
        item = next((item for item in queues[turn] if item not in taken), None)
        given[turn] += 1 if item is not None else np.inf
        if item is not None:
            taken[item] = None
        elif np.isinf(given).all():
            break
    return np.array(list(taken), dtype=np.int64)
