"""What the train master tells its workers: there is a batch to take in, there is a run to train; and a run's owner: take a rank;
and a simulation: work a cell.

Owns the messages and the names of the Celery tasks that take them. A hint carries names only and may be lost or doubled at any
moment: the truth is in the datastore and the sweep hints again. Sent by roles/train, taken by roles/data and roles/train; those
of cells are sent and taken by roles/simulate.
"""

from __future__ import annotations

from labelloop.messages import Message

INTAKE_TASK = "labelloop.data.intake"  # on queues.data_queue(master_host); its bytes are an IntakeHint
RUN_TASK = "labelloop.train.run"  # on queues.run_queue(master_host), passed on over rank queues; its bytes are a RunHint
RANK_TASK = "labelloop.train.rank"  # on queues.rank_queue(node); its bytes are a RankHint

CELL_TASK = "labelloop.simulate.cell"  # on queues.simulate_queue(master_host); its bytes are a CellHint


class IntakeHint(Message, frozen=True, kw_only=True):
    """The intake file `batch_id` of `task` waits to become a label-log segment.

    Samples `start` to `stop` of it are one worker's part; `stop` 0 = all of it, which a large batch's taker cuts into parts.
    """

    task: str
    batch_id: str
    start: int = 0
    stop: int = 0


class RunHint(Message, frozen=True, kw_only=True):
    """Attempt `attempt` of run `run` of `task` is to be claimed; whoever finds it claimed drops the hint.

    `passed` names the nodes that had no room for it and passed it on.
    """

    task: str
    run: int
    attempt: int = 1
    passed: tuple[str, ...] = ()


class RankHint(Message, frozen=True, kw_only=True):
    """The owner of an attempt asks a node to take a rank; the attempt's store is at `host`:`port`, `secret` signs its entries.

    Nodes that find the attempt superseded or over drop the hint; one that is lost is sent again by the owner.
    """

    task: str
    run: int
    attempt: int
    host: str
    port: int
    secret: str

    def __repr__(self) -> str:
        return f"RankHint(task={self.task!r}, run={self.run}, attempt={self.attempt}, host={self.host!r}, port={self.port})"


class CellHint(Message, frozen=True, kw_only=True):
    """A cell of `simulation` in the datastore has rounds left; `cell` is JSON of a `learning.cycle.simulation.Cell`."""

    simulation: str
    cell: bytes
