"""The owner's side of a run in processes that are started anew for each generation: TensorFlow fixes its members once a process.

Owns the generations of one attempt and its own process of each. Must never take a step. Called by an attempt, whose lease goes on
beside it. When a member is lost, all processes are ended and started again from the newest whole checkpoint.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable

from datastore_layout.ranks import Checkpointed
from datastore_layout.runs import newest_checkpoint, read_finish
from labelloop.errors import RetryableError
from labelloop.messages import Message
from labelloop.settings import TrainSettings
from roles.hints import RunHint
from roles.train.board import Board
from roles.train.crew import Crew
from roles.train.group import RankLostError
from roles.train.process import Process, ProcessOrder, Progress
from roles.train.rendezvous import Seat, meet
from roles.train.sharing import Ready, Seated

logger = logging.getLogger(__name__)

_PAUSE_S = 0.05
_LOOK_S = 0.5
_ADDRESS_S = 10.0
_LEAST_GENERATION_S = 30.0  # a node that comes later waits so long: taking it in starts all processes anew
_MOST_IDLE = 3  # generations without a step, after which the owner goes on alone
_JOIN_S = 20.0


class Address(Message, frozen=True, kw_only=True):
    """Where a process of a generation will listen."""

    text: str


class Beat(Message, frozen=True, kw_only=True):
    """A member lives, counted, and how far its process is."""

    count: int
    progress: Progress


class Lead:
    """See the module. `stop` raises when the attempt must end."""

    def __init__(self, crew: Crew, settings: TrainSettings, stop: Callable[[], None]) -> None:
        self._crew, self._settings, self._stop = crew, settings, stop
        self._step = 0

    def run(self) -> str:
        """Lead generation after generation until the steps are done; return one sentence for the log.

        Raises RetryableError when even the owner's own process fails alone: the next attempt follows.
        """
        crew = self._crew
        start = newest_checkpoint(crew.attempt.folder, crew.attempt.run)
        crew.begin = self._step = start.step if start is not None else 0
        crew.record(self._step)
        if crew.open(1 + len(crew.here.others()), "its steps are shared by processes"):
            crew.wait_for_first(_JOIN_S if self._settings.distribute_from_s else 3 * _JOIN_S)
        reason, idle = "other nodes came", 0
        while True:
            before = self._step
            reason = self._generation(reason, is_alone=crew.board is None or idle >= _MOST_IDLE)
            crew.record(self._step)
            if not reason:
                return f"run {crew.attempt.run} attempt {crew.attempt.k} was led through {crew.number} generations"
            logger.warning("generation %d of run %d is over: %s", crew.number, crew.attempt.run, reason)
            idle = idle + 1 if self._step == before else 0
            if idle and len(crew.seats) == 1:
                raise RetryableError(f"the owner's own process of run {crew.attempt.run} failed: {reason}; see the log")

    def _generation(self, reason: str, is_alone: bool) -> str:
        """Lead one generation; return why there must be another one, '' = all is done."""
        waiting: dict[str, Ready] = {}
        said = reason
        if not is_alone:
            waiting, said = self._crew.gather(reason)
        try:
            seats, addresses, start = self._join(waiting)
        except RankLostError as exc:
            self._crew.number += 1
            return str(exc)
        attempt = self._crew.attempt
        hint = RunHint(task=attempt.folder.task, run=attempt.run, attempt=attempt.k)
        self._crew.begin_generation(seats, said, start.step)
        self._step = start.step
        process = Process(self._crew.here.config_file, ProcessOrder(hint=hint, index=0, addresses=addresses, start=start))
        try:
            return self._watch(process)
        finally:
            self._take_progress(0, process.end())

    def _join(self, waiting: dict[str, Ready]) -> tuple[tuple[Seated, ...], tuple[str, ...], Checkpointed]:
        """Agree with those who wait on ranks, addresses and the checkpoint to go on from. Raises RankLostError."""
        crew = self._crew
        found = newest_checkpoint(crew.attempt.folder, crew.attempt.run)
        start = Checkpointed(attempt=found.attempt, step=found.step) if found is not None else Checkpointed()
        if not waiting:
            return (crew.me,), (crew.here.ip,), start
        board, number = crew.opened_board(), crew.announce(waiting)
        board.put(f"start/{number}", start)
        seat = meet(board, number, 1 + len(waiting), crew.here.ip, is_owner=True)
        addresses = exchange_addresses(board, number, seat, crew.here.ip, self._stop)
        seats = [board.find(f"seat/{number}/{rank}", Seated) for rank in range(1, seat.size)]
        if None in seats:
            raise RankLostError(f"a rank of generation {number} did not say who it is")
        crew.forget(waiting)
        return (crew.me, *(one for one in seats if one is not None)), addresses, start

    def _watch(self, process: Process) -> str:
        """Watch over a generation; return why it is over, '' = all steps are done and the run has its end."""
        began_s = looked_s = time.monotonic()
        beats = {who.node: (-1, began_s) for who in self._crew.seats[1:]}
        while (status := process.status()) is None:
            self._take_progress(0, process.progress())
            now_s = time.monotonic()
            if now_s - looked_s >= _LOOK_S:
                looked_s = now_s
                self._crew.say(self._step)
                if not self._has_ended():  # by our own process, which has only to leave then
                    self._stop()
                if self._crew.board is not None:
                    self._crew.call(now_s)
                    if reason := self._look_at(beats, now_s, now_s - began_s >= _LEAST_GENERATION_S):
                        return reason
            time.sleep(_PAUSE_S)
        self._take_progress(0, process.progress())
        if status == 0 or self._has_ended():
            return ""
        return "a rank was lost" if len(self._crew.seats) > 1 else f"exit status {status}"

    def _look_at(self, beats: dict[str, tuple[int, float]], now_s: float, takes_in: bool) -> str:
        """Return why the generation cannot go on as it is, '' = it can."""
        board, members = self._crew.opened_board(), self._crew.members()
        for rank, who in enumerate(self._crew.seats[1:], start=1):
            beat = board.find(f"beat/{self._crew.number}/{rank}", Beat)
            if beat is not None and beat.count != beats[who.node][0]:
                beats[who.node] = beat.count, now_s
                self._take_progress(rank, beat.progress)
            elif now_s - beats[who.node][1] > self._settings.rank_timeout_s:
                return f"{who.node} is silent"
        waiting = self._crew.waiting()
        if waiting.keys() & members.keys():
            return "a rank was lost"
        return "another node came" if waiting and takes_in else ""

    def _has_ended(self) -> bool:
        return read_finish(self._crew.attempt.folder, self._crew.attempt.run) is not None

    def _take_progress(self, rank: int, progress: Progress) -> None:
        self._crew.steps[rank], self._crew.items[rank] = progress.steps, progress.items
        self._step = max(self._step, progress.step)


def exchange_addresses(board: Board, number: int, seat: Seat, ip: str, stop: Callable[[], None]) -> tuple[str, ...]:
    """Say where this rank's process will listen and return the addresses of all ranks. Raises RankLostError."""
    with socket.socket() as probe:
        probe.bind((ip, 0))
        board.put(f"address/{number}/{seat.rank}", Address(text=f"{ip}:{probe.getsockname()[1]}"))
    until_s = time.monotonic() + _ADDRESS_S
    while time.monotonic() < until_s:
        found = [board.find(f"address/{number}/{rank}", Address) for rank in range(seat.size)]
        if None not in found:
            return tuple(one.text for one in found if one is not None)
        stop()
        time.sleep(_PAUSE_S)
    raise RankLostError(f"not all ranks of generation {number} said where they listen")
