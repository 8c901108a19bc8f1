"""The owner's side of a run whose ranks change within a process: it forms generation after generation around its training.

Owns the membership of one attempt. Must never publish, nor read samples. Called by `fitting` in place of the training it drives:
`advance` does one step, with whom ever it takes. Alone it is the plain training, bit for bit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Literal

from labelloop.errors import LabelloopError
from labelloop.messages import decode, encode
from labelloop.settings import TrainSettings
from learning.algorithms import Training
from roles.train.crew import Crew
from roles.train.group import Group, RankLostError, make_group
from roles.train.rendezvous import meet
from roles.train.sharing import Go, Ready, Seated, ShareView, Snapshot, how_many_ranks

logger = logging.getLogger(__name__)

LOOK_S = 0.5
_TRIES = 3
Sharing = Literal["none", "steps", "processes"]


class SpreadError(LabelloopError):
    """The run is worth several nodes, and its algorithm must be started anew for that."""

    code = "busy"
    is_retryable = True


class Owner:
    """See the module. `sharing` is the algorithm's; `n_samples` is what a step of one that counts nothing itself computes on."""

    def __init__(
        self, training: Training, crew: Crew, settings: TrainSettings, sharing: Sharing, n_samples: int, stop: Callable[[], None]
    ) -> None:
        self.training = training
        self._crew, self._settings, self._sharing, self._n_samples, self._stop = crew, settings, sharing, n_samples, stop
        self._group: Group | None = None
        self._loss: float | None = None
        self._looked_s = float("-inf")
        self._waited_since_s: float | None = None
        self._spent_s = 0.0
        self._done = 0
        self._is_due = False

    def advance(self, holds: bool = False) -> float:
        """Do one step and return its loss; with `holds` the others wait after it until `release`.

        Raises SpreadError when the run should go on in several processes that are started anew.
        """
        if self._done == 0 and self.training.steps > 1:  # a single step is over before anybody could look
            self._crew.begin = self.training.step
            self.record()
        target = self.training.step + 1
        self._look_around()
        while self.training.step < target:
            if self._group is not None:
                self._group.wants_hold = holds
            seen, since_s = self.training.n_seen, time.monotonic()
            try:
                self._loss = self.training.advance()
            except RankLostError as exc:
                logger.warning("step %d is done again: %s", target, exc)
                self._form("a rank was lost")
                continue
            self._spent_s += time.monotonic() - since_s
            mine = self.training.n_seen - seen or self._n_samples
            self._crew.count(self._group.counts if self._group is not None else (mine,))
            self._is_due = self._group is not None and self._group.is_leaving
        self._done += 1
        assert self._loss is not None
        return self._loss

    def release(self) -> None:
        """Let the others go on after a step with `holds`."""
        if self._group is not None and self._group.is_held:
            self._crew.opened_board().put(f"go/{self._crew.number}/{self.training.step}", Go())

    def record(self) -> None:
        """Write how far the present generation is."""
        self._crew.record(self.training.step)

    def close(self) -> None:
        """Part from the others and write the record of the last generation."""
        self._part()
        self._crew.board = None
        self.record()

    # ------------------------------------------------------------ who should be in, and who waits

    def _look_around(self) -> None:
        """Call those who are missing; take those who wait in, at once when alone, else after the next step."""
        now_s = time.monotonic()
        if self._is_due:
            self._form("another node came")
        if now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        self._crew.say(self.training.step, self.training.steps)
        if self._crew.board is None and not self._open():
            return
        self._crew.call(now_s)
        if self._done == 0 and not self._settings.distribute_from_s and self._group is None:
            self._crew.wait_for_first()
        waiting = self._crew.waiting()
        if not waiting:
            self._waited_since_s = None
            return
        if self._waited_since_s is None:
            self._waited_since_s = now_s
        missing = set(self._crew.here.others()) - set(waiting) - set(self._crew.members())
        if missing and now_s - self._waited_since_s < self._settings.gather_s and self._done:
            return  # they may come with the next look: one change of membership instead of two
        if self._group is None:
            self._form("other nodes came")
        else:
            self._group.wants_leave = True

    def _open(self) -> bool:
        view = ShareView(
            is_shared=self._sharing != "none",
            others=len(self._crew.here.others()) if self._sharing != "none" else 0,
            step=self._done,
            steps=self._done + self.training.steps - self.training.step,
            spent_s=self._spent_s,
            distribute_from_s=self._settings.distribute_from_s,
        )
        ranks, reason = how_many_ranks(view)
        if ranks < 2:
            return False
        if self._sharing == "processes":
            raise SpreadError(reason)
        if not self._crew.open(ranks, reason):
            self._sharing = "none"
            return False
        return True

    # ------------------------------------------------------------ generations

    def _form(self, reason: str) -> None:
        """End this generation and begin the next one with those who wait; alone when nobody does or nothing comes of it."""
        self._part()
        for _ in range(_TRIES):
            waiting, said = self._crew.gather(reason)
            try:
                seats = self._join(waiting)
            except RankLostError as exc:
                logger.warning("generation %d did not come about: %s", self._crew.number + 1, exc)
                self._part()
                self._crew.number += 1
                continue
            self._begin_generation(seats, said)
            return
        self._begin_generation((self._crew.me,), f"{reason}; no group came about")

    def _part(self) -> None:
        self.training.share(None)
        if self._group is not None:
            self._group.close()
        self._group = None
        self._is_due = False

    def _join(self, waiting: dict[str, Ready]) -> tuple[Seated, ...]:
        """Form the group of the next generation and agree on the newest state; return who sits where. Raises RankLostError."""
        if not waiting:
            return (self._crew.me,)
        board, number, ip = self._crew.opened_board(), self._crew.announce(waiting), self._crew.here.ip
        seat = meet(board, number, 1 + len(waiting), ip, is_owner=True)
        if seat.size == 1:
            return (self._crew.me,)
        self._group = make_group(seat.store, seat.rank, seat.size, ip, self._settings.rank_timeout_s)
        self._agree(self._group)
        seats = [board.find(f"seat/{number}/{rank}", Seated) for rank in range(1, seat.size)]
        if None in seats:
            raise RankLostError(f"a rank of generation {number} did not say who it is")
        self.training.share(self._group)
        self._crew.forget(waiting)  # what they said once more before they saw that the generation is open
        return (self._crew.me, *(one for one in seats if one is not None))

    def _agree(self, group: Group) -> None:
        before = self.training.step
        found = take_newest(self.training, group, Snapshot(files={}, loss=self._loss, counts=()))
        if self.training.step > before and found is not None:  # the others had done the step that broke here
            self._loss = found.loss
            self._crew.count(found.counts)

    def _begin_generation(self, seats: tuple[Seated, ...], reason: str) -> None:
        self._waited_since_s = None
        self._crew.begin_generation(seats, reason, self.training.step)


def take_newest(training: Training, group: Group, mine: Snapshot) -> Snapshot | None:
    """Bring the training to the state of the rank that is furthest; return that state, None where it was this rank's own."""

    def pack() -> bytes:
        return encode(Snapshot(files=training.state(), loss=mine.loss, counts=mine.counts))

    data = group.newest_state(training.step, pack)
    if data is None:
        return None
    found = decode(Snapshot, data)
    training.restore(found.files)
    return found
