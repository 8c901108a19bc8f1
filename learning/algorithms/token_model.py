"""The tagger that `token-head` trains: what it says of texts, and its file.

Owns predicting and saving. Must never train. Called through `learning.algorithms.token_head`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import IntegrityError
from learning.algorithms.base import Files, need
from learning.algorithms.crf import Chains, best_sequences, span_probability, sum_chains
from learning.algorithms.tags import OUTSIDE, Tagging, runs_of, tagging_of
from learning.algorithms.tensors import pack, unpack
from learning.algorithms.word_features import Sight, keys_of, see
from learning.regions import RegionModel, Regions
from learning.token_rows import VECTOR, Words, read_rows

FILE = "token-head.safetensors"
_PREDICT_ROWS = 256


class Weights(NamedTuple):
    """`vector` (3 * VECTOR, t) and `looks` (v, t) score the tags of a word, `steps` (t, t) those of two that follow; float32."""

    vector: NDArray[np.float32]
    looks: NDArray[np.float32]
    steps: NDArray[np.float32]


def padded(flat: NDArray[np.float32], starts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return (scores (l, n, t), lengths (n,)) of n texts whose words have scores (w, t); a text without words has length 0."""
    lengths = np.diff(starts)
    out = np.zeros((int(lengths.max(initial=1)), len(lengths), flat.shape[1]))
    out[places_of(starts)] = flat
    return out, lengths


def places_of(starts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (position, text) of each word: where it lies in a padded batch."""
    lengths = np.diff(starts)
    text = np.repeat(np.arange(len(lengths)), lengths)
    return np.arange(len(text)) - starts[:-1][text], text


class TokenModel(RegionModel):
    """A linear-chain CRF on words; `outside_bias` is added to the score of 'no span' when spans are chosen, not to confidences."""

    def __init__(self, weights: Weights, sight: Sight, is_seen: NDArray[np.bool_], outside_bias: float) -> None:
        self.weights, self.sight, self.is_seen, self.outside_bias = weights, sight, is_seen, outside_bias
        self.n_labels = len(is_seen)
        self._tagging: Tagging = tagging_of(is_seen)

    def predict_regions(self, x: NDArray[Any]) -> list[Regions]:
        """Return the spans of each text, surest first; none in a row without words or that is not finite."""
        out: list[Regions] = []
        for begin in range(0, len(x), _PREDICT_ROWS):
            out += self._spans(read_rows(np.asarray(x)[begin : begin + _PREDICT_ROWS]))
        return out

    def parts(self, x: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return (proba (p, t), part_starts (n + 1,)): the marginal of each tag (O, B and I of each label) of each word seen.

        What the strategy `span_uncertainty` takes; a text without words has no part.
        """
        found, counts = [np.zeros((0, 1 + 2 * self.n_labels), np.float32)], [np.zeros(1, np.int64)]
        for begin in range(0, len(x), _PREDICT_ROWS):
            words = read_rows(np.asarray(x)[begin : begin + _PREDICT_ROWS])
            chains, _, _ = self._chains(words)
            proba = chains.marginals()[places_of(words.starts)]
            found.append((proba / proba.sum(axis=1, keepdims=True)).astype(np.float32))
            counts.append(np.diff(words.starts))
        return np.concatenate(found), np.concatenate(counts).cumsum()

    def _chains(self, words: Words) -> tuple[Chains, NDArray[np.float64], NDArray[np.int64]]:
        seen = see(words, keys_of(words), self.sight)
        scores, lengths = padded(seen.scores(self.weights.vector, self.weights.looks), words.starts)
        return sum_chains(scores, lengths, self.weights.steps.astype(np.float64), self._tagging), scores, lengths

    def _spans(self, words: Words) -> list[Regions]:
        chains, scores, lengths = self._chains(words)
        scores[:, :, OUTSIDE] += self.outside_bias
        tags = best_sequences(scores, lengths, self.weights.steps.astype(np.float64), self._tagging)
        return [
            self._regions(words.spans[words.starts[i] : words.starts[i + 1]], tags[: lengths[i], i], chains, i)
            for i in range(len(lengths))
        ]

    def _regions(self, spans: NDArray[np.int64], tags: NDArray[np.int64], chains: Chains, chain: int) -> Regions:
        runs = runs_of(tags)
        sure = [span_probability(chains, chain, len(spans), a, b, 1 + 2 * k, 2 + 2 * k) for a, b, k in runs]
        order = np.argsort(-np.array(sure), kind="stable")
        where = np.array([(spans[a, 0], spans[b, 1]) for a, b, _ in runs], np.float32).reshape(-1, 2)
        labels = np.array([k for _, _, k in runs], np.int64)
        return Regions(where[order], labels[order], np.array(sure, np.float32)[order])

    def files(self) -> dict[str, bytes]:
        arrays = {**self.weights._asdict(), "known": self.sight.known, "mean": self.sight.mean, "is_seen": self.is_seen}
        return {FILE: pack(arrays, {"factor": self.sight.factor, "outside_bias": self.outside_bias})}


def load(files: Files) -> TokenModel:
    """Return the model in `files`. Raises IntegrityError on anything else."""
    arrays, facts = unpack(need(files, FILE))
    try:
        weights = Weights(arrays["vector"], arrays["looks"], arrays["steps"])
        sight = Sight(arrays["known"], arrays["mean"], float(facts["factor"]))
        is_seen, bias = arrays["is_seen"].astype(np.bool_), float(facts["outside_bias"])
    except KeyError as exc:
        raise IntegrityError(f"{FILE} lacks {exc}") from exc
    t = 1 + 2 * len(is_seen)
    if [w.shape for w in weights] != [(3 * VECTOR, t), (len(sight.known), t), (t, t)]:
        raise IntegrityError(f"{FILE} holds weights of shapes {[w.shape for w in weights]} for {len(is_seen)} labels")
    return TokenModel(weights, sight, is_seen, bias)
