"""The data selector: which items to ask people next.

Owns the way from a cycle's state to `learning.query.select`. Must never train. Called by `learning.cycle.cycle`.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.cycle.training import DataLoader, Predictor
from learning.query import check_parameters, needs, select
from learning.query.bagging import bagged_committee

_OURS = frozenset({"proba", "features", "labelled_features", "labels", "committee"})


class Situation(NamedTuple):
    """What a data selector sees: the rows without a label, the labelled ones with their labels, and the model that serves."""

    loader: DataLoader
    pool: NDArray[np.int64]
    labelled: NDArray[np.int64]
    labels: NDArray[Any]
    model: Predictor | None
    n_labels: int
    is_multilabel: bool
    seed: int


class DataSelector(abc.ABC):
    """What to ask next."""

    @abc.abstractmethod
    def choose(self, situation: Situation, n: int) -> tuple[NDArray[np.int64], str]:
        """Return up to `n` distinct rows of `situation.pool`, most wanted first, and why.

        The answer depends on the arguments alone.
        """


class QuerySelector(DataSelector):
    """A strategy of `learning.query` by name; while no model serves and the strategy needs one, items are drawn by chance.

    `exploration`: share in [0, 1] of random items. Raises InvalidInputError naming an unknown strategy or parameter, or what a
    cycle cannot give it.
    """

    def __init__(self, strategy: str = "auto", exploration: float = 0.05, parameters: Mapping[str, Any] | None = None) -> None:
        check_parameters(strategy, parameters)
        if missing := set(needs(strategy)) - _OURS:
            raise InvalidInputError(f"strategy {strategy!r} needs {', '.join(sorted(missing))}, which a cycle over classes lacks")
        if not 0 <= exploration <= 1:
            raise InvalidInputError(f"exploration {exploration} is not in [0, 1]")
        self.strategy, self.exploration, self.parameters = strategy, exploration, dict(parameters or {})

    def choose(self, situation: Situation, n: int) -> tuple[NDArray[np.int64], str]:
        """Return rows as the strategy orders them. Raises InvalidInputError when it cannot run on this pool."""
        pool, features = situation.pool, situation.loader.features(situation.pool)
        lacks = self._lacks(situation, features)
        if lacks or self.strategy == "random":
            drawn = np.random.default_rng((situation.seed, len(situation.labelled))).permutation(len(pool))[:n]
            return pool[drawn], f"random: {lacks}" if lacks else "random: asked for by name"
        found = select(
            self.strategy,
            **self._given(situation, features),
            parameters=self.parameters,
            n=n,
            seed=situation.seed,
            exploration=self.exploration,
            is_multilabel=situation.is_multilabel,
        )
        return pool[found.indices], f"{found.strategy}: {found.reason}"

    def _lacks(self, situation: Situation, features: NDArray[np.float32] | None) -> str:
        """Return why chance must choose this time, '' when the strategy can."""
        wanted = set(needs(self.strategy))
        if situation.model is None and wanted & {"proba", "committee", "labels"}:
            return f"no model serves yet, which {self.strategy} needs"
        if features is None and (situation.model is None or wanted & {"features", "committee"}):
            return f"the items have no features, which {self.strategy} needs"
        return ""

    def _given(self, situation: Situation, features: NDArray[np.float32] | None) -> dict[str, Any]:
        model, labelled = situation.model, None
        if features is not None and len(situation.labelled):
            labelled = situation.loader.features(situation.labelled)
        given: dict[str, Any] = {
            "proba": None if model is None else model.predict_proba(situation.loader.load(situation.pool)),
            "features": features,
            "labelled_features": labelled,
            "labels": situation.labels if len(situation.labels) else None,
        }
        if "committee" in needs(self.strategy) and features is not None and labelled is not None:
            given["committee"] = bagged_committee(labelled, situation.labels, features, situation.n_labels, seed=situation.seed)
        return given
