"""mace: who answers and who spams; an annotator either knows the class or copies a favourite pattern of their own.

D. Hovy, T. Berg-Kirkpatrick, A. Vaswani, E. Hovy, "Learning Whom to Trust with MACE", NAACL-HLT 2013.
Owns competence and spamming patterns. Must never build a confusion matrix. Called through `learning.crowd.aggregate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, gammaln

from learning.crowd.cells import CellPosteriors, CellView
from learning.crowd.dawid_skene import softmax
from learning.crowd.labels import CrowdLabels
from learning.crowd.quality import FLOOR
from learning.crowd.result import Array, ClimbOptions, Fit, LabelModel, climb

_SPAM_PRIOR = 0.5  # Beta, of (spams, knows): the authors' value
_PATTERN_PRIOR = 10.0  # Dirichlet, of each class of a spammer's pattern: the authors' value


class MaceOptions(ClimbOptions, frozen=True, kw_only=True):
    """Options of MACE. 'vb' climbs the variational bound under the paper's priors, 'em' the smoothed likelihood."""

    inference: Annotated[Literal["vb", "em"], msgspec.Meta(description="Variational Bayes, or smoothed EM.")] = "vb"
    n_restarts: Annotated[int, msgspec.Meta(ge=1, le=1000, description="Random starts; the likeliest end is kept.")] = 10
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1001, description="Of the first start; the others follow.")] = 0
    n_iter: Annotated[int, msgspec.Meta(ge=1, le=10_000, description="Most E steps of each start.")] = 51


@dataclass(frozen=True, eq=False)
class Mace:
    """`spamming` (n_workers, 2): weights of (spams, knows). `patterns` (n_workers, n_classes): what a spammer answers.

    Rows sum to 1 after 'em'; after 'vb' they are exp(E[log]), whose sums lie a little below. `competence` is P(knows).
    `penalty`: what the prior adds to the log-likelihood ('vb': minus the divergence from it); -inf where no prior was asked.
    """

    spamming: Array
    patterns: Array
    penalty: float = -np.inf

    @property
    def base(self) -> Array:
        """Log of the uniform class prior."""
        k = self.patterns.shape[1]
        return np.full(k, -np.log(k))

    @property
    def competence(self) -> Array:
        """P(the worker knows): (n_workers,)."""
        return np.asarray(self.spamming[:, 1] / self.spamming.sum(axis=1))

    @property
    def spam(self) -> Array:
        """Weight of a label being given as spam: (n_workers, n_classes)."""
        return np.maximum(self.spamming[:, :1] * self.patterns, FLOOR)

    def contributions(self, items: NDArray[Any], workers: NDArray[Any], classes: NDArray[Any]) -> Array:
        """Return log weight of each label given the true class: (m, n_classes)."""
        spam = self.spam[workers, classes]
        out = np.repeat(np.log(spam)[:, None], self.patterns.shape[1], axis=1)
        out[np.arange(len(out)), classes] = np.log(spam + self.spamming[workers, 1])
        return out

    def normalise(self, scores: Array) -> Array:
        """Return the softmax of each row."""
        return softmax(scores)

    def grown(self, n_items: int, n_workers: int) -> LabelModel:
        """Return parameters in which new workers have the mean weights."""
        new = max(0, n_workers - len(self.spamming))
        if not new:
            return self
        spamming = np.tile(self.spamming.mean(axis=0), (new, 1))
        return Mace(
            np.concatenate([self.spamming, spamming]),
            np.concatenate([self.patterns, np.tile(self.patterns.mean(axis=0), (new, 1))]),
        )

    def shape(self) -> tuple[int | None, int | None, int]:
        """Return (None, workers, classes)."""
        return None, *self.patterns.shape


class _Counts(NamedTuple):
    found: CellPosteriors
    spamming: Array  # expected (spams, knows) a worker
    patterns: Array  # expected spam labels a worker and class


def fit_mace(crowd: CrowdLabels, options: MaceOptions, start: Mace | None) -> Fit:
    """Climb from `n_restarts` random starts (or from `start` alone) and keep the likeliest end; needs two classes."""
    view, k = CellView(crowd), crowd.n_classes
    prior = np.full(k, 1 / k)
    given = crowd.labels_per_code

    def expect(now: Mace) -> tuple[_Counts, float]:
        spam = now.spam
        both = spam + now.spamming[:, 1:]
        found = view.posteriors(view.matrix @ np.log(both / spam).ravel(), prior)
        right = (view.matrix.T @ found.chosen).reshape(crowd.n_workers, k)
        knows = right * now.spamming[:, 1:] / both
        spams = given - knows
        counts = _Counts(found, np.stack([spams.sum(axis=1), knows.sum(axis=1)], axis=1), spams)
        value = found.log_likelihood + float((given * np.log(spam)).sum())
        return counts, value + now.penalty

    def maximise(counts: _Counts, _: Mace) -> Mace:
        return (_variational if options.inference == "vb" else _smoothed)(counts)

    starts = [start] if start is not None else [_random_start(crowd, options.seed + i) for i in range(options.n_restarts)]
    ends = [climb(one, expect, maximise, crowd.n_labels, options) for one in starts]
    best, counts, trace, has_converged = max(ends, key=lambda end: float(end[2][-1]))
    return Fit(best, view.dense(counts.found, prior), trace[np.isfinite(trace)], has_converged)


def _random_start(crowd: CrowdLabels, seed: int) -> Mace:
    """Return a start near even weights; the legacy generator keeps a seed's start the one that crowd-kit draws."""
    spamming = np.random.RandomState(seed).uniform(1, 2.5, (crowd.n_workers, 2))
    patterns = np.random.RandomState(seed).uniform(1, 2.5, (crowd.n_workers, crowd.n_classes))
    return Mace(_shares(spamming), _shares(patterns))


def _smoothed(counts: _Counts) -> Mace:
    smoothing = 0.01 / counts.patterns.shape[1]
    spamming, patterns = _shares(counts.spamming + smoothing), _shares(counts.patterns + smoothing)
    return Mace(spamming, patterns, smoothing * float(np.log(spamming).sum() + np.log(patterns).sum()))


def _variational(counts: _Counts) -> Mace:
    spamming, of_spamming = dirichlet_posterior(counts.spamming, _SPAM_PRIOR)
    patterns, of_patterns = dirichlet_posterior(counts.patterns, _PATTERN_PRIOR)
    return Mace(spamming, patterns, -of_spamming - of_patterns)


def _shares(x: Array) -> Array:
    return np.asarray(x / x.sum(axis=1, keepdims=True))


def dirichlet_posterior(counts: Array, prior: float) -> tuple[Array, float]:
    """Return exp(E[log p]) under the Dirichlet posterior of each row, and all rows' divergence from the prior, nats."""
    x, total, k = counts + prior, counts.sum(axis=1) + prior * counts.shape[1], counts.shape[1]
    mean_log = digamma(x) - digamma(total)[:, None]
    divergence = gammaln(total).sum() - gammaln(x).sum() + (counts * mean_log).sum()
    return np.exp(mean_log), float(divergence + len(counts) * (k * gammaln(prior) - gammaln(prior * k)))
