"""The words of a text as one flat row of float32: where each lies, what it looks like, and what the text encoder says of it.

Owns the layout, its writing and its reading, so that an encoder and the algorithms of spans agree on it. Must never split a text or
run a model. Called by `intake.encoders.minilm_tokens` (writes) and `learning.algorithms.token_head` (reads).

A row is MAX_WORDS slots of SLOT numbers; slot i holds the text's i-th word and is 0 throughout where the text has fewer:

| columns of a slot | hold |
| --- | --- |
| 0, 1 | start and end of the word in code points, end exclusive |
| 2 to 6 | hashes below 2^22 of the word in lower case, its shape, its first three, last three and last two letters |
| 7 | the scale: what a packed 1 stands for |
| 8 to 135 | the word's vector of 384 numbers as signed bytes, three in each float32 (base 256, 128 added to each) |

float32 holds every whole number up to 2^24 exactly, so offsets come back exactly and three bytes fit one number. A row is 35 kB;
the plain vectors would be 99 kB. The numbers of a row are no coordinates: for distances between texts take `pooled`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError

MAX_WORDS = 64
VECTOR = 384
N_HASHES = 5
HASH_BITS = 22
_HEAD = 2 + N_HASHES + 1
SLOT = _HEAD + VECTOR // 3
WIDTH = MAX_WORDS * SLOT
_TOP = 127


class Words(NamedTuple):
    """The words of n texts, one after another: those of text i are [starts[i], starts[i + 1]).

    spans (w, 2) int64 code points, hashes (w, N_HASHES) int64, vectors (w, VECTOR) float32, starts (n + 1,) int64.
    """

    spans: NDArray[np.int64]
    hashes: NDArray[np.int64]
    vectors: NDArray[np.float32]
    starts: NDArray[np.int64]


def write_row(spans: NDArray[np.int64], hashes: NDArray[np.int64], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the row (WIDTH,) of one text's words: spans (w, 2), hashes (w, N_HASHES), vectors (w, VECTOR), w at most MAX_WORDS."""
    row = np.zeros((MAX_WORDS, SLOT), dtype=np.float32)
    n = len(spans)
    if n:
        scale = np.abs(vectors).max(axis=1, keepdims=True) / _TOP
        steps = np.rint(vectors / np.where(scale > 0, scale, 1)).astype(np.int64) + 128
        row[:n, :2], row[:n, 2 : _HEAD - 1], row[:n, _HEAD - 1 : _HEAD] = spans, hashes, scale
        row[:n, _HEAD:] = steps[:, 0::3] * 65536 + steps[:, 1::3] * 256 + steps[:, 2::3]
    return row.reshape(-1)


def read_rows(x: NDArray[Any]) -> Words:
    """Return the words of rows x (n, WIDTH); a row with a number that is not finite, or of no such layout, has no words.

    Raises InvalidInputError on another width.
    """
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] != WIDTH:
        raise InvalidInputError(f"rows of words have {WIDTH} numbers each, got shape {x.shape}: use the encoder minilm-tokens")
    slots = x.astype(np.float32, copy=False).reshape(len(x), MAX_WORDS, SLOT)
    is_word = (slots[:, :, 1] > slots[:, :, 0]) & _is_good(slots)[:, None]
    found = slots[is_word].astype(np.float64)
    packed = found[:, _HEAD:].astype(np.int64)
    steps = np.stack([packed >> 16, (packed >> 8) & 255, packed & 255], axis=2).reshape(len(found), VECTOR) - 128
    vectors = (steps * found[:, _HEAD - 1 : _HEAD]).astype(np.float32)
    whole = found[:, : _HEAD - 1].astype(np.int64)
    starts = np.concatenate([[0], is_word.sum(axis=1).cumsum()]).astype(np.int64)
    return Words(whole[:, :2], whole[:, 2:], vectors, starts)


def _is_good(slots: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which rows can have been written by `write_row`: (n,)."""
    head, packed = slots[:, :, : _HEAD - 1], slots[:, :, _HEAD:]
    with np.errstate(invalid="ignore"):
        is_whole = ((head >= 0) & (head < 2**24)).all(axis=(1, 2)) & ((packed >= 0) & (packed < 2**24)).all(axis=(1, 2))
    return np.asarray(is_whole & np.isfinite(slots).all(axis=(1, 2)))


def pooled(x: NDArray[Any]) -> NDArray[np.float32]:
    """Return (n, VECTOR) float32 of length 1 (0 for a text without words): the mean vector of each text's words.

    What strategies that measure distances between items take in place of the rows themselves.
    """
    out = np.zeros((len(x), VECTOR), dtype=np.float32)
    for begin in range(0, len(x), 256):
        words = read_rows(x[begin : begin + 256])
        for i, (a, b) in enumerate(zip(words.starts[:-1], words.starts[1:], strict=True)):
            if b > a:
                mean = words.vectors[a:b].mean(axis=0)
                out[begin + i] = mean / max(float(np.sqrt(np.square(mean).sum())), 1e-12)
    return out
