"""auto: typicality while there is no model worth asking, then margin, of regions where items have them, with an exploration share.

Owns the rule alone. Measured (docs/benchmarks.md): typicality reaches 95 % on digits with half the labels of random and loses
later; margin needs no more labels than random once a model has seen each class a few times, and before that, with many classes, it
asks where a model that knows nothing happens to be torn. Called through `learning.query.select`; roles.inference asks
`wants_features` before it gathers them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning.query.pool import Pool

LABELS_A_CLASS = 4  # measured 0, 2, 4 and 6 on digits and letters: 4 is best or within noise of it
MOST_LABELS = 200  # with hundreds of classes typicality would ask for days


def choose(pool: Pool) -> tuple[str, str]:
    """Return (strategy, reason) for `auto`."""
    if pool.proba is None:
        if pool.features is None:
            return "random", "no model and no features yet: random order"
        return "typiclust", "no model serves yet: typical items of clusters without a label first"
    if pool.features is not None and answers_alike(pool.proba):
        return "typiclust", "the model answers the same for every item: typical items of clusters without a label first"
    if pool.features is not None and _is_one_class(pool):
        return "typiclust", "the labels so far are of one class: typical items of clusters without a label first"
    if pool.parts is not None and len(pool.parts):
        return "region_uncertainty", "a model serves: items with uncertain regions first"
    if pool.features is not None and pool.labelled_features is not None:
        n, enough = len(pool.labelled_features), enough_labels(pool.proba.shape[1], pool.is_multilabel)
        if 0 < n < enough:
            return (
                "typiclust",
                f"{n} labels for {pool.proba.shape[1]} classes: typical items of clusters without one until {enough}",
            )
    return "margin", "a model serves: items whose two likeliest labels are closest first"


def enough_labels(n_classes: int, is_multilabel: bool = False) -> int:
    """Return how many labels `auto` asks for by typicality before it trusts a model's doubt; 0 where items have several labels."""
    return 0 if is_multilabel else min(LABELS_A_CLASS * n_classes, MOST_LABELS)


def answers_alike(proba: NDArray[np.float32]) -> bool:
    """Return whether a model says the same of each of several items."""
    return len(proba) > 1 and bool((proba == proba[0]).all())


def wants_features(proba: NDArray[Any] | None, n_labelled: int, is_multilabel: bool) -> bool:
    """Return whether `auto` needs the features of pool and labelled items this time; gathering them costs more than a margin.

    `n_labelled` 0 = none, or not known: a model that serves is trusted then.
    """
    return proba is None or answers_alike(proba) or 0 < n_labelled < enough_labels(proba.shape[1], is_multilabel)


def _is_one_class(pool: Pool) -> bool:
    return (
        pool.labels is not None and not pool.is_multilabel and len(pool.labels) > 0 and bool((pool.labels == pool.labels[0]).all())
    )
