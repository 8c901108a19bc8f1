"""A simulation worked by real data workers over a real broker: its curves are those of one process, whoever is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from datastore_layout.root import create_root
from datastore_layout.simulations import SimulationFolder
from labelloop.settings import Settings, TrainSettings
from learning.cycle.simulation import Cell, Data, Info, labels_done, read_curve, rounds_of, save_data, work_cell
from roles.simulate import caller, cells
from scripts.simulation.running import work_here
from tests.cluster.test_data_worker import Place, children, wait_until, worker
from tests.support_broker import running_broker

pytestmark = pytest.mark.slow


def make_data(folder: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    x = (rng.standard_normal((300, 6)) + 2 * np.eye(3, 6)[y]).astype(np.float32)
    folder.mkdir()
    save_data(folder, Data(Info(name="points", labels=("a", "b", "c"), encoder=""), x[:240], y[:240], x[240:], y[240:]))


def test_a_killed_process_of_this_machine_costs_its_round_and_no_more(tmp_path: Path) -> None:
    local, alone = tmp_path / "local", tmp_path / "alone"
    make_data(local)
    make_data(alone)
    base = Cell(strategy="margin", seed=0, algorithm="logistic-regression", batch=4, initial=4, budget=100)
    wanted = [base, msgspec.structs.replace(base, seed=1)]
    killed: list[int] = []

    def look() -> None:
        busy = [pid for pid in children(os.getpid()) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        if not killed and busy and any(labels_done(local, cell) for cell in wanted):
            killed.append(busy[0])
            os.kill(busy[0], signal.SIGKILL)

    work_here(local, wanted, 2, look)
    assert killed
    for cell in wanted:
        work_cell(alone, cell)
        assert read_curve(local, cell)[1].tolist() == read_curve(alone, cell)[1].tolist()


def test_cells_go_on_when_a_worker_is_killed_and_give_the_curves_of_one_process(tmp_path: Path) -> None:
    local, alone = tmp_path / "local", tmp_path / "alone"
    make_data(local)
    make_data(alone)
    base = Cell(strategy="margin", seed=0, algorithm="logistic-regression", batch=4, initial=4, budget=100)
    wanted = [base, msgspec.structs.replace(base, strategy="random", seed=1)]
    settings = Settings(train=TrainSettings(task_limit_s=4))
    with running_broker(tmp_path / "broker") as broker:
        place = Place(broker, tmp_path)
        root = create_root(tmp_path / "root", place.config.cluster_id)
        folder = SimulationFolder(root, caller.simulation_name(local, wanted))
        work = threading.Thread(target=caller.work_in_cluster, args=(local, wanted, place.config, settings, lambda *_: None))
        with worker(place) as first:
            work.start()
            try:
                wait_until(lambda: any(folder.rounds(cell.name) for cell in wanted), "a slice")
                wait_until(lambda: children(first.pid), "a child")
                os.killpg(first.pid, signal.SIGKILL)
                first.wait()
                seen = sum(folder.rounds(cell.name) for cell in wanted)
                assert seen < sum(map(rounds_of, wanted)), "it was killed in the middle"
                time.sleep(cells.SLICE_S / 10)
                with worker(place):
                    work.join(90)
            finally:
                assert not work.is_alive()
        place.app.close()
    assert not folder.path.exists()
    for cell in wanted:
        work_cell(alone, cell)
        for mine, theirs in zip(read_curve(local, cell), read_curve(alone, cell), strict=True):
            assert mine.tolist() == theirs.tolist()
