"""train_rpc: what a labelling platform's backend may ask of the train master.

Owns the eight handlers of `labelloop.methods.TRAIN`. Must never train, wait for a broker or rescan a task: answers come from the
memory that the sweep keeps. Called by the wire's threads; each handler is a shell around one function.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from datastore_layout.models import current
from datastore_layout.runs import finish, read_finish, request_cancel
from labelloop.errors import InvalidInputError
from labelloop.ids import parse_token
from labelloop.messages import (
    CancelRequest,
    Message,
    ModelsReply,
    PointerReply,
    ProgressReply,
    ProgressRequest,
    PromoteRequest,
    RunLogReply,
    RunLogRequest,
    RunView,
    SubmitReply,
    SubmitRequest,
    TaskRequest,
    TrainReply,
    TrainRequest,
)
from labelloop.tls import Peer
from roles.train.hinter import Hinter
from roles.train.launch import launch
from roles.train.publishing import promote, rollback
from roles.train.tasks import Tasks
from roles.train.validation import MAX_BATCH_SAMPLES

MOST_LOG_LINES = 10_000


class TrainService:
    """See the module. `wake` makes the sweep look at once."""

    def __init__(self, tasks: Tasks, hinter: Hinter, wake: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._tasks = tasks
        self._hinter = hinter
        self._wake = wake
        self._clock = clock

    def handlers(self) -> Mapping[str, Callable[..., Message]]:
        """Return the handler of each method."""
        return {
            "submit": self.submit,
            "train": self.train,
            "progress": self.progress,
            "cancel": self.cancel,
            "models": self.models,
            "run_log": self.run_log,
            "promote": self.promote,
            "rollback": self.rollback,
        }

    def submit(self, request: SubmitRequest, peer: Peer) -> SubmitReply:
        """Take a batch in; when this answers, it is durable.

        Raises NotFoundError (unknown task), InvalidInputError (batch id, size), ConflictError (batch id used before with other
        samples), StorageFullError, NotReadyError.
        """
        parse_token(request.batch_id, "batch id")
        if len(request.samples) > MAX_BATCH_SAMPLES:
            raise InvalidInputError(
                f"{len(request.samples)} samples in one batch, at most {MAX_BATCH_SAMPLES} are taken: send several"
            )
        followed = self._tasks.get(request.task)
        reply, is_new = followed.state.submit(request, self._clock())
        if is_new:
            self._hinter.intake(request.task, request.batch_id)
            followed.is_awake = True
        return reply

    def progress(self, request: ProgressRequest, peer: Peer) -> ProgressReply:
        """Say where labels, policy and training are."""
        state = self._tasks.get(request.task).state
        view = state.view
        return ProgressReply(
            task=request.task,
            states=tuple(state.state_of(key) for key in request.items),
            labels=state.tally.labels + state.tally.weak_labels,
            weak_labels=state.tally.weak_labels,
            waiting_batches=len(state.waiting),
            labels_to_next=view.labels_to_next,
            next_training=view.next_training,
            stop=view.stop,
            comparer=view.comparer,
            agreement=view.agreement,
            serving=view.pointer.version if view.pointer else "",
            pointer=view.pointer.number if view.pointer else 0,
            run=view.run,
        )

    def train(self, request: TrainRequest, peer: Peer) -> TrainReply:
        """Start a training now, whatever the policy says.

        Raises BusyError while a run is live, NotReadyError while labels do not suffice, InvalidInputError, NotFoundError.
        """
        followed = self._tasks.get(request.task)
        followed.state.reload_spec()
        watch = launch(followed.state, request.reason, self._clock(), request.algorithm, request.encoder, dict(request.parameters))
        followed.is_awake = True
        self._wake()
        return TrainReply(run=watch.run, reason=request.reason)

    def cancel(self, request: CancelRequest, peer: Peer) -> RunView:
        """Cancel a run: it never publishes, and whoever trains it kills the process. A run that has ended stays as it is."""
        followed = self._tasks.get(request.task)
        folder = followed.state.folder
        if read_finish(folder, request.run) is None:
            request_cancel(folder, request.run, request.reason)
            finish(folder, request.run, "cancelled", request.reason)
        followed.is_awake = True
        self._wake()
        return followed.views.run(request.run)

    def models(self, request: TaskRequest, peer: Peer) -> ModelsReply:
        """List versions and runs."""
        return self._tasks.get(request.task).views.models()

    def run_log(self, request: RunLogRequest, peer: Peer) -> RunLogReply:
        """Return the end of a run's log. Raises NotFoundError (no such run), InvalidInputError (lines)."""
        if not 1 <= request.lines <= MOST_LOG_LINES:
            raise InvalidInputError(f"lines is {request.lines}: use 1 to {MOST_LOG_LINES}")
        return self._tasks.get(request.task).views.log(request.run, request.lines)

    def promote(self, request: PromoteRequest, peer: Peer) -> PointerReply:
        """Serve a version from now on, whatever the gate said."""
        followed = self._tasks.get(request.task)
        pointer = current(followed.state.folder)
        if pointer is not None and pointer.version == request.version:
            return PointerReply(version=pointer.version, pointer=pointer.number, reason="it serves already")
        moved = promote(followed.state.folder, request.version, request.reason)
        followed.is_awake = True
        self._wake()
        return PointerReply(version=moved.version, pointer=moved.number, reason=moved.reason)

    def rollback(self, request: TaskRequest, peer: Peer) -> PointerReply:
        """Serve the version that served before. Raises ConflictError when there is none."""
        followed = self._tasks.get(request.task)
        moved = rollback(followed.state.folder)
        followed.is_awake = True
        self._wake()
        return PointerReply(version=moved.version, pointer=moved.number, reason=moved.reason)
