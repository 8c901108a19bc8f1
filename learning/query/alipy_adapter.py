"""ALiPy's own strategies over a pool: the one door to the library `alipy`.

Y.-P. Tang, G.-X. Li, S.-J. Huang, "ALiPy: Active Learning in Python", 2019. Owns the shim and the translation of a pool into what
ALiPy expects: features of labelled and open items in one matrix, with the labels of the first part alone (the second part's are
filled up with a known one and never read). Must never be imported for its strategies but through `learning.query.rivals`. LAL
downloads its training data and is left out: docs/decisions/0011-no-strategy-that-downloads.md.

The shim: ALiPy 1.2.5 uses names that Python 3.10 and numpy 2 removed, and draws from numpy's global generator. While one of its
strategies runs, its own modules see stand-ins for `collections` and `numpy` that have those names and a seeded generator. Nothing
outside ALiPy changes.

| given | answer |
| --- | --- |
| the library or its solver is not installed | refused, naming the extra |
| more than two classes for quire, bmdr, spal; one label an item for audi | refused in one sentence |
| a pool above the bound of the strategy | refused, naming the bound |
| a program that the solver cannot solve (badly scaled items) | refused, naming the strategy |
| n above `most_picks`, or 0 | that many picks, the rest follows in seeded random order |
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import threading
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.query.pool import Pool, chosen_first, features_of, labelled_of, proba_of
from learning.query.strategy import Parameters
from learning.scaling import fit_scaling

_LOCK = threading.Lock()
_MODULES = (
    "alipy.index.index_collections",
    "alipy.index.multi_label_tools",
    "alipy.oracle.oracle",
    "alipy.query_strategy.multi_label",
    "alipy.query_strategy.noisy_oracles",
    "alipy.query_strategy.query_labels",
    "alipy.utils.misc",
)


class AlipyParameters(Parameters, frozen=True, kw_only=True):
    """The bound of the work."""

    most_picks: Annotated[int, msgspec.Meta(ge=1, le=1000, description="Most items that the strategy itself picks.")] = 20


class CealParameters(Parameters, frozen=True, kw_only=True):
    """What the annotators cost; how many labelled neighbours judge them."""

    annotator_costs: Annotated[
        tuple[Annotated[float, msgspec.Meta(gt=0)], ...],
        msgspec.Meta(description="Cost of one label of each annotator; empty = all 1."),
    ] = ()
    neighbours: Annotated[int, msgspec.Meta(ge=1, le=1000, description="Labelled items that judge an annotator.")] = 10


class _StandIn(types.ModuleType):
    """A module with some names of its own; all others are those of `origin`."""

    def __init__(self, origin: types.ModuleType, **names: Any) -> None:
        super().__init__(origin.__name__)
        self.__dict__.update(origin=origin, **names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["origin"], name)


@contextlib.contextmanager
def shimmed(seed: int) -> Iterator[Any]:
    """Give the module `alipy`, its removed names filled in and its draws seeded, to one thread at a time."""
    import collections

    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alipy = importlib.import_module("alipy")
        names: dict[str, Any] = {
            "collections": _StandIn(collections, Iterable=Iterable),
            "np": _StandIn(
                np,
                infty=np.inf,
                NINF=-np.inf,
                NaN=np.nan,
                row_stack=np.vstack,
                trapz=np.trapezoid,
                random=np.random.RandomState(seed),
            ),
        }
        modules = [importlib.import_module(name) for name in _MODULES]
        bagging = importlib.import_module("alipy.query_strategy.query_labels").BaggingClassifier
        names["BaggingClassifier"] = functools.partial(bagging, random_state=seed)
        before = [(module, name, module.__dict__[name]) for module in modules for name in names if name in module.__dict__]
        try:
            for module, name, _ in before:
                setattr(module, name, names[name])
            yield alipy
        finally:
            for module, name, old in before:
                setattr(module, name, old)


def _joined(pool: Pool, strategy: str) -> tuple[NDArray[np.float64], NDArray[Any], list[int], list[int]]:
    """Return (scaled features of labelled and open items, labels of both, labelled rows, open rows)."""
    known, labels = labelled_of(pool, strategy)
    x = np.concatenate([known, features_of(pool, strategy)]).astype(np.float32)
    filled = np.concatenate([labels, np.repeat(labels[:1], pool.n_items, axis=0)])
    return fit_scaling(x).apply(x).astype(np.float64), filled, list(range(len(known))), list(range(len(known), len(x)))


def _picked(pool: Pool, n: int, parameters: AlipyParameters, pick: Callable[[list[int]], int], n_known: int) -> NDArray[np.float32]:
    """Return scores of the items that `pick` takes one after the other from what is open."""
    left = list(range(n_known, n_known + pool.n_items))
    picks: list[int] = []
    for _ in range(min(n or parameters.most_picks, parameters.most_picks, pool.n_items)):
        row = left[0] if len(left) == 1 else int(pick(left))
        left.remove(row)
        picks.append(row - n_known)
    return chosen_first(np.array(picks, dtype=np.int64), pool.n_items, np.random.default_rng(pool.seed))


def quire_scores(pool: Pool, n: int, parameters: AlipyParameters) -> NDArray[np.float32]:
    """Return (n_items,): QUIRE's picks in (1, 2], one after the other as their labels stay unknown; the rest random."""
    x, labels, known, _ = _joined(pool, "alipy_quire")
    signs = np.where(labels == labels.max(), 1, -1)
    with shimmed(pool.seed) as alipy:
        quire = alipy.query_strategy.QueryInstanceQUIRE(x, signs, list(range(len(x))), gamma=1 / x.shape[1])
        return _picked(pool, n, parameters, lambda left: quire.select(known, left)[0], len(known))


