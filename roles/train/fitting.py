"""One attempt's way from the first step to the chosen checkpoint.

Owns stepping, checkpoints, the loss curve and the choice of the model. Must never publish. Called by an attempt. Which steps
are recorded and judged depends on the number of steps alone, so a resumed attempt chooses among the same candidates.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from datastore_layout.runs import Attempt, Checkpoint, list_checkpoints, read_run_metrics
from labelloop.decoding import decode_json
from labelloop.errors import IntegrityError, NotFoundError
from learning.algorithms import Model, Training
from roles.train.evaluation import judge_model
from roles.train.owner import SpreadError
from roles.train.samples import Part
from roles.train.selector import Candidate, best_checkpoint
from roles.train.views import STEPS

JUDGED = "judged"
POINTS = 100
CANDIDATES = 10
CHECK_S = 1.0  # between two looks whether a higher attempt exists


class Stepper(Protocol):
    """Who takes the steps of `training`: this process alone, or with others (`owner.Owner`)."""

    training: Training

    def advance(self, holds: bool = False) -> float: ...
    def release(self) -> None: ...
    def record(self) -> None: ...
    def close(self) -> None: ...


class Alone:
    """Takes the steps in this process and keeps no record."""

    def __init__(self, training: Training) -> None:
        self.training = training

    def advance(self, holds: bool = False) -> float:
        """Do one step and return its loss."""
        return self.training.advance()

    def release(self) -> None:
        """Nobody waits."""

    def record(self) -> None:
        """There is nobody else to tell of."""

    def close(self) -> None:
        """There is nobody to part from."""


class Fitting:
    """Drives one training by its stepper. `stop` raises when the attempt must end (a higher attempt, a cancellation)."""

    def __init__(self, stepper: Stepper, attempt: Attempt, held_out: Part, checkpoint_s: float, stop: Callable[[], None]) -> None:
        self.training = stepper.training
        self._stepper = stepper
        self._attempt = attempt
        self._held_out = held_out
        self._checkpoint_s = checkpoint_s
        self._stop = stop
        self.loss: float | None = None
        self._candidates: dict[int, Candidate] = {}
        self._saved_s = self._checked_s = time.monotonic()

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of this run, with the candidates that were judged up to it."""
        self.training.restore({name: data for name, data in checkpoint.files().items() if name != JUDGED})
        points = read_run_metrics(self._attempt.folder, self._attempt.run)
        self.loss = {point.step: point.loss for point in points}.get(checkpoint.step)
        for earlier in list_checkpoints(self._attempt.folder, self._attempt.run):
            if earlier.step <= checkpoint.step and earlier.step not in self._candidates:
                self._recall(earlier)

    def _recall(self, checkpoint: Checkpoint) -> None:
        try:
            judged = checkpoint.files().get(JUDGED)
        except (NotFoundError, IntegrityError):  # pruned or damaged: one candidate less
            return
        if judged is not None:
            self._candidates[checkpoint.step] = decode_json(Candidate, judged)

    def run(self) -> tuple[Model, str]:
        """Do the steps that are left; return the chosen model and why it is that one."""
        training = self.training
        record_every = max(1, training.steps // POINTS)
        judge_every = max(1, -(-training.steps // CANDIDATES))
        while training.step < training.steps:
            is_last = training.step + 1 >= training.steps
            is_judged = is_last or (training.step + 1) % judge_every == 0
            is_saved = (is_judged and training.steps > 1) or time.monotonic() - self._saved_s >= self._checkpoint_s
            try:
                loss = self.loss = self._stepper.advance(holds=not is_last and (is_judged or is_saved))
            except SpreadError:
                self._save()
                raise
            if is_last or training.step == 1 or training.step % record_every == 0:
                self._attempt.write_metrics(training.step, loss, {STEPS: training.steps})  # before a checkpoint can skip it
            if is_judged and training.is_candidate:
                self._judge()
            if is_saved:
                self._save()  # what a single quick step did is sooner done again than written
                self._stepper.record()
            if not is_last:
                self._stepper.release()
            self._look_around()
        self._stepper.close()
        return self._choose()

    def _judge(self) -> None:
        self._candidates[self.training.step] = judge_model(self.training.model(), self._held_out, self.training.step)

    def _save(self) -> None:
        contents = self.training.state()
        candidate = self._candidates.get(self.training.step)
        if candidate is not None:
            contents[JUDGED] = msgspec.json.encode(candidate)
        self._attempt.save_checkpoint(self.training.step, contents)
        best = best_checkpoint(tuple(self._candidates.values()))[0].step if self._candidates else -1
        self._attempt.prune_checkpoints({best, *self._candidates})
        self._saved_s = time.monotonic()

    def _look_around(self) -> None:
        if time.monotonic() - self._checked_s >= CHECK_S:
            self._stop()
            self._checked_s = time.monotonic()

    def _choose(self) -> tuple[Model, str]:
        if self.training.step not in self._candidates:
            self._judge()
        while True:
            best, reason = best_checkpoint(tuple(self._candidates.values()))
            if best.step == self.training.step or self._go_back(best.step):
                return self.training.model(), reason
            del self._candidates[best.step]

    def _go_back(self, step: int) -> bool:
        """Restore the weights of an earlier step; False when no whole checkpoint of it is left."""
        for checkpoint in list_checkpoints(self._attempt.folder, self._attempt.run):
            if checkpoint.step != step:
                continue
            try:
                state = checkpoint.files()
            except (NotFoundError, IntegrityError):
                continue
            self.training.restore({name: data for name, data in state.items() if name != JUDGED})
            return True
        return False
