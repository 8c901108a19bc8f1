"""The strategies of other libraries, through one adapter a library; each says in one sentence when it cannot run.

Owns the rows of the table that need an extra. Must never import a library before one of its strategies is asked for. Called by
`learning.query`.
"""

from __future__ import annotations

import importlib.util

from learning.query import alipy_adapter, skactiveml_adapter
from learning.query.pool import Pool
from learning.query.strategy import Strategy

_LABELLED = ("features", "labelled_features", "labels")


def _lacks(package: str, extra: str) -> str | None:
    if importlib.util.find_spec(package) is None:
        return f"it needs the package {package}: install the extra {extra!r}"
    return None


def _is_not_binary(pool: Pool) -> str | None:
    if pool.labels is None or not len(pool.labels):
        return "it needs labelled features with their labels: label first"
    n_seen = len(set(pool.labels.tolist()))
    n_shown = pool.proba.shape[1] if pool.proba is not None else n_seen
    if n_seen != 2 or n_shown != 2:
        return f"it is defined for two classes with a label each only, here are {n_shown} with {n_seen} seen"
    return None


def _alipy(pool: Pool) -> str | None:
    return _lacks("alipy", "alipy")


def _alipy_binary(pool: Pool) -> str | None:
    return _alipy(pool) or _is_not_binary(pool)


def _alipy_solver(pool: Pool) -> str | None:
    return _alipy(pool) or _lacks("cvxpy", "alipy") or _is_not_binary(pool)


def _alipy_several(pool: Pool) -> str | None:
    if not pool.is_multilabel:
        return "it is defined for several labels an item only"
    return _alipy(pool)


def _skactiveml(pool: Pool) -> str | None:
    return _lacks("skactiveml", "rivals")


_ALIPY = (
    Strategy(
        "alipy_quire",
        "Informative and representative items by min-max over their unknown labels (ALiPy).",
        "Huang, Jin and Zhou, NIPS 2010",
        alipy_adapter.quire_scores,
        alipy_adapter.AlipyParameters,
        needs=_LABELLED,
        is_per_item=False,
        has_multilabel=False,
        pool_limit=300,
        n_classes=2,
        packages=("alipy",),
        extra="alipy",
        why_not=_alipy_binary,
    ),
    Strategy(
        "alipy_graph_density",
        "Items in dense parts of the neighbour graph (ALiPy).",
        "Ebert, Fritz and Schiele, CVPR 2012",
        alipy_adapter.graph_density_scores,
        alipy_adapter.AlipyParameters,
        needs=("features",),
        uses=("labelled_features",),
        is_per_item=False,
        pool_limit=2000,
        packages=("alipy",),
        extra="alipy",
        why_not=_alipy,
    ),
    Strategy(
        "alipy_bmdr",
        "Discriminative and representative batches by a quadratic program (ALiPy).",
        "Wang and Ye, KDD 2013",
        alipy_adapter.bmdr_scores,
        alipy_adapter.AlipyParameters,
        needs=_LABELLED,
        is_per_item=False,
        has_multilabel=False,
        pool_limit=300,
        n_classes=2,
        packages=("alipy", "cvxpy"),
        extra="alipy",
        why_not=_alipy_solver,
    ),
    Strategy(
        "alipy_spal",
        "Easy and informative items first, by self-paced learning (ALiPy).",
        "Tang and Huang, AAAI 2019",
        alipy_adapter.spal_scores,
        alipy_adapter.AlipyParameters,
        needs=_LABELLED,
        is_per_item=False,
        has_multilabel=False,
        pool_limit=300,
        n_classes=2,
        packages=("alipy", "cvxpy"),
        extra="alipy",
        why_not=_alipy_solver,
    ),
    Strategy(
        "alipy_audi",
        "Items whose number of labels surprises a label ranking model (ALiPy).",
        "Huang and Zhou, ICDM 2013",
        alipy_adapter.audi_scores,
        alipy_adapter.AlipyParameters,
        needs=_LABELLED,
        is_per_item=False,
        pool_limit=2000,
        has_multiclass=False,
        packages=("alipy",),
        extra="alipy",
        why_not=_alipy_several,
    ),
    Strategy(
        "alipy_ceal",
        "Uncertain items near those that a cheap annotator gets right (ALiPy).",
        "Huang, Chen, Mu and Zhou, IJCAI 2017",
        alipy_adapter.ceal_scores,
        alipy_adapter.CealParameters,
        needs=("proba", *_LABELLED, "annotator_labels"),
        has_multilabel=False,
        pool_limit=5000,
        packages=("alipy",),
        extra="alipy",
        why_not=_alipy,
    ),
    Strategy(
        "alipy_qbc",
        "A committee of bagged trees votes (ALiPy).",
        "Abe and Mamitsuka, ICML 1998",
        alipy_adapter.qbc_scores,
        alipy_adapter.AlipyParameters,
        needs=_LABELLED,
        is_per_item=False,
        has_multilabel=False,
        pool_limit=100_000,
        packages=("alipy",),
        extra="alipy",
        why_not=_alipy,
    ),
)
_SKACTIVEML = tuple(
    Strategy(
        f"skactiveml_{name}",
        f"{row.summary} (scikit-activeml).",
        row.paper,
        skactiveml_adapter.score_by(row),
        skactiveml_adapter.SkactivemlParameters,
        needs=_LABELLED,
        is_per_item=False,
        has_multilabel=False,
        pool_limit=row.pool_limit,
        packages=("skactiveml",),
        extra="rivals",
        why_not=_skactiveml,
    )
    for name, row in skactiveml_adapter.OFFERED.items()
)
STRATEGIES: dict[str, Strategy] = {row.name: row for row in (*_ALIPY, *_SKACTIVEML)}
