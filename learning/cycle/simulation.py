"""A cycle whose labels are all known: one strategy, one seed, one curve.

Owns the data folder that cells read, and how a cell is made of a cycle. Must never choose what to simulate. Called by
scripts.simulation and roles.simulate: any process that sees the folder can work a cell, for as long as it likes, and another can
go on with it.

    info.json                       names, labels, encoder
    x.npy, y.npy                    the pool: inputs (n, d) float32, class numbers (n,) int64
    test-x.npy, test-y.npy          what each round is judged on
    cells/<name>/                   the folder of a cell's cycle (`learning.cycle.state`)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError, NotFoundError
from learning.algorithms import find_algorithm
from learning.cycle.asking import QuerySelector
from learning.cycle.cycle import Cycle, CycleSettings, Parts
from learning.cycle.savings import Curve
from learning.cycle.state import CycleFolder
from learning.cycle.training import Predictor, algorithm_trainer
from learning.metrics import accuracy

FULL = "full"  # the cell that trains once on the whole pool


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """What a data folder holds. `digest`: of the arrays, so that curves of other data are never mixed in."""

    name: str
    labels: tuple[str, ...]
    encoder: str
    digest: str = ""
    schema: int = 1


class Data(NamedTuple):
    """A pool with all its labels, and the test part."""

    info: Info
    x: NDArray[Any]
    y: NDArray[np.int64]
    test_x: NDArray[Any]
    test_y: NDArray[np.int64]


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One curve to measure; `strategy` 'full' is the score of the whole pool. See `CycleSettings` for the numbers."""

    strategy: str
    seed: int
    algorithm: str
    batch: int
    initial: int
    budget: int
    exploration: float = 0.05
    held_out_share: float = 0.0
    parameters: dict[str, Any] = {}
    schema: int = 1

    @property
    def name(self) -> str:
        """The name of the cell's folder: the same settings, the same name."""
        digest = hashlib.blake2b(msgspec.json.encode(self, order="sorted"), digest_size=5).hexdigest()
        return f"{self.strategy}-{self.seed}-{digest}"


def save_data(folder: Path, data: Data) -> Info:
    """Write `data` into an existing folder and return its info with the digest. Raises InvalidInputError naming what is wrong."""
    check_data(data)
    arrays = {"x": data.x, "y": data.y, "test-x": data.test_x, "test-y": data.test_y}
    digest = hashlib.blake2b(digest_size=12)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
        digest.update(np.ascontiguousarray(array).data)
    info = msgspec.structs.replace(data.info, digest=digest.hexdigest())
    (folder / "info.json").write_bytes(msgspec.json.format(msgspec.json.encode(info), indent=1))
    return info


def load_data(folder: Path) -> Data:
    """Return the data in `folder`, memory-mapped. Raises NotFoundError when there is none."""
    try:
        info = msgspec.json.decode((folder / "info.json").read_bytes(), type=Info)
        x, y, test_x, test_y = (
            np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("x", "y", "test-x", "test-y")
        )
    except FileNotFoundError as exc:
        raise NotFoundError(f"{folder} holds no data of a simulation: {exc.filename} is missing") from exc
    return Data(info, x, np.asarray(y), test_x, np.asarray(test_y))


def check_data(data: Data) -> None:
    """Raise InvalidInputError naming what a simulation cannot use: one class, NaN or infinite values, no items or no test part."""
    for what, x, y in (("pool", data.x, data.y), ("test part", data.test_x, data.test_y)):
        if not len(x) or len(x) != len(y):
            raise InvalidInputError(f"the {what} of {data.info.name} has {len(x)} items and {len(y)} labels: give more items")
        rows = x.reshape(len(x), -1)
        if x.dtype.kind == "f" and (bad := np.isinf(rows).any(axis=1) | np.isnan(rows).any(axis=1)).any():
            raise InvalidInputError(
                f"item {int(bad.argmax())} of the {what} of {data.info.name} holds NaN or infinite values: fill them"
            )
    if len(np.unique(data.y)) < 2:
        raise InvalidInputError(f"all items of the pool of {data.info.name} have one label: there is nothing to learn")


def work_cell(
    folder: Path,
    cell: Cell,
    until: Callable[[], bool] = lambda: False,
    tick: Callable[[int], None] = lambda labels: None,
    place: Path | None = None,
) -> bool:
    """Work `cell` on the data in `folder` until it is over (True) or `until()` says stop between two rounds (False).

    Idempotent: what is done is kept, what is there is not done again. `tick(labels)` is called after each round. `place`: the
    cell's own folder, None = where `read_curve` looks for it.
    """
    data = load_data(folder)
    place = place or cell_folder(folder, cell)
    if cell.strategy == FULL:
        return _work_full(data, cell, place)
    cycle = make_cycle(data, cell, place)

    def is_enough() -> bool:
        tick(cycle.rounds[-1].labels if cycle.rounds else 0)
        return until()

    is_done = cycle.run(is_enough)
    tick(cycle.rounds[-1].labels if cycle.rounds else 0)
    return is_done


def make_cycle(data: Data, cell: Cell, place: Path) -> Cycle:
    """Return the cycle of a cell, whose oracle and judge know the truth. Raises InvalidInputError on settings that cannot run."""
    find_algorithm(cell.algorithm)
    trainer = algorithm_trainer(data.x, cell.algorithm, cell.parameters)
    settings = CycleSettings(
        n_labels=len(data.info.labels),
        batch=cell.batch,
        initial=cell.initial,
        budget=cell.budget,
        held_out_share=cell.held_out_share,
        seed=cell.seed,
        name=f"{data.info.name} {data.info.digest} {cell.name}",
    )
    parts = Parts(trainer, QuerySelector(cell.strategy, cell.exploration))

    def judge(model: Predictor) -> float:
        return accuracy(data.test_y, model.predict_proba(data.test_x))

    return Cycle(parts, lambda rows: data.y[rows], settings, place, judge)


def cell_folder(folder: Path, cell: Cell) -> Path:
    """Return where a cell on the data in `folder` keeps its cycle."""
    return folder / "cells" / cell.name


def rounds_of(cell: Cell) -> int:
    """Return how many rounds a cell has in all."""
    return 1 if cell.strategy == FULL else 1 - (cell.initial - cell.budget) // cell.batch


def read_curve(folder: Path, cell: Cell) -> Curve:
    """Return (labels, scores) of what a cell has measured so far."""
    rounds = CycleFolder(cell_folder(folder, cell)).rounds()
    return np.array([one.labels for one in rounds], dtype=np.int64), np.array([one.score or 0.0 for one in rounds])


def labels_done(folder: Path, cell: Cell) -> int:
    """Return how many labels a cell has given so far."""
    labels, _ = read_curve(folder, cell)
    return int(labels[-1]) if len(labels) else 0


def _work_full(data: Data, cell: Cell, place: Path) -> bool:
    """Measure the score of the whole pool as a cycle of one round."""
    whole = msgspec.structs.replace(cell, strategy="random", initial=len(data.x), batch=1, budget=0, held_out_share=0.0)
    cycle = make_cycle(data, whole, place)
    return cycle.run()
