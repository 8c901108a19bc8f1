"""Items to numbers, by the encoders that training and inference use.

Owns the choice of the encoder where none is named. Must never read a file. Called by `scripts.simulation.datasets`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from intake.decode import Decoded, decode
from intake.encoders import default_encoder, find_encoder
from intake.encoders.base import Encoder
from intake.encoders.table_columns import TableColumns
from intake.limits import Fetched
from intake.tables import Row, columns_of
from labelloop.errors import InvalidInputError
from labelloop.settings import IntakeSettings

_PROBE = 32
_AT_ONCE = 64


class Content(NamedTuple):
    """One item as it was found: `name` for errors, its bytes and their media type."""

    name: str
    data: bytes
    media_type: str


def encode_items(
    category: str, items: Sequence[Content], encoder: str = "auto", tick: Callable[[int, int], None] = lambda done, total: None
) -> tuple[NDArray[np.float32], str]:
    """Return the features (n, d) of `items` and the name of the encoder; 'auto' chooses as a new task would.

    `tick(done, total)` is called as items are done. Raises InvalidInputError naming an unknown encoder, one of another category, or
    the first item that cannot be read.
    """
    settings = IntakeSettings()

    def read(item: Content, wanted_px: int = 0) -> Decoded:
        try:
            return decode(category, Fetched(item.data, item.media_type), settings, wanted_px)
        except InvalidInputError as exc:
            raise InvalidInputError(f"{item.name}: {exc}") from exc

    found = _choose(category, encoder, [read(item) for item in items[: None if category == "tables" else _PROBE]])
    parts: list[NDArray[Any]] = []
    for begin in range(0, len(items), _AT_ONCE):
        prepared = [found.prepare(read(item, found.wanted_px)) for item in items[begin : begin + _AT_ONCE]]
        parts.append(found.embed(prepared))
        tick(min(begin + _AT_ONCE, len(items)), len(items))
    return np.concatenate(parts).astype(np.float32, copy=False), found.name


def _choose(category: str, encoder: str, samples: Sequence[Decoded]) -> Encoder:
    name = default_encoder(category, samples) if encoder == "auto" else encoder
    if name == TableColumns.name and category == "tables":
        return TableColumns(columns_of([row for row in samples if isinstance(row, Row)]))
    found = find_encoder(name)
    if found.category != category:
        raise InvalidInputError(f"encoder {name!r} is for {found.category}, this data is {category}")
    return found
