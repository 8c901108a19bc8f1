"""The linear-chain conditional random field: likelihood, marginals, the best sequence, the probability of a span.

Owns the mathematics of chains. Must never know what a tag means, beyond which may follow which. Called by `token_head`.

J. Lafferty, A. McCallum, F. Pereira, "Conditional Random Fields: Probabilistic Models for Segmenting and Labeling Sequence Data",
ICML 2001; a span's probability by the constrained sums of A. Culotta, A. McCallum, "Confidence Estimation for Information
Extraction", HLT-NAACL 2004. Sums run in probabilities scaled at each position (L. Rabiner, "A Tutorial on Hidden Markov Models and
Selected Applications in Speech Recognition", Proc. IEEE, 1989), which needs one small product a position and no logarithms.

All chains of a batch go together, shorter ones padded at their end: scores (l, n, t), position first; lengths (n,), 0 or more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learning.algorithms.tags import Tagging

_LEAST = -60.0  # scores further below a position's best count as this far: no sum can vanish
Floats = NDArray[np.float64]


class Chains(NamedTuple):
    """What the sums over all sequences of a batch leave.

    ahead, behind: (l, n, t) scaled forward and backward sums, whose product is the marginal of each tag. scale: (l, n), 1 at
    padding. weights: (l, n, t) exponentials of the scores. steps: (t, t) exponentials of the transitions, 0 where not allowed.
    log_sum: (n,) logarithm of the sum over all sequences.
    """

    ahead: Floats
    behind: Floats
    scale: Floats
    weights: Floats
    steps: Floats
    log_sum: Floats

    def marginals(self) -> Floats:
        """Return (l, n, t): how likely each tag is at each position; 0 to 1, rows of real positions sum to 1."""
        return self.ahead * self.behind


def sum_chains(scores: Floats, lengths: NDArray[np.int64], transitions: Floats, tagging: Tagging) -> Chains:
    """Return the sums over all allowed sequences; transitions (t, t) add to the scores from a tag to the next."""
    is_real = np.arange(len(scores))[:, None] < lengths
    tops = np.where(tagging.is_used, scores, -np.inf).max(axis=2, keepdims=True)
    weights = np.exp(np.clip(scores - tops, _LEAST, 0.0)) * tagging.is_used
    steps = np.exp(np.clip(transitions, _LEAST, -_LEAST)) * tagging.may_follow
    ahead, behind, scale = np.empty_like(weights), np.ones_like(weights), np.ones(scores.shape[:2])
    for at in range(len(scores)):
        new = (ahead[at - 1] @ steps if at else tagging.may_start) * weights[at]
        scale[at] = np.where(is_real[at], new.sum(axis=1), 1.0)
        ahead[at] = np.where(is_real[at, :, None], new / scale[at, :, None], ahead[at - 1] if at else 0.0)
    for at in range(len(scores) - 1, 0, -1):
        back = (weights[at] * behind[at] / scale[at, :, None]) @ steps.T
        behind[at - 1] = np.where(is_real[at, :, None], back, 1.0)
    log_sum = np.where(is_real, np.log(scale) + tops[:, :, 0], 0.0).sum(axis=0)
    return Chains(ahead, behind, scale, weights, steps, log_sum)


def loss_and_gradients(
    scores: Floats, lengths: NDArray[np.int64], transitions: Floats, tagging: Tagging, tags: NDArray[np.int64]
) -> tuple[float, Floats, Floats]:
    """Return (sum of minus the log-likelihood of `tags` (l, n), its gradient by scores (l, n, t) and by transitions (t, t))."""
    chains = sum_chains(scores, lengths, transitions, tagging)
    is_real = np.arange(len(scores))[:, None] < lengths
    by_score = chains.marginals() * is_real[:, :, None]
    places, rows = np.nonzero(is_real)
    said = tags[places, rows]
    by_score[places, rows, said] -= 1
    t = len(transitions)
    back = chains.weights * chains.behind * (is_real / chains.scale)[:, :, None]
    by_transition = (chains.ahead[:-1].reshape(-1, t).T @ back[1:].reshape(-1, t)) * chains.steps
    later, chain = np.nonzero(is_real[1:])
    pairs = (tags[:-1][later, chain], tags[1:][later, chain])
    np.subtract.at(by_transition, pairs, 1)
    gold = scores[places, rows, said].sum() + transitions[pairs].sum()
    return float(chains.log_sum.sum() - gold), by_score, by_transition


def best_sequences(scores: Floats, lengths: NDArray[np.int64], transitions: Floats, tagging: Tagging) -> NDArray[np.int64]:
    """Return the likeliest allowed tags (l, n) of each chain, 0 at padding (A. Viterbi, IEEE Trans. Information Theory, 1967)."""
    step = np.where(tagging.may_follow, transitions, -np.inf)
    best = np.where(tagging.may_start, scores[0], -np.inf)
    came_from = np.zeros(scores.shape, dtype=np.int64)
    for at in range(1, len(scores)):
        through = best[:, :, None] + step
        came_from[at] = through.argmax(axis=1)
        is_real = (at < lengths)[:, None]
        best = np.where(is_real, through.max(axis=1) + np.where(tagging.is_used, scores[at], -np.inf), best)
    out = np.zeros(scores.shape[:2], dtype=np.int64)
    tag, chains = best.argmax(axis=1), np.arange(scores.shape[1])
    for at in range(len(scores) - 1, -1, -1):
        is_real = at < lengths
        out[at] = np.where(is_real, tag, 0)
        if at:
            tag = np.where(is_real, came_from[at, chains, tag], tag)
    return out


def span_probability(chains: Chains, chain: int, length: int, first: int, last: int, begin: int, inside: int) -> float:
    """Return how likely it is that a span covers positions `first` to `last` of a chain and ends there: in [0, 1].

    `begin` and `inside` are the tags of its first and its other positions; `length` that of the chain.
    """
    found = float(chains.ahead[first, chain, begin])
    tag = begin
    for at in range(first + 1, last + 1):
        found *= float(chains.steps[tag, inside] * chains.weights[at, chain, inside] / chains.scale[at, chain])
        tag = inside
    if last + 1 < length:
        after = chains.steps[tag] * chains.weights[last + 1, chain] * chains.behind[last + 1, chain] / chains.scale[last + 1, chain]
        found *= float(after.sum() - after[inside])
    return min(max(found, 0.0), 1.0)
