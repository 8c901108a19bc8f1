"""What becomes of inference orders that the broker gave up delivering: asked for again, or answered as failed.

An order that ended its workers too often for the broker has marked its attempts in the job, so the next one goes on where it ended
and corners the item. One that ends its worker before any attempt is marked cannot be cornered: after `MOST_LETTERS` such letters
its chunk is answered as failed, so that no job is open for ever. Called by `service` on the dead-letter thread.
"""

from __future__ import annotations

import logging

from datastore_layout.job_progress import JobDesk
from datastore_layout.root import Root, task_folder
from labelloop.errors import InternalError, NotFoundError
from labelloop.messages import decode
from roles.celery_app import RoleApp
from roles.dead_letters import DeadLetter
from roles.inference.calls import CHUNKS, ChunkWork, Reply, Work, failed_chunk
from roles.inference.mailbox import post

logger = logging.getLogger(__name__)

MOST_LETTERS = 2


def take_letter(app: RoleApp, root: Root, letter: DeadLetter) -> None:
    """Record what the letter says and tell whoever waits for the order, on whichever node that is.

    Raises RetryableError while the datastore is not there.
    """
    if letter.task_name == CHUNKS:
        order = decode(ChunkWork, letter.payload)
        record(root, order)
        _tell(app, order, letter)
    else:
        _tell(app, decode(Work, letter.payload), letter)


def _tell(app: RoleApp, work: Work, letter: DeadLetter) -> None:
    post(app, work.reply_to, Reply(call=work.call, kind="lost", reason=f"the broker gave it up: {letter.reason}"))


def record(root: Root, order: ChunkWork) -> None:
    """Count a letter against the first chunk of the order that has no answer, and answer it as failed when that is too many."""
    try:
        desk = JobDesk(task_folder(root, order.task), order.job_id)
    except NotFoundError:
        logger.info("job %s of task %s is gone, nobody waits for it", order.job_id, order.task)
        return
    part = next((part for part in order.parts if not desk.is_done(part.chunk)), None)
    if part is None or desk.attempts_of(str(part.chunk)):
        return
    n = desk.record_attempt(f"{part.chunk}.dead")
    reason = f"chunk {part.chunk} of job {order.job_id} ended its workers before it began, and the broker gave it up {n} times"
    logger.error("%s", reason)
    if n >= MOST_LETTERS:
        desk.write_result(failed_chunk(order, part, InternalError(reason)))
