"""Links to prepared items, several at a time: fetch, hash, decode, prepare, each error its item's own.

Owns the download threads and the budget of time. Must never embed or write. Called by `intake.pipeline`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from intake.decode import Decoded, decode
from intake.encoders.base import Encoder
from intake.fetch import Fetcher
from intake.limits import Fetched
from labelloop.errors import LabelloopError, RetryableError
from labelloop.messages import MEDIUM_OF
from labelloop.settings import IntakeSettings

SLICE = 256
_WORTH_A_THREAD_PX = 64


class Loaded(NamedTuple):
    """One link, fetched: the hash of its content and what the encoder needs of it (None: those bytes are embedded already)."""

    content_hash: str
    prepared: Any


Outcome = Loaded | LabelloopError | None
"""What became of a link; None = not begun, the budget was used up."""


def content_hash(category: str, fetched: Fetched) -> str:
    """Return the identity of content: its bytes, and for texts the media type, which may name a charset."""
    digest = hashlib.sha256(fetched.data)
    if MEDIUM_OF.get(category) == "text":
        digest.update(fetched.media_type.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


class Loader:
    """Fetches and decodes links for one category under one set of limits."""

    def __init__(self, category: str, settings: IntakeSettings) -> None:
        self._category = category
        self._settings = settings
        self._fetcher = Fetcher(settings)

    def close(self) -> None:
        """Close idle connections."""
        self._fetcher.close()

    def decoded(self, links: Sequence[str]) -> list[Decoded]:
        """Return the items behind `links` that can be read, in order, full size."""
        outcomes = self._each(links, self._fetch_and_decode, None, is_parallel=len(links) > 1)
        return [o for part in outcomes for o in part if o is not None and not isinstance(o, LabelloopError)]

    def read(self, links: Sequence[str], deadline: float | None = None) -> list[Decoded | LabelloopError | None]:
        """Return each item behind `links`, in order, full size, or why it cannot be read; None = not begun at `deadline`."""
        is_parallel = any(link[:4].lower() == "http" for link in links)
        return [o for part in self._each(links, self._fetch_and_decode, deadline, is_parallel) for o in part]

    def _fetch_and_decode(self, link: str) -> Any:
        return decode(self._category, self._fetch(link), self._settings)

    def load(
        self, links: Sequence[str], encoder: Encoder, is_known: Callable[[str], bool], deadline: float | None
    ) -> Iterator[list[Outcome]]:
        """Yield the outcomes of `links`, in order, slice by slice; the next slice loads while the caller works on this one.

        `is_known(content_hash)`: those bytes need no decoding. No link is begun after `deadline` (monotonic, None = never).
        """

        def one(link: str) -> Loaded:
            fetched = self._fetch(link)
            digest = content_hash(self._category, fetched)
            if is_known(digest):
                return Loaded(digest, None)
            return Loaded(digest, encoder.prepare(decode(self._category, fetched, self._settings, encoder.wanted_px)))

        is_parallel = len(links) > 1 and (
            encoder.wanted_px > _WORTH_A_THREAD_PX or any(link[:4].lower() == "http" for link in links)
        )
        return self._each(links, one, deadline, is_parallel)

    def _fetch(self, link: str) -> Fetched:
        try:
            return self._fetcher.fetch(link)
        except RetryableError:
            return self._fetcher.fetch(link)

    def _each(
        self, links: Sequence[str], call: Callable[[str], Any], deadline: float | None, is_parallel: bool
    ) -> Iterator[list[Any]]:
        def guarded(link: str) -> Any:
            if deadline is not None and time.monotonic() > deadline:
                return None
            try:
                return call(link)
            except LabelloopError as exc:
                return exc

        slices = [links[i : i + SLICE] for i in range(0, len(links), SLICE)]
        if not is_parallel:
            yield from ([guarded(link) for link in part] for part in slices)
            return
        with ThreadPoolExecutor(min(self._settings.fetch_threads, len(links)), thread_name_prefix="fetch") as pool:
            waiting: list[list[Future[Any]]] = []
            for part in slices:
                waiting.append([pool.submit(guarded, link) for link in part])
                if len(waiting) == 2:
                    yield [future.result() for future in waiting.pop(0)]
            for futures in waiting:
                yield [future.result() for future in futures]
