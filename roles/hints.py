"""What the train master tells its workers: there is a batch to take in, there is a run to train.

Owns the two messages and the names of the Celery tasks that take them. A hint carries names only and may be lost or doubled at any
moment: the truth is in the datastore and the sweep hints again. Sent by roles/train, taken by roles/data and roles/train.
"""

from __future__ import annotations

from labelloop.messages import Message

INTAKE_TASK = "labelloop.data.intake"  # on queues.data_queue(master_host); its bytes are an IntakeHint
RUN_TASK = "labelloop.train.run"  # on queues.run_queue(master_host); its bytes are a RunHint


class IntakeHint(Message, frozen=True, kw_only=True):
    """The intake file `batch_id` of `task` waits to become a label-log segment."""

    task: str
    batch_id: str


class RunHint(Message, frozen=True, kw_only=True):
    """Attempt `attempt` of run `run` of `task` is to be claimed; whoever finds it claimed drops the hint."""

    task: str
    run: int
    attempt: int = 1
