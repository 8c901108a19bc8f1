"""Works the cells of a simulation on this machine, several at a time, and shows how far they are.

Owns the processes. Must never lose a finished round: a cell is a folder that any process can go on with, so a worker that is killed
costs its last round and Ctrl-C costs nothing. Called by `scripts.simulation.command`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple, cast

from labelloop.errors import InternalError
from learning.cycle.simulation import Cell, labels_done, work_cell

LOOK_S = 0.5
_MOST_LOSSES = 5  # workers killed in a row before the fault is ours
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Look = Callable[[], None]


class _LostError(Exception):
    """A worker died in its cell."""


class _Worker(NamedTuple):
    """A process with a pipe of its own: workers share no lock, which one that is killed would take with it."""

    process: BaseProcess
    pipe: Connection


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
            _work_beside(folder, left, min(jobs, len(left)), look)
            return
        except _LostError as exc:
            left = [cell for cell in left if not _is_over(folder, cell)]
            losses = losses + 1 if sum(labels_done(folder, cell) for cell in left) == n_before else 1
            if losses >= _MOST_LOSSES:
                raise InternalError(f"{losses} workers in a row were killed: is there memory for {jobs} at a time?") from exc


def _work_beside(folder: Path, cells: Sequence[Cell], jobs: int, look: Look) -> None:
    workers = [_start(folder) for _ in range(jobs)]
    waiting = list(cells)
    busy: dict[Connection, _Worker] = {}
    try:
        for worker in workers:
            _give(worker, waiting.pop(0))
            busy[worker.pipe] = worker
        while busy:
            for pipe in cast(list[Connection], connection.wait(list(busy), LOOK_S)):
                worker = busy.pop(pipe)
                _take(worker)
                if waiting:
                    _give(worker, waiting.pop(0))
                    busy[worker.pipe] = worker
            look()
    finally:
        for worker in workers:  # whoever is in a cell sees it between two rounds
            with contextlib.suppress(OSError):
                worker.pipe.send(None)
        for worker in workers:
            worker.process.join()
            worker.pipe.close()


def _start(folder: Path) -> _Worker:
    context = multiprocessing.get_context("spawn")  # a fork of a process that has threads may hang
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(folder, theirs))
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _give(worker: _Worker, cell: Cell) -> None:
    try:
        worker.pipe.send(cell)
    except OSError as exc:
        raise _LostError from exc


def _take(worker: _Worker) -> None:
    """Take a worker's answer. Raises what its cell raised, _LostError when it is dead."""
    try:
        failure = worker.pipe.recv()
    except (EOFError, OSError) as exc:
        raise _LostError from exc
    if failure is not None:
        raise failure


def _serve(folder: Path, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        while (cell := pipe.recv()) is not None:
            failure: Exception | None = None
            try:
                work_cell(folder, cell, until=pipe.poll)
            except Exception as exc:  # the parent raises it
                failure = exc
            pipe.send(failure)


def _is_over(folder: Path, cell: Cell) -> bool:
    return labels_done(folder, cell) >= cell.budget
