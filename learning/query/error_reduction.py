"""expected_error_reduction: ask for the item whose label, whatever it is, would leave the least doubt about the rest.

N. Roy, A. McCallum, "Toward Optimal Active Learning through Sampling Estimation of Error Reduction", ICML 2001. The model that is
asked "what if" is least-squares posterior fitting (M. Sugiyama, "Superfast-Trainable Multi-Class Probabilistic Classifier by
Least-Squares Posterior Fitting", IEICE Transactions, 2010): a ridge regression on the labels, cut at 0 and brought to sum 1. One
more sample changes its inverse by a rank-one term (Sherman and Morrison, 1950), so each "what if" is exact and no model is trained
again. Bounded: `candidates` items, `references` items, `classes` likeliest labels, whatever the pool's size. Called through
`learning.query.select`.

| given | answer |
| --- | --- |
| no labelled features with labels | refused by name |
| one class seen | the classes of proba still count as possible labels; without proba nothing can be expected: refused |
| several labels an item | refused: the expectation over all sets of labels is not bounded |
| more items than candidates | the least sure are the candidates, the rest follows at random |
| bounds that together mean hours, more than 4,096 features | refused, naming what to lower |
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.query.entropy import nats_rows
from learning.query.margin import margin_rows
from learning.query.pool import Pool, chosen_first, falling, features_of, labelled_of
from learning.query.strategy import Parameters
from learning.scaling import fit_scaling

_FLOOR = 1e-3
MOST_FEATURES = 4096  # the side of the matrix that is inverted
_MOST_PAIRS = 25_000_000  # candidates times references, which are held at once
_MOST_WORK = 2_000_000_000  # candidates x labels tried x references x classes


class ErrorReductionParameters(Parameters, frozen=True, kw_only=True):
    """The bounds of the work and what counts as error."""

    candidates: Annotated[int, msgspec.Meta(ge=1, le=10_000, description="Most items to weigh.")] = 200
    references: Annotated[int, msgspec.Meta(ge=1, le=10_000, description="Items whose doubt is measured.")] = 300
    classes: Annotated[int, msgspec.Meta(ge=1, le=1000, description="Likeliest labels to try for each item.")] = 5
    loss: Annotated[Literal["log", "error"], msgspec.Meta(description="Entropy, or 1 minus the largest probability.")] = "log"
    penalty: Annotated[float, msgspec.Meta(gt=0, description="Ridge penalty, per scaled feature.")] = 1.0


def error_reduction_scores(pool: Pool, n: int, parameters: ErrorReductionParameters) -> NDArray[np.float32]:
    """Return (n_items,) float32: the candidates in (1, 2], least expected loss first, the rest in seeded random order in [0, 1)."""
    features = features_of(pool, "expected_error_reduction")
    known, labels = labelled_of(pool, "expected_error_reduction")
    rng = np.random.default_rng(pool.seed)
    k = pool.proba.shape[1] if pool.proba is not None else int(labels.max()) + 1
    if k < 2:
        raise InvalidInputError("strategy 'expected_error_reduction' needs two classes or more: all labels are of one class so far")
    _check_work(min(parameters.candidates, pool.n_items), min(parameters.references, pool.n_items), k, parameters.classes)
    scaling = fit_scaling(np.asarray(known, dtype=np.float32))
    ridge = Ridge(scaling.apply(np.asarray(known, dtype=np.float32)), labels, k, parameters.penalty)
    rows = np.arange(pool.n_items)
    if pool.proba is not None:
        rows = np.sort(falling(margin_rows(pool.proba, False), parameters.candidates))
    elif len(rows) > parameters.candidates:
        rows = np.sort(rng.choice(rows, parameters.candidates, replace=False))
    few = np.sort(rng.choice(pool.n_items, min(parameters.references, pool.n_items), replace=False))
    candidates = scaling.apply(np.asarray(features[rows], dtype=np.float32))
    proba = ridge.proba(candidates) if pool.proba is None else np.asarray(pool.proba[rows], dtype=np.float64)
    losses = ridge.expected_losses(candidates, proba, scaling.apply(np.asarray(features[few], dtype=np.float32)), parameters)
    return chosen_first(rows[np.argsort(losses, kind="stable")], pool.n_items, rng)


def _check_work(candidates: int, references: int, k: int, classes: int) -> None:
    if candidates * references > _MOST_PAIRS or candidates * references * k * min(classes, k) > _MOST_WORK:
        raise InvalidInputError(
            f"strategy 'expected_error_reduction' would weigh {candidates} candidates by {references} references for {k} classes: "
            "lower candidates, references or classes"
        )


class Ridge:
    """A ridge regression of labels with a bias, and what one more sample would make of it.

    labels: (n,) class numbers, or (n, k) of 0/1 where items have several; no sum is asked of those.
    """

    def __init__(self, z: NDArray[np.float32], labels: NDArray[np.int64], k: int, penalty: float) -> None:
        if z.shape[1] > MOST_FEATURES:
            raise InvalidInputError(
                f"a ridge regression takes up to {MOST_FEATURES} features, got {z.shape[1]}: use 'margin' or 'badge'"
            )
        x = _with_bias(z)
        self._inverse = np.linalg.inv(x.T @ x + penalty * np.eye(x.shape[1]))
        self._is_multilabel = labels.ndim == 2
        self._weights = self._inverse @ (x.T @ (labels.astype(np.float64) if self._is_multilabel else np.eye(k)[labels]))

    def proba(self, z: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probabilities of the rows of z (n, d): (n, k)."""
        scores = _with_bias(z) @ self._weights
        return np.clip(scores, _FLOOR, 1 - _FLOOR) if self._is_multilabel else posterior(scores)

    def expected_losses(
        self, z: NDArray[np.float32], proba: NDArray[np.float64], near: NDArray[np.float32], parameters: ErrorReductionParameters
    ) -> NDArray[np.float64]:
        """Return the expected mean loss over `near` (r, d) after the label of each of z (c, d), labels weighed by proba: (c,)."""
        x, others = _with_bias(z), _with_bias(near)
        moved = self._inverse @ x.T
        pull = (others @ moved) / (1 + np.einsum("ij,ji->i", x, moved))
        scores, own = others @ self._weights, x @ self._weights
        likely = np.argsort(-proba, axis=1, kind="stable")[:, : parameters.classes]
        out = np.empty(len(x))
        for at, classes in enumerate(likely):
            base = scores - pull[:, at, None] * own[at]
            weights = proba[at, classes] / proba[at, classes].sum()
            out[at] = weights @ [_mean_loss(base, pull[:, at], label, parameters.loss) for label in classes]
        return out


def posterior(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return scores (n, k) cut below at 0.001 and brought to sum 1."""
    cut = np.maximum(scores, _FLOOR)
    return cut / cut.sum(axis=1, keepdims=True)


def _mean_loss(base: NDArray[np.float64], pull: NDArray[np.float64], label: int, loss: str) -> float:
    scores = base.copy()
    scores[:, label] += pull
    proba = posterior(scores)
    return float(nats_rows(proba.astype(np.float32), False).mean()) if loss == "log" else float(1 - proba.max(axis=1).mean())


def _with_bias(z: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.concatenate([z.astype(np.float64), np.ones((len(z), 1))], axis=1)
