"""The owner's side of a run that several nodes share: it opens the board, calls the others, forms generation after generation.

Owns the membership of one attempt and its record. Must never publish, nor read samples. Called by `fitting` in place of the
training it drives: `advance` does one step, with whom ever it takes. Alone it is the plain training, bit for bit.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable

from datastore_layout.ranks import Generation, Meeting, RankRecord, write_generation, write_meeting
from datastore_layout.runs import Attempt
from labelloop.errors import UnreachableError
from labelloop.messages import decode, encode
from labelloop.settings import TrainSettings
from learning.algorithms import Training
from roles.hints import RankHint
from roles.train.board import Board, open_board
from roles.train.group import Group, RankLostError, make_group
from roles.train.rendezvous import meet
from roles.train.sharing import Go, Here, Opened, Ready, Refused, Seated, ShareView, Snapshot, how_many_ranks, who_waits

logger = logging.getLogger(__name__)

LOOK_S = 0.5
CALL_AGAIN_S = 3.0
LONGEST_PAUSE_S = 60.0
FIRST_WAIT_S = 60.0
_PAUSE_S = 0.02
_TRIES = 3


class Owner:
    """See the module. `stop` raises when the attempt must end; `is_shared` says that the algorithm's steps can be shared.

    `n_samples` is what a step of an algorithm that counts nothing itself computes on: all samples.
    """

    def __init__(
        self,
        training: Training,
        attempt: Attempt,
        here: Here,
        settings: TrainSettings,
        fingerprint: str,
        n_samples: int,
        is_shared: bool,
        stop: Callable[[], None],
    ) -> None:
        self.training = training
        self._n_samples = n_samples
        self._attempt, self._here, self._settings = attempt, here, settings
        self._fingerprint, self._is_shared, self._stop = fingerprint, is_shared, stop
        self._me = Seated(node=here.node, hostname=here.hostname or socket.gethostname(), pid=os.getpid())
        self._board: Board | None = None
        self._secret = secrets.token_hex(16)
        self._group: Group | None = None
        self._number = 1
        self._begin = training.step
        self._reason = "the attempt began"
        self._seats: tuple[Seated, ...] = (self._me,)
        self._steps: Counter[int] = Counter()
        self._items: Counter[int] = Counter()
        self._called_s: dict[str, float] = {}
        self._losses: Counter[str] = Counter()
        self._loss: float | None = None
        self._looked_s = float("-inf")
        self._waited_since_s: float | None = None
        self._n_calls: Counter[str] = Counter()
        self._spent_s = 0.0
        self._done = 0
        self._is_due = False

    def advance(self, holds: bool = False) -> float:
        """Do one step and return its loss; with `holds` the others wait after it until `release`."""
        if self._done == 0 and self.training.steps > 1:  # a single step is over before anybody could look
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
            self._count(self._group.counts if self._group is not None else (self.training.n_seen - seen or self._n_samples,))
            self._is_due = self._group is not None and self._group.is_leaving
        self._done += 1
        assert self._loss is not None
        return self._loss

    def release(self) -> None:
        """Let the others go on after a step with `holds`."""
        if self._group is not None and self._board is not None and self._group.is_held:
            self._board.put(f"go/{self._number}/{self.training.step}", Go())

    def record(self) -> None:
        """Write how far the present generation is."""
        ranks = tuple(
            RankRecord(
                rank=rank, node=who.node, hostname=who.hostname, pid=who.pid, steps=self._steps[rank], items=self._items[rank]
            )
            for rank, who in enumerate(self._seats)
        )
        record = Generation(number=self._number, begin=self._begin, step=self.training.step, reason=self._reason, ranks=ranks)
        write_generation(self._attempt, record)

    def close(self) -> None:
        """Part from the others and write the record of the last generation."""
        self.training.share(None)
        if self._group is not None:
            self._group.close()
        self._group = self._board = None
        self.record()

    def _count(self, counts: tuple[int, ...]) -> None:
        for rank, n in enumerate(counts):
            self._steps[rank] += 1
            self._items[rank] += n

    # ------------------------------------------------------------ who should be in, and who waits

    def _look_around(self) -> None:
        """Call those who are missing; take those who wait in, at once when alone, else after the next step."""
        now_s = time.monotonic()
        if self._is_due:
            self._form("another node came")
        if now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        if self._board is None and not self._open():
            return
        self._call(now_s)
        if self._done == 0 and not self._settings.distribute_from_s and self._group is None:
            self._wait_for_first(now_s + FIRST_WAIT_S)
        waiting = self._waiting()
        if not waiting:
            self._waited_since_s = None
            return
        if self._waited_since_s is None:
            self._waited_since_s = now_s
        missing = set(self._here.others()) - set(waiting) - set(self._members())
        if missing and now_s - self._waited_since_s < self._settings.gather_s and self._done:
            return  # they may come with the next look: one change of membership instead of two
        if self._group is None:
            self._form("other nodes came")
        else:
            self._group.wants_leave = True

    def _open(self) -> bool:
        view = ShareView(
            is_shared=self._is_shared,
            others=len(self._here.others()) if self._is_shared else 0,
            step=self._done,
            steps=self._done + self.training.steps - self.training.step,
            spent_s=self._spent_s,
            distribute_from_s=self._settings.distribute_from_s,
        )
        ranks, reason = how_many_ranks(view)
        if ranks < 2:
            return False
        try:
            self._board = open_board(self._here.ip, self._secret, self._settings.rank_timeout_s)
        except UnreachableError as exc:
            logger.error("the run stays on one node: %s", exc)
            self._is_shared = False
            return False
        meeting = Meeting(node=self._here.node, host=self._board.host, port=self._board.port)
        write_meeting(self._attempt, meeting)
        logger.info("run %d is for %d ranks, which meet at %s:%d: %s", self._attempt.run, ranks, meeting.host, meeting.port, reason)
        return True

    def _call(self, now_s: float) -> None:
        assert self._board is not None
        members = self._members()
        for node in self._here.others():
            pause_s = min(CALL_AGAIN_S * 2 ** max(0, self._n_calls[node] - 1), LONGEST_PAUSE_S)
            if node in members or now_s - self._called_s.get(node, float("-inf")) < pause_s:
                continue
            self._called_s[node] = now_s
            self._n_calls[node] += 1
            hint = RankHint(
                task=self._attempt.folder.task,
                run=self._attempt.run,
                attempt=self._attempt.k,
                host=self._board.host,
                port=self._board.port,
                secret=self._secret,
            )
            self._here.call(hint, node)

    def _wait_for_first(self, until_s: float) -> None:
        while set(self._waiting()) < set(self._here.others()) and time.monotonic() < until_s:
            self._stop()
            self._call(time.monotonic())
            time.sleep(_PAUSE_S)

    def _members(self) -> dict[str, int]:
        return {who.node: who.pid for who in self._seats[1:]}

    def _waiting(self) -> dict[str, Ready]:
        """Return who waits for the next generation; one who trains something else is told so."""
        assert self._board is not None
        found: dict[str, Ready] = {}
        for node in self._called_s:
            one = self._board.find(f"ready/{node}", Ready)
            if one is None:
                continue
            if one.fingerprint != self._fingerprint:
                reason = "its samples or starting weights are not the owner's"
                self._board.put(f"refused/{node}", Refused(pid=one.pid, reason=reason))
                continue
            found[node] = one
        return who_waits(found, self._members(), self._number, self._losses)

    # ------------------------------------------------------------ generations

    def _form(self, reason: str) -> None:
        """End this generation and begin the next one with those who wait; alone when nobody does or nothing comes of it."""
        self._part()
        for _ in range(_TRIES):
            waiting = self._gather()
            lost = sorted(set(self._members()) - set(waiting))
            for node in lost:
                self._losses[node] += 1
                self._called_s[node] = time.monotonic()  # it is called again, but not in this very moment
            said = f"{reason}: {', '.join(lost)} left" if lost else f"{reason}: {', '.join(waiting)}"
            try:
                seats = self._join(waiting)
            except RankLostError as exc:
                logger.warning("generation %d did not come about: %s", self._number + 1, exc)
                self._part()
                self._number += 1
                continue
            self._begin_generation(seats, said)
            return
        self._begin_generation((self._me,), f"{reason}; no group came about")

    def _part(self) -> None:
        self.training.share(None)
        if self._group is not None:
            self._group.close()
        self._group = None
        self._is_due = False

    def _gather(self) -> dict[str, Ready]:
        """Wait a moment for the members of the last generation; return all who wait."""
        until_s = time.monotonic() + self._settings.gather_s
        while True:
            waiting = self._waiting()
            if set(self._members()) <= set(waiting) or time.monotonic() >= until_s:
                return waiting
            self._stop()
            time.sleep(_PAUSE_S)

    def _join(self, waiting: dict[str, Ready]) -> tuple[Seated, ...]:
        """Form the group of the next generation and agree on the newest state; return who sits where. Raises RankLostError."""
        if not waiting:
            return (self._me,)
        assert self._board is not None
        number = self._number + 1
        self._forget(waiting)
        self._board.put("opened", Opened(number=number, pids={node: one.pid for node, one in waiting.items()}))
        seat = meet(self._board, number, 1 + len(waiting), self._here.ip, is_owner=True)
        if seat.size == 1:
            return (self._me,)
        self._group = make_group(seat.store, seat.rank, seat.size, self._here.ip, self._settings.rank_timeout_s)
        self._agree(self._group)
        seats = [self._board.find(f"seat/{number}/{rank}", Seated) for rank in range(1, seat.size)]
        if None in seats:
            raise RankLostError(f"a rank of generation {number} did not say who it is")
        self.training.share(self._group)
        self._forget(waiting)  # what they said once more before they saw that the generation is open
        return (self._me, *(one for one in seats if one is not None))

    def _forget(self, nodes: Iterable[str]) -> None:
        """Remove what nodes said while they waited: who waits says so again, so that nobody waits for the dead."""
        assert self._board is not None
        for node in nodes:
            self._board.remove(f"ready/{node}")

    def _agree(self, group: Group) -> None:
        before = self.training.step
        found = take_newest(self.training, group, Snapshot(files={}, loss=self._loss, counts=()))
        if self.training.step > before and found is not None:  # the others had done the step that broke here
            self._loss = found.loss
            self._count(found.counts)

    def _begin_generation(self, seats: tuple[Seated, ...], reason: str) -> None:
        self.record()
        self._number, self._begin, self._reason, self._seats = self._number + 1, self.training.step, reason, seats
        self._steps, self._items = Counter(), Counter()
        self._waited_since_s = None
        self.record()
        names = ", ".join(who.node for who in seats)
        logger.info("generation %d of run %d from step %d: %s (%s)", self._number, self._attempt.run, self._begin, names, reason)


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
