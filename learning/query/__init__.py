"""Which item to ask next: one file a strategy, `select` the one entry.

Owns the way from a name to an order. Must never train, read or write. Called by the inference role (rank) and the bench.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.query import rivals
from learning.query.checks import make_pool
from learning.query.cold_start import choose
from learning.query.mixture import weave
from learning.query.pool import Pool, Selection, falling
from learning.query.strategy import Parameters, Strategy
from learning.query.table import BUILT_IN, MixtureParameters

AUTO = Strategy(
    "auto",
    "Typical items of clusters without a label while no model serves, then small margins with a share of random items.",
    "",
    BUILT_IN["margin"].score,
    needs=(),
    uses=("labelled_features",),
)
ALL: dict[str, Strategy] = {**BUILT_IN, **rivals.STRATEGIES}
# those that probabilities and features of the pool suffice for; `ALL` has the others too
STRATEGIES: tuple[str, ...] = ("auto", *(name for name, row in BUILT_IN.items() if set(row.needs) <= {"proba", "features"}))

__all__ = [
    "ALL",
    "AUTO",
    "STRATEGIES",
    "Parameters",
    "Selection",
    "Strategy",
    "check_parameters",
    "find",
    "needs",
    "select",
    "uses",
    "why_not",
]


def select(
    strategy: str,
    *,
    proba: NDArray[np.float32] | None,
    features: NDArray[np.float32] | None,
    labelled_features: NDArray[np.float32] | None = None,
    labels: NDArray[np.int64] | None = None,
    committee: NDArray[np.float32] | None = None,
    parts: NDArray[np.float32] | None = None,
    part_starts: NDArray[np.int64] | None = None,
    costs: NDArray[np.float32] | None = None,
    annotator_labels: NDArray[np.int64] | None = None,
    parameters: Mapping[str, Any] | None = None,
    n: int = 0,
    seed: int = 0,
    exploration: float = 0.0,
    is_multilabel: bool = False,
) -> Selection:
    """Return the `n` items (0 = all) of a pool that teach most, first first.

    proba: (n_items, k) with rows that sum to 1 (multilabel: independent), or None while no model serves. features: (n_items, d), or
    None. labelled_features: (m, d) of the labelled items, labels: (m,) their class numbers (multilabel: (m, k) of 0/1). committee:
    (n_members, n_items, k). parts: (p, k), probabilities of regions or tokens, those of item i in rows part_starts[i] to
    part_starts[i + 1]. costs: (n_items,) above 0, what asking an item costs; a score is divided by it (B. Settles, M. Craven, L.
    Friedland, "Active Learning with Real Annotation Costs", NIPS workshop 2008). annotator_labels: (m, n_annotators), what each
    answered on the labelled items. parameters: of the strategy, by name. exploration: share in [0, 1] of random items woven into
    the order (random and typiclust ignore it). The answer depends on the arguments alone. An empty pool gives an empty selection, a
    pool smaller than `n` all of it.

    Raises InvalidInputError naming an unknown strategy, a value out of range, or what the strategy lacks.
    """
    find(strategy)
    if n < 0 or not 0.0 <= exploration <= 1.0:
        raise InvalidInputError(f"n must be 0 or more and exploration in [0, 1], got {n} and {exploration}")
    rest = {"labels": labels, "committee": committee, "parts": parts, "part_starts": part_starts, "costs": costs}
    pool = make_pool(proba, features, labelled_features, is_multilabel, seed, **rest, annotator_labels=annotator_labels)
    if strategy == "auto":
        AUTO.read_parameters(parameters)
    chosen, pool, reason = _resolve(strategy, pool)
    settings = chosen.read_parameters(parameters)
    if not pool.n_items:
        return Selection(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32), chosen.name, "the pool is empty")
    if pool.n_items < n:
        reason += f"; {n} asked for, the pool has {pool.n_items}"
    chosen.check(pool)
    scores = chosen.score(pool, min(n, pool.n_items), settings)
    if pool.costs is not None:
        scores, reason = np.divide(scores, pool.costs, dtype=np.float32), f"{reason}; scores are per unit of cost"
    if exploration > 0 and chosen.is_explored:
        indices, values = weave(scores, n, exploration, seed)
        return Selection(indices, values, chosen.name, f"{reason}; {exploration:.0%} of the places are random")
    indices = falling(scores, n)
    return Selection(indices, scores[indices], chosen.name, reason)


def _resolve(strategy: str, pool: Pool) -> tuple[Strategy, Pool, str]:
    """Return the strategy that is really used, what it sees of the pool, and why."""
    if strategy != "auto":
        return ALL[strategy], pool, "asked for by name"
    name, reason = choose(pool)
    if pool.costs is not None and not ALL[name].is_per_item:
        return ALL[name], pool._replace(costs=None), f"{reason}; costs do not count yet"
    return ALL[name], pool, reason


def find(strategy: str) -> Strategy:
    """Return a strategy by name; 'auto' takes no parameters and needs nothing. Raises InvalidInputError for an unknown name."""
    if strategy == "auto":
        return AUTO
    if strategy not in ALL:
        raise InvalidInputError(f"strategy {strategy!r} is unknown: use one of auto, {', '.join(ALL)}")
    return ALL[strategy]


def needs(strategy: str, parameters: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """Return the arguments of `select` that a strategy cannot do without, those of a mixture's parts for 'mixture'.

    Raises InvalidInputError for an unknown name, and for parameters that the strategy does not take.
    """
    return _of_parts(strategy, parameters, "needs")


def uses(strategy: str, parameters: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """Return the arguments that a strategy takes into account where they are known. Raises what `needs` raises."""
    return _of_parts(strategy, parameters, "uses")


def _of_parts(strategy: str, parameters: Mapping[str, Any] | None, field: str) -> tuple[str, ...]:
    row = find(strategy)
    settings = row.read_parameters(parameters)
    rows = [BUILT_IN[name] for name in settings.shares if name in BUILT_IN] if isinstance(settings, MixtureParameters) else [row]
    return tuple(dict.fromkeys(name for part in rows for name in getattr(part, field)))


def check_parameters(strategy: str, values: Mapping[str, Any] | None) -> None:
    """Raise InvalidInputError naming the first parameter that a strategy does not take; `auto` takes none."""
    find(strategy).read_parameters(values)


def why_not(strategy: str, pool: Pool) -> str | None:
    """Return in one sentence why a strategy cannot run on `pool`, or None when it can."""
    try:
        ALL[strategy].check(pool)
    except InvalidInputError as exc:
        return str(exc)
    missing = [name for name in ALL[strategy].needs if getattr(pool, name) is None]
    return f"strategy {strategy!r} needs {', '.join(missing)}" if missing else None
