"""A rank that is not the owner: it waits for a generation, takes part, and waits for the next one until the steps are done.

Owns this process's part in another node's attempt. Must never write a checkpoint, a metric or a version: that is the owner's.
Called by the training child for a `RankHint`.
"""

from __future__ import annotations

import logging
import os
import socket
import time

from datastore_layout.ranks import Checkpointed
from datastore_layout.root import TaskFolder
from datastore_layout.runs import Attempt, latest_attempt, read_finish, read_run
from labelloop.errors import LabelloopError, UnreachableError
from labelloop.settings import Settings
from learning.algorithms import Training, find_algorithm
from roles.hints import RankHint, RunHint
from roles.train.attempt import Work
from roles.train.board import Board, join_board
from roles.train.group import Group, RankLostError, make_group
from roles.train.lead import Beat, exchange_addresses
from roles.train.owner import take_newest
from roles.train.process import Process, ProcessOrder
from roles.train.rendezvous import meet, preload
from roles.train.sharing import Go, Here, Opened, Ready, Refused, Seated, Snapshot, fingerprint_of

logger = logging.getLogger(__name__)

_PAUSE_S = 0.02
_CHECK_S = 1.0
_OFFER_S = 0.3
_BEAT_S = 0.3


class OverError(LabelloopError):
    """There is nothing left to take part in."""


