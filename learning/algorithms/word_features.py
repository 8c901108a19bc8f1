"""What the tagger knows of a word: the encoder's vectors and the looks of the word and of its neighbours.

Owns keys, vocabulary and how they become scores. Must never see a label. Called by `token_head`. The looks are the usual features
of taggers: L. Ratinov, D. Roth, "Design Challenges and Misconceptions in Named Entity Recognition", CoNLL 2009.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learning.token_rows import HASH_BITS, VECTOR, Words

_LOW, _SHAPE, _PREFIX, _SUFFIX, _SHORT = range(5)
_LOOKS = (  # (which hash, of the word how many places on)
    *((_LOW, place) for place in (-2, -1, 0, 1, 2)),
    *((_SHAPE, place) for place in (-2, -1, 0, 1, 2)),
    *((_SUFFIX, place) for place in (-1, 0, 1)),
    (_PREFIX, 0),
    (_SHORT, 0),
)
N_KEYS = len(_LOOKS) + 1
MOST_KEYS = 1 << 17
_REACH = 2
_NOBODY = (1 << HASH_BITS) - 1


def keys_of(words: Words) -> NDArray[np.int64]:
    """Return (w, N_KEYS): what each word has, as numbers that differ by kind and place; the last one is of all words."""
    padded, places = _padded(words)
    keys = [(number << HASH_BITS) + padded[places + place, which] for number, (which, place) in enumerate(_LOOKS)]
    return np.stack([*keys, np.full(len(places), len(_LOOKS) << HASH_BITS)], axis=1)


def _padded(words: Words) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return hashes with `_REACH` rows of nobody before and after each text, and where each word is in them."""
    n = len(words.starts) - 1
    text = np.repeat(np.arange(n), np.diff(words.starts))
    places = np.arange(len(words.spans)) + _REACH * (2 * text + 1)
    padded = np.full((len(words.spans) + 2 * _REACH * max(n, 1), words.hashes.shape[1]), _NOBODY, dtype=np.int64)
    padded[places] = words.hashes
    return padded, places


def vocabulary(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the keys that occur, sorted: at most MOST_KEYS, the most frequent."""
    found, counts = np.unique(keys, return_counts=True)
    if len(found) <= MOST_KEYS:
        return found
    kept: NDArray[np.int64] = np.sort(found[np.argsort(-counts, kind="stable")[:MOST_KEYS]])
    return kept


class Sight(NamedTuple):
    """How words are seen: `known` (v,) int64 keys, `mean` (VECTOR,) and `factor` of the vectors."""

    known: NDArray[np.int64]
    mean: NDArray[np.float32]
    factor: float


class Seen(NamedTuple):
    """The words of n texts as numbers: `vectors` (w, VECTOR) float32 centred and scaled, `looks` a scipy CSR matrix (w, v) with 1
    where a word has a key, `starts` (n + 1,)."""

    vectors: NDArray[np.float32]
    looks: Any
    starts: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> tuple[Seen, NDArray[np.int64]]:
        """Return the texts `rows` alone, and where their words were."""
        at = np.concatenate([np.arange(self.starts[row], self.starts[row + 1]) for row in rows])
        starts = np.concatenate([[0], np.diff(self.starts)[rows].cumsum()])
        return Seen(self.vectors[at], self.looks[at], starts), at

    def scores(self, vector: NDArray[np.float32], looks: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (w, t): what the vectors of the word before, the word and the next (weights (3 * VECTOR, t), in this order) say
        of each tag, and the looks of the word (weights (v, t))."""
        before, own, after = self.vectors @ vector.reshape(3, VECTOR, -1)
        out: NDArray[np.float32] = own + self._moved(before, 1) + self._moved(after, -1) + self.looks @ looks
        return out

    def gradients(self, by_score: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the gradients by both weights of `scores`, given that by the scores (w, t)."""
        parts = [self.vectors.T @ moved for moved in (self._moved(by_score, -1), by_score, self._moved(by_score, 1))]
        return np.concatenate(parts), self.looks.T @ by_score

    def _moved(self, values: NDArray[np.float32], places: int) -> NDArray[np.float32]:
        """Return the values of the word `places` before (1 or -1) in the same text, 0 where there is none."""
        out = np.roll(values, places, axis=0)
        full = np.diff(self.starts) > 0
        out[self.starts[:-1][full] if places > 0 else self.starts[1:][full] - 1] = 0
        return out


def see(words: Words, keys: NDArray[np.int64], sight: Sight) -> Seen:
    """Return words and their keys as numbers. Keys that are not known are left out."""
    from scipy.sparse import csr_matrix

    known = sight.known
    places = np.minimum(np.searchsorted(known, keys), max(len(known) - 1, 0))
    is_known = known[places] == keys if len(known) else np.zeros(keys.shape, dtype=np.bool_)
    ends = np.concatenate([[0], is_known.sum(axis=1).cumsum()])
    looks = csr_matrix((np.ones(int(is_known.sum()), np.float32), places[is_known], ends), shape=(len(keys), len(known)))
    return Seen((words.vectors - sight.mean) * np.float32(sight.factor), looks, words.starts)