def graph_density_scores(pool: Pool, n: int, parameters: AlipyParameters) -> NDArray[np.float32]:
    """Return (n_items,): graph density's picks in (1, 2], the rest random; labelled features, where given, are in the graph."""
    near = pool.labelled_features if pool.labelled_features is not None else features_of(pool, "alipy_graph_density")[:0]
    x = np.concatenate([near, features_of(pool, "alipy_graph_density")]).astype(np.float32)
    if len(x) < 12:
        raise InvalidInputError(f"strategy 'alipy_graph_density' needs 12 items for its graph of neighbours, there are {len(x)}")
    z, rows = fit_scaling(x).apply(x).astype(np.float64), np.arange(len(x))
    with shimmed(pool.seed) as alipy:
        graph = alipy.query_strategy.QueryInstanceGraphDensity(z, rows % 2, rows)

        def pick(left: list[int]) -> int:
            return int(graph.select(np.setdiff1d(rows, left), left)[0])

        return _picked(pool, n, parameters, pick, len(near))


def _solved(pool: Pool, n: int, parameters: AlipyParameters, strategy: str, kind: str) -> NDArray[np.float32]:
    x, labels, known, left = _joined(pool, strategy)
    count = min(n or parameters.most_picks, parameters.most_picks, pool.n_items)
    solver = "ECOS" if importlib.util.find_spec("ecos") else "OSQP"
    with shimmed(pool.seed) as alipy:
        query = getattr(alipy.query_strategy, kind)(x, labels, gamma_ker=1 / x.shape[1])
        try:
            picked = query.select(known, left, batch_size=count, qp_solver=solver)
        except (RuntimeError, ValueError, importlib.import_module("cvxpy").error.SolverError) as exc:
            raise InvalidInputError(
                f"strategy {strategy!r} found no solution of its program for these items: use another, such as 'badge'"
            ) from exc
        rows = np.asarray(picked, dtype=np.int64)
    return chosen_first(rows[:count] - len(known), pool.n_items, np.random.default_rng(pool.seed))


def bmdr_scores(pool: Pool, n: int, parameters: AlipyParameters) -> NDArray[np.float32]:
    """Return (n_items,): BMDR's batch in (1, 2], the rest random."""
    return _solved(pool, n, parameters, "alipy_bmdr", "QueryInstanceBMDR")


def spal_scores(pool: Pool, n: int, parameters: AlipyParameters) -> NDArray[np.float32]:
    """Return (n_items,): SPAL's batch in (1, 2], the rest random."""
    return _solved(pool, n, parameters, "alipy_spal", "QueryInstanceSPAL")


def audi_scores(pool: Pool, n: int, parameters: AlipyParameters) -> NDArray[np.float32]:
    """Return (n_items,): the items of AUDI's (item, label) picks in (1, 2], the rest random."""
    x, labels, known, _ = _joined(pool, "alipy_audi")
    columns = range(labels.shape[1])
    with shimmed(pool.seed) as alipy:
        audi = alipy.query_strategy.QueryMultiLabelAUDI(x, np.where(labels > 0, 1, -1))

        def pick(left: list[int]) -> int:
            pairs = [[(row, column) for row in rows for column in columns] for rows in (known, left)]
            return int(audi.select(*pairs)[0][0])

        return _picked(pool, n, parameters, pick, len(known))


def ceal_scores(pool: Pool, n: int, parameters: CealParameters) -> NDArray[np.float32]:
    """Return CEAL's largest usefulness over the annotators for each item: (n_items,), 0 or more."""
    x, labels, known, left = _joined(pool, "alipy_ceal")
    if pool.annotator_labels is None or len(known) < 2:
        raise InvalidInputError("strategy 'alipy_ceal' needs annotator_labels (l, annotators) of two labelled items or more")
    if pool.n_items == 1:
        return np.ones(1, dtype=np.float32)
    n_annotators = pool.annotator_labels.shape[1]
    costs = parameters.annotator_costs or (1.0,) * n_annotators
    if len(costs) != n_annotators:
        raise InvalidInputError(
            f"annotator_costs name {len(costs)} annotators, annotator_labels {n_annotators}: give one cost each"
        )
    with shimmed(pool.seed) as alipy:
        oracles = [
            alipy.oracle.Oracle(labels=column.tolist(), cost=[cost] * len(column))
            for column, cost in zip(pool.annotator_labels.T, costs, strict=True)
        ]
        ceal = alipy.query_strategy.QueryNoisyOraclesCEAL(x, labels, oracles, known)
        n_near = min(parameters.neighbours, len(known) - 1)
        table, _ = ceal._calc_Q_table(known, left, oracles, np.array(proba_of(pool, "alipy_ceal")), n_near, False)
    return np.asarray(table.max(axis=0), dtype=np.float32)


def qbc_scores(pool: Pool, n: int, parameters: AlipyParameters) -> NDArray[np.float32]:
    """Return (n_items,): the items on which bagged trees vote most differently in (1, 2], the rest random."""
    x, labels, known, left = _joined(pool, "alipy_qbc")
    from sklearn.tree import DecisionTreeClassifier

    count = min(n or parameters.most_picks, parameters.most_picks, pool.n_items)
    with shimmed(pool.seed) as alipy:
        query = alipy.query_strategy.QueryInstanceQBC(x, labels)
        rows = np.asarray(query.select(known, left, model=DecisionTreeClassifier(random_state=pool.seed), batch_size=count))
    return chosen_first(rows.astype(np.int64) - len(known), pool.n_items, np.random.default_rng(pool.seed))
