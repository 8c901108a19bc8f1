"""Where an item's features are: one index file a shard, and all of them as two sorted arrays of 128-bit keys.

Owns the form of `Preprocess/shards/<encoder>/<name>` and the lookup. Must never read features. Called by `shards` and
`compaction` alone. Not thread-safe: its owner holds a lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec
import numpy as np
import numpy.typing as npt

from labelloop.messages import Message

KEY_BYTES = 16
_PAIR = np.dtype([("high", "<u8"), ("low", "<u8")])
_RECENT_MOST = 16384
Place = tuple[str, int]


class Part(msgspec.Struct, frozen=True, array_like=True):
    """A name under which rows `start` to `start + n` of a merged shard were written first and stay readable."""

    name: str
    start: int
    n: int


class ShardIndex(Message, frozen=True, kw_only=True):
    """One shard without its features. `item_keys` and `content_keys` are n keys of 16 bytes; `item_ids` MessagePack strings.

    `inline` holds the features of a small shard, otherwise they are a file of their own (`features-<encoder>/<name>.f32`).
    """

    encoder: str
    n: int
    dim: int
    crc32: int
    item_keys: bytes
    content_keys: bytes
    item_ids: bytes
    parts: tuple[Part, ...] = ()
    inline: bytes = b""


def item_key(item_id: str, link: str) -> bytes:
    """Return the key of an item behind one link (the same id under another link is another thing)."""
    return hashlib.blake2b(f"{item_id}\x00{link}".encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


def content_key(content_hash: str) -> bytes:
    """Return the key of a content hash."""
    return hashlib.blake2b(content_hash.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES, person=b"content").digest()


class KeyTable:
    """key → place number, kept as sorted arrays plus a small dict of the newest (24 bytes a row instead of 200)."""

    def __init__(self) -> None:
        self._recent: dict[bytes, int] = {}
        self._waiting: list[tuple[bytes, int]] = []
        self._high = np.empty(0, np.uint64)
        self._low = np.empty(0, np.uint64)
        self._place = np.empty(0, np.int64)

    def add(self, keys: bytes, first_place: int) -> None:
        """Add len(keys) / 16 keys at consecutive places."""
        self._waiting.append((keys, first_place))

    def find(self, key: bytes) -> int | None:
        """Return the place of `key`, None when it was never added."""
        self._absorb()
        place = self._recent.get(key)
        if place is not None or not len(self._high):
            return place
        high, low = np.frombuffer(key, "<u8")
        at = int(np.searchsorted(self._high, high))
        while at < len(self._high) and self._high[at] == high:
            if self._low[at] == low:
                return int(self._place[at])
            at += 1
        return None

    def find_many(self, keys: Iterable[bytes]) -> list[int | None]:
        """Return the place of each key, None where it was never added."""
        self._absorb()
        wanted = list(keys)
        found = [self._recent.get(key) for key in wanted]
        left = [i for i, place in enumerate(found) if place is None]
        if not left or not len(self._high):
            return found
        pairs = np.frombuffer(b"".join(wanted[i] for i in left), _PAIR)
        at = np.searchsorted(self._high, pairs["high"])
        at[at == len(self._high)] = 0
        is_hit = (self._high[at] == pairs["high"]) & (self._low[at] == pairs["low"])
        for i, position, hit in zip(left, at, is_hit, strict=True):
            if hit:
                found[i] = int(self._place[position])
            elif self._high[position] == np.frombuffer(wanted[i], "<u8")[0]:
                found[i] = self.find(wanted[i])  # two keys share their upper half
        return found

    def _absorb(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        if sum(len(keys) for keys, _ in waiting) // KEY_BYTES + len(self._recent) <= _RECENT_MOST:
            for keys, first in waiting:
                for i in range(len(keys) // KEY_BYTES):
                    self._recent[keys[KEY_BYTES * i : KEY_BYTES * (i + 1)]] = first + i
            return
        recent = np.frombuffer(b"".join(self._recent), _PAIR)
        pairs = [recent, *(np.frombuffer(keys, _PAIR) for keys, _ in waiting)]
        places = [np.fromiter(self._recent.values(), np.int64, len(self._recent))]
        places += [np.arange(first, first + len(keys) // KEY_BYTES, dtype=np.int64) for keys, first in waiting]
        self._sort(pairs, places)
        self._recent = {}

    def _sort(self, pairs: list[npt.NDArray[np.void]], places: list[npt.NDArray[np.int64]]) -> None:
        high = np.concatenate([self._high, *(p["high"] for p in pairs)])
        order = np.argsort(high, kind="stable")
        self._high = high[order]
        self._low = np.concatenate([self._low, *(p["low"] for p in pairs)])[order]
        self._place = np.concatenate([self._place, *places])[order]
