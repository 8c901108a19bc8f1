"""The encoders by name, and which one fits a task's first items.

Owns the registry: ours, and those of other packages under the entry-point group `labelloop.encoders` (name → a callable that
returns an `Encoder`). Must never import a model library before an encoder is used. Called by `intake.pipeline`, roles and scripts.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

from PIL import Image

from intake.decode import Decoded
from intake.encoders.base import Encoder, set_threads, threads
from intake.encoders.efficientnet import EfficientNetLite0
from intake.encoders.efficientnet_map import EfficientNetMap
from intake.encoders.hash_ngram import HashNgram
from intake.encoders.minilm import MiniLm
from intake.encoders.minilm_tokens import MiniLmTokens
from intake.encoders.pixels import make_pixels, name_for
from intake.encoders.table_columns import TableColumns
from labelloop.errors import InvalidInputError

__all__ = ["Encoder", "default_encoder", "find_encoder", "list_encoders", "pixels_encoder", "set_threads", "threads"]

GROUP = "labelloop.encoders"
TINY_PX = 32
LATIN_SHARE = 0.7
BOXES = "efficientnet-map"
SPANS = "minilm-tokens"
_OURS: dict[str, Callable[[], Encoder]] = {
    EfficientNetLite0.name: EfficientNetLite0,
    EfficientNetMap.name: EfficientNetMap,
    MiniLm.name: MiniLm,
    MiniLmTokens.name: MiniLmTokens,
    HashNgram.name: HashNgram,
    TableColumns.name: TableColumns,
}


@functools.lru_cache(maxsize=64)
def find_encoder(name: str) -> Encoder:
    """Return the encoder called `name`, one object a process.

    Raises InvalidInputError with the known names. 'auto' is no encoder: the pipeline resolves it.
    """
    if name in _OURS:
        return _OURS[name]()
    pixels = make_pixels(name)
    if pixels is not None:
        return pixels
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            return _checked(entry.load()(), name)
    raise InvalidInputError(f"encoder {name!r} is unknown: use one of {', '.join(list_encoders())}")


def _checked(encoder: object, name: str) -> Encoder:
    if not isinstance(encoder, Encoder) or encoder.name != name:
        raise InvalidInputError(f"entry point {name!r} of {GROUP} must return an intake.encoders.Encoder of that name")
    return encoder


def list_encoders() -> tuple[str, ...]:
    """Return the names that `find_encoder` knows; '<side>' stands for 1 to 256, 'g' for gray."""
    return (*_OURS, "raw-pixels-<side>[g]", "pixels-<side>[g]", *(entry.name for entry in entry_points(group=GROUP)))


def default_encoder(category: str, samples: Sequence[Decoded]) -> str:
    """Return the encoder for a task whose first decoded items are `samples` (at least one).

    Tiny pictures: raw pixels; others: EfficientNet. Texts mostly in Latin script: MiniLM, others: n-grams. Tables: their columns.
    Boxes: EfficientNet's map of places. Spans: MiniLM's tokens.
    Raises InvalidInputError on an unknown category.
    """
    if category == "image-classification":
        pictures = [p for p in samples if isinstance(p, Image.Image)]
        return name_for(pictures) if max(max(p.size) for p in pictures) <= TINY_PX else EfficientNetLite0.name
    if category == "text-classification":
        return MiniLm.name if _latin_share("".join(str(t)[:500] for t in samples)) >= LATIN_SHARE else HashNgram.name
    if category == "tables":
        return TableColumns.name
    if category == "object-detection":
        return BOXES
    if category == "token-classification":
        return SPANS
    raise InvalidInputError(f"category {category!r} has no encoder")


def _latin_share(text: str) -> float:
    letters = [c for c in text if c.isalpha()]
    n_latin = sum(c.isascii() or unicodedata.name(c, "").startswith("LATIN") for c in letters)
    return n_latin / len(letters) if letters else 1.0


def pixels_encoder(encoder: str, side: int = 64) -> str:
    """Return the pixel encoder for an algorithm that reads pixels in a task whose features come from `encoder`:
    the same picture where `encoder` is raw pixels, else RGB of `side`."""
    if encoder.startswith("raw-pixels-"):
        return encoder.removeprefix("raw-")
    return encoder if encoder.startswith("pixels-") else f"pixels-{side}"
