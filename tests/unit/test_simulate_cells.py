"""Cells of a simulation over a cluster: slices, doubled hints, lost workers, a round that kills, and the caller's patience."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from datastore_layout.root import create_root, list_tasks
from datastore_layout.simulations import SimulationFolder
from labelloop.errors import InternalError, InvalidInputError, NotFoundError, NoWorkerError
from learning.cycle.simulation import FULL, Cell, Data, Info, cell_folder, read_curve, rounds_of, save_data, work_cell
from roles.hints import CellHint
from roles.simulate.caller import _DATA, fetch_cells, read_config, simulation_name, wait_for_cells
from roles.simulate.cells import MOST_TRIES, work_slice

CELL = Cell(strategy="margin", seed=0, algorithm="logistic-regression", batch=7, initial=10, budget=40)
WHOLE = msgspec.structs.replace(CELL, strategy=FULL)


def make(tmp_path: Path, cells: Sequence[Cell] = (CELL,)) -> tuple[Path, SimulationFolder]:
    """Return a local data folder and the same simulation in a datastore."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = (rng.standard_normal((90, 4)) + 2 * np.eye(3, 4)[y]).astype(np.float32)
    local = tmp_path / "local"
    local.mkdir()
    save_data(local, Data(Info(name="points", labels=("a", "b", "c"), encoder=""), x[:60], y[:60], x[60:], y[60:]))
    folder = SimulationFolder(create_root(tmp_path / "root", "c1"), simulation_name(local, cells))
    folder.publish_data({name: local / name for name in _DATA})
    return local, folder


def hint(folder: SimulationFolder, cell: Cell = CELL) -> CellHint:
    return CellHint(simulation=folder.path.name, cell=msgspec.json.encode(cell))


def test_slices_of_a_cell_give_the_bytes_of_one_long_cell(tmp_path: Path) -> None:
    local, folder = make(tmp_path, (CELL, WHOLE))
    assert rounds_of(CELL) == 6 and rounds_of(WHOLE) == 1
    turns = 1
    while not work_slice(folder, hint(folder), 0.0, 60):
        turns += 1
        assert folder.rounds(CELL.name) == turns - 1
    assert turns == 6, "one round a slice"
    assert work_slice(folder, hint(folder, WHOLE), 0.0, 60)
    fetch_cells(folder, local, (CELL, WHOLE))
    work_cell(local, CELL, place=tmp_path / "whole")
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (cell_folder(local, CELL) / path.name).read_bytes()
    assert read_curve(local, CELL)[0].tolist() == [10, 17, 24, 31, 38, 40]
    assert read_curve(local, WHOLE)[0].tolist() == [60]


def test_a_doubled_hint_does_no_harm_and_a_finished_cell_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = make(tmp_path)
    work_slice(folder, hint(folder), 0.0, 60)
    first = folder.cell(CELL.name)
    assert not folder.publish_cell(CELL.name, 1, {"round-00000.json": b"another worker's"})
    assert folder.cell(CELL.name) == first
    while not work_slice(folder, hint(folder), 9.0, 60):
        pass
    monkeypatch.setattr("learning.cycle.simulation.work_cell", lambda *_, **__: pytest.fail("worked again"))
    assert work_slice(folder, hint(folder), 0.0, 60)


def test_a_round_that_kills_its_workers_fails_its_cell_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = make(tmp_path)
    work_slice(folder, hint(folder), 0.0, 60)

    class KilledError(BaseException):
        """Stands for the kernel: nothing after it runs."""

    def kill(*_: object, **__: object) -> bool:
        raise KilledError

    monkeypatch.setattr("learning.cycle.simulation.work_cell", kill)
    for _ in range(MOST_TRIES):
        with pytest.raises(KilledError):
            work_slice(folder, hint(folder), 0.0, 60)
    assert work_slice(folder, hint(folder), 0.0, 60), "nothing is left to do for it"
    assert "4 workers were lost in round 1" in str(folder.failure(CELL.name))
    with pytest.raises(InternalError, match="margin with seed 0 failed: 4 workers were lost"):
        wait_for_cells(folder, [CELL], lambda _: None, 60.0, sleep=lambda _: None)


def test_a_cell_that_cannot_run_is_failed_by_the_sentence_of_its_error(tmp_path: Path) -> None:
    _, folder = make(tmp_path)
    broken = msgspec.structs.replace(CELL, algorithm="guess")
    assert work_slice(folder, hint(folder, broken), 0.0, 60)
    assert "algorithm 'guess' is unknown" in str(folder.failure(broken.name))
    with pytest.raises(InvalidInputError, match="not a cell"):
        work_slice(folder, CellHint(simulation="s", cell=b"{}"), 0.0, 60)


class Clock:
    """A clock that each sleep moves on, and workers that work while the caller sleeps."""

    def __init__(self, folder: SimulationFolder, is_working: bool) -> None:
        self.now_s = 0.0
        self.hints: list[Cell] = []
        self.folder, self.is_working = folder, is_working

    def sleep(self, seconds: float) -> None:
        self.now_s += 10
        if self.is_working and self.hints:
            work_slice(self.folder, hint(self.folder, self.hints[-1]), 0.0, 60)

    def wait(self, cells: Sequence[Cell]) -> None:
        wait_for_cells(self.folder, cells, self.hints.append, 60.0, sleep=self.sleep, clock=lambda: self.now_s)


def test_the_caller_hints_again_only_when_nothing_moves_and_gives_up_with_a_reason(tmp_path: Path) -> None:
    _, folder = make(tmp_path)
    working = Clock(folder, is_working=True)
    working.wait([CELL])
    assert working.hints == [CELL], "a cell that moves is not hinted again"
    again = Clock(folder, is_working=True)
    again.wait([CELL])
    assert again.hints == [], "what is over is not hinted at all"
    other = msgspec.structs.replace(CELL, seed=1)
    idle = Clock(folder, is_working=False)
    with pytest.raises(NoWorkerError, match="no cell came further for 180 s: is a data worker online"):
        idle.wait([CELL, other])
    assert [cell.seed for cell in idle.hints] == [1, 1, 1, 1], "at once, and each minute until it gives up"


def test_a_simulation_is_no_task_and_leaves_nothing(tmp_path: Path) -> None:
    _, folder = make(tmp_path)
    root = create_root(tmp_path / "root", "c1")
    assert list_tasks(root) == ()
    before = (folder.data / "x.npy").stat().st_ino
    folder.publish_data({})
    assert (folder.data / "x.npy").stat().st_ino == before, "published once"
    folder.remove()
    assert work_slice(folder, hint(folder), 0.0, 60), "a hint that comes late finds nothing to do"
    assert not folder.path.exists()
    with pytest.raises(NotFoundError, match=r"roles/data-worker\.json"):
        read_config(tmp_path / "none.json")