class Rank:
    """One process of one node on one attempt."""

    def __init__(self, folder: TaskFolder, hint: RankHint, here: Here, settings: Settings, board: Board) -> None:
        self._folder, self._hint, self._here, self._settings, self._board = folder, hint, here, settings, board
        self._me = Seated(node=here.node, hostname=here.hostname or socket.gethostname(), pid=os.getpid())
        self._after = 0
        self._loss: float | None = None
        self._counts: tuple[int, ...] = ()
        self._checked_s = self._offered_s = time.monotonic()

    def run(self) -> str:
        """Take part until the steps are done or the attempt is over; return one sentence for the log."""
        training, fingerprint = self._prepare()
        generations = 0
        try:
            while training.step < training.steps:
                self._offer(fingerprint)
                number, n_nodes = self._wait_until_opened(fingerprint)
                try:
                    generations += 1
                    self._take_part(training, number, n_nodes)
                except RankLostError as exc:
                    logger.info("generation %d of run %d is over here: %s", number, self._hint.run, exc)
                training.share(None)
                self._after = number
            reason = "all steps are done"
        except (OverError, UnreachableError) as exc:
            reason = str(exc)
        return (
            f"a rank of run {self._hint.run} attempt {self._hint.attempt} ends after {generations} generations "
            f"and {training.n_seen} items at step {training.step}: {reason}"
        )

    def run_processes(self) -> str:
        """Take part by processes that are started anew for each generation; return one sentence for the log."""
        attempt = Attempt(self._folder, self._hint.run, self._hint.attempt)
        spec = read_run(self._folder, self._hint.run)
        _, samples = Work(self._folder, spec, attempt, self._settings, self._here).load()
        fingerprint = fingerprint_of(samples, 0, False)
        generations = 0
        try:
            while True:
                self._offer(fingerprint)
                number, n_nodes = self._wait_until_opened(fingerprint)
                generations += 1
                try:
                    if self._run_process(number, n_nodes):
                        reason = "all steps are done"
                        break
                except RankLostError as exc:
                    logger.info("generation %d of run %d is over here: %s", number, self._hint.run, exc)
                self._after = number
        except (OverError, UnreachableError) as exc:
            reason = str(exc)
        return f"a rank of run {self._hint.run} attempt {self._hint.attempt} ends after {generations} generations: {reason}"

    def _run_process(self, number: int, n_nodes: int) -> bool:
        """Watch over this node's process of one generation; return whether all steps are done. Raises RankLostError."""
        seat = meet(self._board, number, n_nodes, self._here.ip, is_owner=False)
        self._board.put(f"seat/{number}/{seat.rank}", self._me)
        addresses = exchange_addresses(self._board, number, seat, self._here.ip, self._pause)
        start = self._board.find(f"start/{number}", Checkpointed)
        if start is None:
            raise RankLostError(f"the owner did not say where generation {number} starts")
        hint = RunHint(task=self._hint.task, run=self._hint.run, attempt=self._hint.attempt)
        order = ProcessOrder(hint=hint, index=seat.rank, addresses=addresses, start=start)
        process = Process(self._here.config_file, order)
        try:
            count = 0
            while (status := process.status()) is None:
                count += 1
                self._board.put(f"beat/{number}/{seat.rank}", Beat(count=count, progress=process.progress()))
                opened = self._board.find("opened", Opened)
                if opened is not None and opened.number > number:
                    raise RankLostError(f"the owner has gone on to generation {opened.number}")
                self._pause(_BEAT_S)
            self._board.put(f"beat/{number}/{seat.rank}", Beat(count=count + 1, progress=process.progress()))
            if status:
                raise RankLostError(f"its process ended with status {status}")
            return True
        finally:
            process.end()

    def _prepare(self) -> tuple[Training, str]:
        attempt = Attempt(self._folder, self._hint.run, self._hint.attempt)
        work = Work(self._folder, read_run(self._folder, self._hint.run), attempt, self._settings, self._here)
        frozen, samples = work.load()
        training, has_start = work.start(frozen, samples)
        return training, fingerprint_of(samples, training.steps, has_start)

    def _offer(self, fingerprint: str) -> None:
        self._offered_s = time.monotonic()
        me = self._me
        ready = Ready(node=me.node, hostname=me.hostname, pid=me.pid, after=self._after, fingerprint=fingerprint)
        self._board.put(f"ready/{me.node}", ready)

    def _wait_until_opened(self, fingerprint: str) -> tuple[int, int]:
        """Wait for a generation with this process in it; return its number and how many nodes may come, the owner included."""
        while True:
            if time.monotonic() - self._offered_s >= _OFFER_S:
                self._offer(fingerprint)
            opened = self._board.find("opened", Opened)
            if opened is not None and opened.number > self._after and opened.pids.get(self._me.node) == self._me.pid:
                return opened.number, 1 + len(opened.pids)
            refused = self._board.find(f"refused/{self._me.node}", Refused)
            if refused is not None and refused.pid == self._me.pid:
                raise OverError(f"the owner refuses this rank: {refused.reason}")
            self._pause()

    def _take_part(self, training: Training, number: int, n_nodes: int) -> None:
        seat = meet(self._board, number, n_nodes, self._here.ip, is_owner=False)
        self._board.put(f"seat/{number}/{seat.rank}", self._me)
        group = make_group(seat.store, seat.rank, seat.size, self._here.ip, self._settings.train.rank_timeout_s)
        try:
            found = take_newest(training, group, Snapshot(files={}, loss=self._loss, counts=self._counts))
            if found is not None:
                self._loss, self._counts = found.loss, found.counts
            training.share(group)
            logger.info("rank %d of %d in generation %d of run %d", seat.rank, seat.size, number, self._hint.run)
            while training.step < training.steps and not group.is_leaving:
                self._loss = training.advance()
                self._counts = group.counts
                if group.is_held:
                    self._wait_for_owner(group, number, training.step)
        finally:
            group.close()

    def _wait_for_owner(self, group: Group, number: int, step: int) -> None:
        """Wait while the owner judges or saves what was learned so far."""
        while self._board.find(f"go/{number}/{step}", Go) is None:
            opened = self._board.find("opened", Opened)
            if opened is not None and opened.number > number:
                raise RankLostError(f"the owner has gone on to generation {opened.number}")
            self._pause()

    def _pause(self, pause_s: float = _PAUSE_S) -> None:
        time.sleep(pause_s)
        if time.monotonic() - self._checked_s < _CHECK_S:
            return
        self._checked_s = time.monotonic()
        if latest_attempt(self._folder, self._hint.run) > self._hint.attempt:
            raise OverError("a higher attempt was claimed")
        if read_finish(self._folder, self._hint.run) is not None:
            raise OverError("the run has ended")


def run_rank(folder: TaskFolder, hint: RankHint, here: Here, settings: Settings) -> str:
    """Take a rank of an attempt that another node owns; return one sentence for the log.

    Raises UnreachableError when its owner does not answer, retryable errors of the datastore.
    """
    if read_finish(folder, hint.run) is not None:
        return f"run {hint.run} has ended already"
    algorithm = find_algorithm(read_run(folder, hint.run).algorithm)
    if algorithm.sharing == "steps":
        algorithm.preload()
    preload()
    rank = Rank(folder, hint, here, settings, join_board(hint.host, hint.port, hint.secret, settings.train.rank_timeout_s))
    return rank.run() if algorithm.sharing == "steps" else rank.run_processes()
