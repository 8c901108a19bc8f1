"""`minilm-tokens`: the first 64 words of a text with their places, looks and MiniLM's vectors, for finding spans.

Owns what the model sees of a text and which of its pieces make a word's vector; the row's layout is `learning.token_rows`'s. Called
through `intake.encoders`. The model is that of `minilm-l6` (W. Wang et al., "MiniLM", NeurIPS 2020).

| a text | its row |
| --- | --- |
| of more than 64 words | its first 64; the model does not see the rest either, so that no span is found there |
| whose first 64 words have more than 256 pieces | words beyond them have a vector of 0, their looks remain |
| without a word | 0 throughout |
| in Chinese or Japanese | each character is a word |
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from intake.encoders.base import Encoder, Features, map_on_cores
from intake.encoders.minilm import open_minilm, open_tokenizer
from intake.encoders.words import find_words, hashes_of
from learning.token_rows import HASH_BITS, MAX_WORDS, N_HASHES, VECTOR, WIDTH, pooled, write_row

MAX_PIECES = 256


class MiniLmTokens(Encoder):
    """One row of words a text."""

    name = "minilm-tokens"
    dim = WIDTH
    category = "token-classification"

    @functools.cached_property
    def _tokenizer(self) -> Any:
        return open_tokenizer(MAX_PIECES)

    @functools.cached_property
    def _session(self) -> Any:
        return open_minilm()

    def embed(self, prepared: Sequence[Any]) -> Features:
        """Return (n, WIDTH) rows as `learning.token_rows` lays them out."""
        if not prepared:
            return np.empty((0, WIDTH), np.float32)
        session, tokenizer = self._session, self._tokenizer
        return np.stack(map_on_cores(lambda text: _row(session, tokenizer, text), prepared))

    def coordinates(self, rows: Features) -> Features:
        """Return (n, VECTOR): the mean vector of each text's words, of length 1."""
        return pooled(rows)

    def record(self) -> dict[str, Any]:
        """Return what a manifest keeps: the layout and how much of a text is seen."""
        layout = {"layout": "learning.token_rows/1", "max_words": MAX_WORDS, "max_pieces": MAX_PIECES, "vector": VECTOR}
        return {**super().record(), **layout}


def _row(session: Any, tokenizer: Any, text: str) -> Features:
    spans = np.array(find_words(text, MAX_WORDS), np.int64).reshape(-1, 2)
    if not len(spans):
        return np.zeros(WIDTH, np.float32)
    hashes = np.array([hashes_of(text[a:b], HASH_BITS) for a, b in spans], np.int64).reshape(-1, N_HASHES)
    return write_row(spans, hashes, _vectors(session, tokenizer, text[: spans[-1, 1]], spans))


def _vectors(session: Any, tokenizer: Any, text: str, spans: npt.NDArray[np.int64]) -> Features:
    """Return (w, VECTOR) float32: the mean of the pieces that share a character with each word, 0 where none does."""
    encoded = tokenizer.encode(text)
    pieces = np.array([encoded.ids], np.int64)
    feed = {"input_ids": pieces, "attention_mask": np.ones_like(pieces), "token_type_ids": np.zeros_like(pieces)}
    last: Features = session.run(None, feed)[0][0]
    begins, ends = np.array(encoded.offsets, np.int64).T
    out = np.zeros((len(spans), VECTOR), np.float32)
    for vector, (start, end) in zip(out, spans, strict=True):
        shares = (begins < end) & (ends > start) & (ends > begins)
        if shares.any():
            vector[:] = last[shares].mean(axis=0)
    return out
