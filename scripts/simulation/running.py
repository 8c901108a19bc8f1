"""Works the cells of a simulation on this machine, several at a time, and shows how far they are.

Owns the processes. Must never lose a finished round: a cell is a folder that any process can go on with, so a worker that is killed
costs its last round and Ctrl-C costs nothing. Called by `scripts.simulation.command`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from pathlib import Path

from labelloop.errors import InternalError
from learning.cycle.simulation import Cell, labels_done, work_cell

LOOK_S = 0.5
_MOST_LOSSES = 5  # workers killed in a row before the fault is ours
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Look = Callable[[], None]
_stop: Event | None = None


def work_here(folder: Path, cells: Sequence[Cell], jobs: int, look: Look = lambda: None) -> None:
    """Work all `cells` on the data in `folder` with `jobs` processes; `look` is called a few times a second.

    jobs 1 works in this process. KeyboardInterrupt leaves after the rounds in progress. Raises what a cell raises, InternalError
    when workers keep being killed.
    """
    if jobs == 1:
        for cell in cells:
            work_cell(folder, cell, tick=lambda labels: look())
        return
    for variable in _THREADS:
        os.environ.setdefault(variable, "1")  # children inherit it before their numpy reads it
    left, losses = list(cells), 0
    while left:
        n_before = sum(labels_done(folder, cell) for cell in left)
        try:
            _work_in_pool(folder, left, jobs, look)
            return
        except BrokenProcessPool as exc:
            left = [cell for cell in left if not _is_over(folder, cell)]
            losses = losses + 1 if sum(labels_done(folder, cell) for cell in left) == n_before else 1
            if losses >= _MOST_LOSSES:
                raise InternalError(f"{losses} workers in a row were killed: is there memory for {jobs} at a time?") from exc


def _work_in_pool(folder: Path, cells: Sequence[Cell], jobs: int, look: Look) -> None:
    context = multiprocessing.get_context("spawn")  # a fork of a process that has threads may hang
    stop = context.Event()
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(stop,)) as pool:
        waiting: set[Future[bool]] = {pool.submit(_work, folder, cell) for cell in cells}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=LOOK_S, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                look()
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _begin(stop: Event) -> None:
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides


def _work(folder: Path, cell: Cell) -> bool:
    stop = _stop
    return work_cell(folder, cell, until=lambda: stop is not None and stop.is_set())


def _is_over(folder: Path, cell: Cell) -> bool:
    return labels_done(folder, cell) >= cell.budget
