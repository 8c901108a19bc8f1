"""The caller's side of a simulation: data into the datastore, hints for the cells, results out of it.

Owns nothing but the patience: workers hand a cell on by themselves, and only one that came no further for longer than a task may
last is hinted again. Must never keep state: the same simulation called again goes on from the datastore. Called by
scripts.simulation on a train node, where broker and datastore are at hand.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from datastore_layout.root import open_root
from datastore_layout.simulations import SimulationFolder
from labelloop.errors import InternalError, NotFoundError, NoWorkerError
from labelloop.messages import RoleConfig
from labelloop.queues import simulate_queue
from labelloop.settings import Settings
from learning.cycle.simulation import Cell, cell_folder, load_data, rounds_of
from roles.celery_app import make_app, send
from roles.hints import CELL_TASK, CellHint

LOOK_S = 0.5
GIVE_UP_S = 180.0  # without a round of any cell
_DATA = ("info.json", "x.npy", "y.npy", "test-x.npy", "test-y.npy")
Look = Callable[[int, int], None]


def read_config(path: Path) -> RoleConfig:
    """Return the role's configuration that the manager of a train node wrote. Raises NotFoundError with the way out."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=RoleConfig)
    except (OSError, msgspec.MsgspecError) as exc:
        raise NotFoundError(
            f"{path} is no configuration of a role: give roles/data-worker.json of a train node's state folder ({exc})"
        ) from exc


def simulation_name(folder: Path, cells: Sequence[Cell]) -> str:
    """Return the name of a simulation: the same data and cells, the same name."""
    info = load_data(folder).info
    digest = hashlib.blake2b(digest_size=6)
    for word in (info.digest, *(cell.name for cell in cells)):
        digest.update(word.encode())
    return f"simulation-{digest.hexdigest()}"


def work_in_cluster(folder: Path, cells: Sequence[Cell], config: RoleConfig, settings: Settings, look: Look) -> None:
    """Work all `cells` on the data in `folder` by the cluster of `config`, and bring the results to where `read_curve` finds them.

    `look(rounds over, rounds in all)` is called a few times a second. Raises NoWorkerError when no cell comes further for
    `GIVE_UP_S`, InternalError naming a cell that failed, UnreachableError without a broker.
    """
    root = open_root(Path(config.datastore_root), config.cluster_id)
    name = simulation_name(folder, cells)
    place = SimulationFolder(root, name)
    place.publish_data({file: folder / file for file in _DATA})
    app = make_app(config, settings, "simulate")
    queue = simulate_queue(config.master_host)

    def hint(cell: Cell) -> None:
        send(app, CELL_TASK, CellHint(simulation=name, cell=msgspec.json.encode(cell)), queue)

    try:
        wait_for_cells(place, cells, hint, settings.train.task_limit_s + LOOK_S, look)
    finally:
        app.close()
    fetch_cells(place, folder, cells)
    place.remove()


def wait_for_cells(
    place: SimulationFolder,
    cells: Sequence[Cell],
    hint: Callable[[Cell], None],
    patience_s: float,
    look: Look = lambda done, total: None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Hint all `cells` and wait until each is over; hint what is left again when none came further for `patience_s`."""
    total = sum(map(rounds_of, cells))
    seen = {cell.name: place.rounds(cell.name) for cell in cells}
    left = [cell for cell in cells if seen[cell.name] < rounds_of(cell)]
    moved_s = clock()
    hinted_s = float("-inf")
    while left:
        if clock() - max(moved_s, hinted_s) >= patience_s or hinted_s < 0:
            for cell in left:  # while any cell moves, the others wait for their turn in the queue
                hint(cell)
            hinted_s = clock()
        sleep(LOOK_S)
        for cell in left:
            if (reason := place.failure(cell.name)) is not None:
                raise InternalError(f"{cell.strategy} with seed {cell.seed} failed: {reason}")
            if (rounds := place.rounds(cell.name)) > seen[cell.name]:
                seen[cell.name], moved_s = rounds, clock()
        look(sum(seen.values()), total)
        left = [cell for cell in left if seen[cell.name] < rounds_of(cell)]
        if left and clock() - moved_s > GIVE_UP_S:
            raise NoWorkerError(f"no cell came further for {GIVE_UP_S:.0f} s: is a data worker online on a train node?")


def fetch_cells(place: SimulationFolder, folder: Path, cells: Sequence[Cell]) -> None:
    """Copy the files of finished `cells` to where `read_curve` finds them."""
    for cell in cells:
        target = cell_folder(folder, cell)
        target.mkdir(parents=True, exist_ok=True)
        _, files = place.cell(cell.name)
        for name in sorted(files):  # a round's end comes after what it names
            (target / name).write_bytes(files[name])
