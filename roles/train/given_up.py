"""What becomes of hints that the broker gave up delivering: hinted again, or the batch is answered as failed.

A batch that ended its workers has marked its attempts, so the next hint goes on where they ended and corners the sample. One that
ends its worker before any attempt is marked cannot be cornered: after `MOST_LETTERS` such letters each of its samples becomes a
failed row of the label log, so that nobody waits for it for ever. Called by the train_rpc process on the dead-letter thread.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from datastore_layout.intake_files import read_intake
from datastore_layout.intake_progress import BatchProgress
from datastore_layout.labels import LabelRow, write_segment
from datastore_layout.root import TaskFolder
from labelloop.errors import InternalError, NotFoundError
from labelloop.messages import decode
from roles.dead_letters import DeadLetter
from roles.hints import INTAKE_TASK, IntakeHint
from roles.train.tasks import Tasks

logger = logging.getLogger(__name__)

MOST_LETTERS = 2


class GivenUp:
    """Takes the letters of one train master; `wake` makes its sweep look at once."""

    def __init__(self, tasks: Tasks, wake: Callable[[], None]) -> None:
        self._tasks, self._wake = tasks, wake
        self._letters: Counter[tuple[str, str]] = Counter()

    def take(self, letter: DeadLetter) -> None:
        """Record what the letter says. Raises RetryableError while the datastore is not there."""
        if letter.task_name != INTAKE_TASK:
            logger.warning("a hint of a run or of a simulated cell was given up; who sent it hints again")
            return
        hint = decode(IntakeHint, letter.payload)
        followed = self._tasks.get(hint.task)
        if not self._is_begun(followed.state.folder, hint.batch_id):
            self._count(followed.state.folder, hint)
        followed.state.hint_again(hint.batch_id)
        followed.is_awake = True
        self._wake()

    def _is_begun(self, folder: TaskFolder, batch: str) -> bool:
        return BatchProgress(folder, batch).is_begun

    def _count(self, folder: TaskFolder, hint: IntakeHint) -> None:
        key = (hint.task, hint.batch_id)
        self._letters[key] += 1
        reason = f"batch {hint.batch_id} ended its workers before it began, and the broker gave it up {self._letters[key]} times"
        logger.error("%s", reason)
        if self._letters[key] >= MOST_LETTERS:
            fail_batch(folder, hint.batch_id, reason)
            del self._letters[key]


def fail_batch(folder: TaskFolder, batch: str, reason: str) -> bool:
    """Answer each sample of a batch as failed; False when the batch is in the label log already, or gone."""
    try:
        request = read_intake(folder, batch)
    except NotFoundError:
        return False
    rows = [
        LabelRow(
            item_id=sample.item_id,
            revision=sample.revision,
            link=sample.link,
            labels=sample.labels,
            is_deleted=sample.is_deleted,
            annotator=sample.annotator,
            draft=sample.draft,
            shard="",
            row=-1,
            error_code="" if sample.is_deleted else InternalError.code,
            error_reason="" if sample.is_deleted else reason,
        )
        for sample in request.samples
    ]
    return write_segment(folder, batch, rows)
