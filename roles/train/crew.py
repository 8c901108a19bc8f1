"""The nodes of a shared attempt as its owner sees them: who is called, who waits, who is in, and the record of it.

Owns the board, the calls and the generations' record of one attempt. Must never take a step. Called by `owner`, whose ranks change
within a process, and by `lead`, whose ranks are processes started anew.
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
from labelloop.settings import TrainSettings
from roles.hints import RankHint
from roles.train.board import Board, open_board
from roles.train.rendezvous import preload
from roles.train.sharing import Here, Opened, Ready, Refused, Seated, who_waits

logger = logging.getLogger(__name__)

CALL_AGAIN_S = 3.0
LONGEST_PAUSE_S = 60.0
FIRST_WAIT_S = 60.0
PAUSE_S = 0.02


class Crew:
    """See the module. `stop` raises when the attempt must end; `begin` is the step the attempt begins at."""

    def __init__(
        self,
        attempt: Attempt,
        here: Here,
        settings: TrainSettings,
        fingerprint: str,
        begin: int,
        stop: Callable[[], None],
    ) -> None:
        self.attempt, self.here, self._settings = attempt, here, settings
        self._fingerprint, self._stop = fingerprint, stop
        self.me = Seated(node=here.node, hostname=here.hostname or socket.gethostname(), pid=os.getpid())
        self.board: Board | None = None
        self._secret = secrets.token_hex(16)
        self.number = self._on_record = 1  # a generation that does not come about takes a number, and has no record
        self.begin = begin
        self.reason = "the attempt began"
        self.seats: tuple[Seated, ...] = (self.me,)
        self.steps: Counter[int] = Counter()
        self.items: Counter[int] = Counter()
        self._called_s: dict[str, float] = {}
        self._n_calls: Counter[str] = Counter()
        self._losses: Counter[str] = Counter()

    # ------------------------------------------------------------ the record

    def count(self, counts: tuple[int, ...]) -> None:
        """Take in how many samples each rank computed on in one step."""
        for rank, n in enumerate(counts):
            self.steps[rank] += 1
            self.items[rank] += n

    def record(self, step: int) -> None:
        """Write how far the present generation is."""
        ranks = tuple(
            RankRecord(rank=rank, node=who.node, hostname=who.hostname, pid=who.pid, steps=self.steps[rank], items=self.items[rank])
            for rank, who in enumerate(self.seats)
        )
        record = Generation(number=self._on_record, begin=self.begin, step=step, reason=self.reason, ranks=ranks)
        write_generation(self.attempt, record)

    def say(self, step: int, steps: int = 0) -> None:
        """Tell the node how far the attempt is, for its status; `steps` 0 = how many there are is not known here."""
        attempt = self.attempt
        far = f"{step} of {steps} steps" if steps else f"step {step}"
        where = f" on {len(self.seats)} nodes" if len(self.seats) > 1 else ""
        self.here.say(f"{attempt.folder.task}: run {attempt.run} attempt {attempt.k}, {far}{where}")

    def begin_generation(self, seats: tuple[Seated, ...], reason: str, step: int) -> None:
        """Close the record of this generation and begin the next one's at `step`."""
        self.record(step)
        self.number += 1
        self._on_record, self.begin, self.reason, self.seats = self.number, step, reason, seats
        self.steps, self.items = Counter(), Counter()
        self.record(step)
        names = ", ".join(who.node for who in seats)
        logger.info("generation %d of run %d from step %d: %s (%s)", self.number, self.attempt.run, step, names, reason)

    # ------------------------------------------------------------ the board and the calls

    def open(self, n_ranks: int, reason: str) -> bool:
        """Open the board; False when the node's address does not do."""
        preload()
        try:
            self.board = open_board(self.here.ip, self._secret, self._settings.rank_timeout_s)
        except UnreachableError as exc:
            logger.error("the run stays on one node: %s", exc)
            return False
        meeting = Meeting(node=self.here.node, host=self.board.host, port=self.board.port)
        write_meeting(self.attempt, meeting)
        logger.info(
            "run %d is for %d ranks, which meet at %s:%d: %s", self.attempt.run, n_ranks, meeting.host, meeting.port, reason
        )
        return True

    def opened_board(self) -> Board:
        """Return the board, which was opened before."""
        assert self.board is not None
        return self.board

    def call(self, now_s: float) -> None:
        """Call the good nodes that are not in; each time again the pause that follows is longer."""
        board, members = self.opened_board(), self.members()
        for node in self.here.others():
            pause_s = min(CALL_AGAIN_S * 2 ** max(0, self._n_calls[node] - 1), LONGEST_PAUSE_S)
            if node in members or now_s - self._called_s.get(node, float("-inf")) < pause_s:
                continue
            self._called_s[node] = now_s
            self._n_calls[node] += 1
            hint = RankHint(
                task=self.attempt.folder.task,
                run=self.attempt.run,
                attempt=self.attempt.k,
                host=board.host,
                port=board.port,
                secret=self._secret,
            )
            self.here.call(hint, node)

    def wait_for_first(self, patience_s: float = FIRST_WAIT_S) -> None:
        """Wait until all good nodes wait for the next generation, but no longer than `patience_s`."""
        until_s = time.monotonic() + patience_s
        while set(self.waiting()) < set(self.here.others()) and time.monotonic() < until_s:
            self._stop()
            self.call(time.monotonic())
            time.sleep(PAUSE_S)

    # ------------------------------------------------------------ who is in, and who waits

    def members(self) -> dict[str, int]:
        """Return the process of each node in this generation but the owner."""
        return {who.node: who.pid for who in self.seats[1:]}

    def waiting(self) -> dict[str, Ready]:
        """Return who waits for the next generation; one who trains something else is told so."""
        board = self.opened_board()
        found: dict[str, Ready] = {}
        for node in self._called_s:
            one = board.find(f"ready/{node}", Ready)
            if one is None:
                continue
            if one.fingerprint != self._fingerprint:
                reason = "its samples or starting weights are not the owner's"
                board.put(f"refused/{node}", Refused(pid=one.pid, reason=reason))
                continue
            found[node] = one
        return who_waits(found, self.members(), self.number, self._losses)

    def gather(self, reason: str) -> tuple[dict[str, Ready], str]:
        """Wait a moment for the members of the last generation; return all who wait, and why there is a new generation."""
        until_s = time.monotonic() + self._settings.gather_s
        while True:
            waiting = self.waiting()
            if set(self.members()) <= set(waiting) or time.monotonic() >= until_s:
                break
            self._stop()
            time.sleep(PAUSE_S)
        lost = sorted(set(self.members()) - set(waiting))
        for node in lost:
            self._losses[node] += 1
            self._called_s[node] = time.monotonic()  # it is called again, but not in this very moment
        return waiting, f"{reason}: {', '.join(lost)} left" if lost else f"{reason}: {', '.join(waiting) or 'nobody'}"

    def announce(self, waiting: dict[str, Ready]) -> int:
        """Open the next generation to those who wait and return its number."""
        self.forget(waiting)
        number = self.number + 1
        self.opened_board().put("opened", Opened(number=number, pids={node: one.pid for node, one in waiting.items()}))
        return number

    def forget(self, nodes: Iterable[str]) -> None:
        """Remove what nodes said while they waited: who waits says so again, so that nobody waits for the dead."""
        for node in nodes:
            self.opened_board().remove(f"ready/{node}")
