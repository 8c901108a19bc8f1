"""From what a person names to a data folder that cells can read.

Owns the split into pool and test part (a hash of each item's name, a fifth) and the folder's name, so that the same request finds
the features that were made before. Called by `scripts.simulation.command` and by the benchmark.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError
from learning.cycle.simulation import Data, Info, load_data, save_data
from scripts.samples import SAMPLES, is_test, load_sample
from scripts.simulation.features import Content, encode_items
from scripts.simulation.files import Arrays, Labelled, read_file

Tick = Callable[[int, int], None]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to simulate on. `dataset`: a built-in name or a path; `items`: a random part of that many, 0 = all."""

    dataset: str
    encoder: str = "auto"
    items: int = 0
    label: str = "label"
    text: str = ""


def open_data(request: Request, folder: Path, cache: Path, tick: Tick = lambda done, total: None) -> tuple[Path, Data]:
    """Return the data folder below `folder` and what is in it, made now unless an equal request made it before.

    `cache` keeps downloaded packages. Raises InvalidInputError, NotFoundError, UnreachableError with one sentence.
    """
    if request.items < 0:
        raise InvalidInputError(f"--items must be 0 (all) or more, got {request.items}")
    place = folder / f"data-{_digest(request)}"
    if (place / "info.json").is_file():
        return place, load_data(place)
    data = read_data(request, cache, tick)
    place.mkdir(parents=True, exist_ok=True)
    save_data(place, data)
    return place, load_data(place)


def read_data(request: Request, cache: Path, tick: Tick = lambda done, total: None) -> Data:
    """Return the data of a request, features and all."""
    if request.dataset in SAMPLES:
        sample = load_sample(request.dataset, cache)
        items = [Content(item.item_id, item.content, item.media_type) for item in sample.items]
        found: Labelled | Arrays = Labelled(sample.category, items, [item.label for item in sample.items])
    elif not Path(request.dataset).exists() and "/" not in request.dataset and "." not in request.dataset:
        known = ", ".join(sorted(SAMPLES))
        raise InvalidInputError(f"no data set {request.dataset!r}: built in are {known}; or give a file or a folder")
    else:
        found = read_file(Path(request.dataset), request.label, request.text)
    return _of_arrays(found, request) if isinstance(found, Arrays) else _of_items(found, request, tick)


def _of_items(found: Labelled, request: Request, tick: Tick) -> Data:
    kept = _some(len(found.items), request)
    items = [found.items[row] for row in kept]
    names = tuple(sorted({found.labels[row] for row in kept}))
    y = np.array([names.index(found.labels[row]) for row in kept], dtype=np.int64)
    x, encoder = encode_items(found.category, items, request.encoder, tick)
    return _split(x, y, [item.name for item in items], Info(name=_name(request), labels=names, encoder=encoder))


def _of_arrays(found: Arrays, request: Request) -> Data:
    if len(found.x) != len(found.y):
        raise InvalidInputError(f"{_name(request)} has {len(found.x)} rows of x and {len(found.y)} of y")
    kept = _some(len(found.x), request)
    every = found.y if found.test_y is None else np.concatenate([found.y, found.test_y])
    names = np.unique(every)
    info = Info(name=_name(request), labels=tuple(str(name) for name in names), encoder="")
    x, y = _floats(found.x[kept]), np.searchsorted(names, found.y[kept])
    if found.test_x is None or found.test_y is None:
        return _split(x, y, [f"row {row}" for row in kept], info)
    return Data(info, x, y, _floats(found.test_x), np.searchsorted(names, found.test_y))


def _floats(x: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(x, dtype=np.uint8 if x.dtype == np.uint8 and x.ndim == 4 else np.float32)


def _some(n: int, request: Request) -> NDArray[np.int64]:
    if request.items > n:
        raise InvalidInputError(f"{request.items} items asked for, {_name(request)} has {n}")
    return np.sort(np.random.default_rng(0).permutation(n)[: request.items or n])


def _split(x: NDArray[Any], y: NDArray[np.int64], names: list[str], info: Info) -> Data:
    in_test = np.array([is_test(name) for name in names], dtype=np.bool_)
    return Data(info, x[~in_test], y[~in_test], x[in_test], y[in_test])


def _name(request: Request) -> str:
    return Path(request.dataset).stem


def _digest(request: Request) -> str:
    path = Path(request.dataset)
    stamp = ""
    if request.dataset not in SAMPLES and path.exists():
        facts = path.stat()
        stamp = f"{path.resolve()} {facts.st_size} {facts.st_mtime_ns}"
    return hashlib.blake2b(msgspec.json.encode(request) + stamp.encode(), digest_size=6).hexdigest()
