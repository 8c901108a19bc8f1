"""The worker's side of a simulation: one slice of one cell a task, then the rest goes to the end of the queue.

Owns the Celery task `labelloop.simulate.cell`. Must never be long: a slice ends between two rounds after a few seconds, so that a
batch of labels waits no longer than that; and must never be trusted to end: whoever begins says so first, and a cell that came no
further in several beginnings is failed with a reason. Doubled hints are harmless: equal rounds have equal bytes and the first one
wins. Added to the data worker by scripts.start_data, whose parent process imports nothing heavier for it.
"""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path

import msgspec

from datastore_layout.root import Root
from datastore_layout.simulations import SimulationFolder
from labelloop.errors import InvalidInputError, LabelloopError, RetryableError
from labelloop.messages import RoleConfig, decode
from labelloop.queues import simulate_queue
from labelloop.settings import Settings
from roles.celery_app import RoleApp, send
from roles.hints import CELL_TASK, CellHint

logger = logging.getLogger(__name__)

SLICE_S = 5.0
MOST_TRIES = 4  # a killed worker's message comes again; the fourth that dies in the same round has the fault in the round


def add_cells(app: RoleApp, config: RoleConfig, settings: Settings, root: Root) -> str:
    """Add the task to `app` and return the queue it comes from."""
    queue = simulate_queue(config.master_host)

    @app.task(name=CELL_TASK)
    def work(payload: bytes) -> None:
        try:
            hint = decode(CellHint, payload)
            if not work_slice(SimulationFolder(root, hint.simulation), hint, SLICE_S, settings.train.task_limit_s):
                send(app, CELL_TASK, hint, queue)
        except LabelloopError as exc:
            logger.warning("a cell's hint is dropped, its caller hints again: %s", exc)
        except Exception:
            logger.exception("a slice of a cell failed; its beginning is recorded and its caller hints it again")

    return queue


def work_slice(folder: SimulationFolder, hint: CellHint, slice_s: float, limit_s: float) -> bool:
    """Work the hinted cell for about `slice_s` seconds, a round at least; return whether nothing is left to do for it.

    `limit_s` is named in the reason of a cell that comes no further. Raises errors of the datastore.
    """
    from learning.cycle.simulation import Cell, rounds_of, work_cell

    try:
        cell = msgspec.json.decode(hint.cell, type=Cell)
    except msgspec.MsgspecError as exc:
        raise InvalidInputError(f"not a cell: {exc}") from exc
    if not folder.is_there():
        return True  # a doubled hint of a simulation that is over
    began, files = folder.cell(cell.name)
    if began >= rounds_of(cell) or folder.failure(cell.name) is not None:
        return True
    if not folder.begin(cell.name, began, MOST_TRIES):
        folder.fail(
            cell.name,
            f"{MOST_TRIES} workers were lost in round {began}: it needs more memory than they have, or more than {limit_s:g} s",
        )
        return True
    with tempfile.TemporaryDirectory(prefix="cell-") as place:
        for name, data in files.items():
            (Path(place) / name).write_bytes(data)
        end_s = time.monotonic() + slice_s
        rounds = 0

        def is_enough() -> bool:
            nonlocal rounds
            rounds += 1
            return rounds > 1 and time.monotonic() > end_s

        try:
            work_cell(folder.data, cell, until=is_enough, place=Path(place))
        except RetryableError:
            raise
        except LabelloopError as exc:
            folder.fail(cell.name, str(exc))
            return True
        found = {path.name: path.read_bytes() for path in sorted(Path(place).iterdir())}
    done = sum(name.startswith("round-") for name in found)
    folder.publish_cell(cell.name, done, found)
    logger.info("cell %s of %s: %d of %d rounds", cell.name, hint.simulation, done, rounds_of(cell))
    return done >= rounds_of(cell)
