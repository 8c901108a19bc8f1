"""`hash-ngram`: 2,048 hashed counts of character n-grams, for Chinese and any other text; needs no weights.

Owns the hash. Called through `intake.encoders`. Source: K. Weinberger et al., "Feature hashing for large scale multitask
learning", ICML 2009 (signed buckets); roots of the counts damp long texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from intake.encoders.base import Encoder, Features

DIM = 2048
LONGEST = 4
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)


class HashNgram(Encoder):
    """Signed hashed 1- to 4-grams of the lower-cased characters, square roots, L2-normalised."""

    name = "hash-ngram"
    dim = DIM
    category = "text-classification"

    def embed(self, prepared: Sequence[Any]) -> Features:
        """Return (n, 2048) rows of length 1 (all zero for a text without characters)."""
        out = np.zeros((len(prepared), DIM), np.float32)
        for row, text in zip(out, prepared, strict=True):
            row[:] = _counts(text)
        return out


def _counts(text: str) -> npt.NDArray[np.float64]:
    """Return the normalised buckets of one text: (2048,)."""
    codes = np.frombuffer(f" {text.lower()} ".encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    grams = [_hashes(codes, n) for n in range(1, min(LONGEST, len(codes)) + 1)]
    hashed = np.concatenate(grams)
    bucket = (hashed & np.uint64(DIM - 1)).astype(np.int64)
    sign = 1.0 - 2.0 * ((hashed >> np.uint64(40)) & np.uint64(1)).astype(np.float64)
    counts = np.bincount(bucket, sign, DIM)
    rooted = np.sign(counts) * np.sqrt(np.abs(counts))
    length = float(np.sqrt(np.square(rooted).sum()))
    return rooted / length if length else rooted


def _hashes(codes: npt.NDArray[np.uint64], n: int) -> npt.NDArray[np.uint64]:
    """Return one mixed 64-bit hash for each n-gram."""
    hashed = np.full(len(codes) - n + 1, n, np.uint64)
    for i in range(n):
        hashed = (hashed ^ codes[i : len(codes) - n + 1 + i]) * _PRIME
        hashed ^= hashed >> np.uint64(29)
    hashed *= _MIX
    return hashed ^ (hashed >> np.uint64(32))
